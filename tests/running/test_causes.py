"""Why something failed, and the line of a person's own code that is found for it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.causes import Cause, line_of, own_line, short_path
from harness.planning.methods import load_class
from harness.validation import ConfigError, check_choice


def raised(function, *arguments):
    with pytest.raises(Exception) as error:  # noqa: PT011  whatever it is
        function(*arguments)
    return error.value


def own_code():
    return json.loads("{")


def wrapped():
    try:
        own_code()
    except ValueError as error:
        check_choice("key", error, ())


HERE = "test_causes.py"


def test_the_innermost_own_line_is_found_below_what_a_library_passed():
    cause = Cause.of(raised(own_code))
    assert cause.reason.startswith("JSONDecodeError: ")
    number = 1 + Path(__file__).read_text().splitlines().index('    return json.loads("{")')
    assert cause.where.endswith(f'{HERE}:{number} in own_code: return json.loads("{{")')
    assert "decoder.py" in cause.traceback


def test_an_error_that_the_harness_words_has_its_own_code_where_it_passed_some():
    assert line_of(raised(wrapped)).endswith('in wrapped: check_choice("key", error, ())')


def test_a_module_that_cannot_be_read_is_named_by_its_line(tmp_path, monkeypatch):
    (tmp_path / "spoiled.py").write_text("import json\nvalues = [1,\n")
    (tmp_path / "fails.py").write_text("import json\njson.loads('{')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert own_line(raised(__import__, "spoiled")) == f"{short_path(tmp_path / 'spoiled.py')}:2: values = [1,"
    found = raised(load_class, "method.mine._target_", "fails.Mine")
    assert isinstance(found, ConfigError)
    assert str(found).endswith(f"(at {short_path(tmp_path / 'fails.py')}:2 in <module>: json.loads('{{'))")


def test_paths_below_the_working_folder_are_named_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert short_path(tmp_path / "mine" / "one.py") == "mine/one.py"
    assert short_path("/elsewhere/one.py") == "/elsewhere/one.py"


def test_what_a_signal_ended_is_read_from_pythons_dump(tmp_path):
    """The dump begins with the line within Python's library."""
    script = tmp_path / "crash.py"
    script.write_text(
        "import ctypes, faulthandler\n"
        "faulthandler.enable(open('dump', 'w'), all_threads=False)\n"
        "def read(address):\n"
        "    return ctypes.string_at(address)\n"
        "read(0)\n"
    )
    subprocess.run([sys.executable, "-S", str(script)], cwd=tmp_path, check=False)
    cause = Cause.of_signal("process ended with SIGSEGV", (tmp_path / "dump").read_text())
    assert cause.where == f"{short_path(script)}:4 in read: return ctypes.string_at(address)"
    assert Cause.of_signal("process ended with SIGKILL", "") == Cause("process ended with SIGKILL")
