"""What is printed reaches whoever reads it as far as it can, and the command does its work in any case."""

import os
import subprocess
import sys

import pytest
from command import SECONDS, environment, here
from command_server import COMMAND

from harness.cli import main
from harness.terminal import patient_streams

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""a locale that has nothing but ASCII, and a Python that minds it"""


def shell(line, folder, **variables):
    """A line of a shell, in which $TRAINDYN is the command: its exit code, stdout and stderr in bytes."""
    words = ["bash", "-c", f"set -o pipefail; {line}"]
    variables = environment() | {"TRAINDYN": str(COMMAND)} | variables
    done = subprocess.run(words, cwd=folder, env=variables, capture_output=True, timeout=SECONDS)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("$TRAINDYN doctor results_dir=$RESULTS >&-", 0),
        ("$TRAINDYN doctor results_dir=$RESULTS 2>&-", 0),
        ("$TRAINDYN doctor results_dir=$RESULTS <&- >&- 2>&-", 0),
        ("$TRAINDYN run --help | head -1", 0),
        ("$TRAINDYN doctor results_dir=$RESULTS | true", 0),
        ("$TRAINDYN doctor repair=maybe >&- 2>&-", 2),
        ("$TRAINDYN doctor repair=maybe 2>&1 | true", 2),
    ],
)
def test_nobody_listens(line, code, smoke):
    """The exit code is that of the work, and nothing is said of the stream."""
    found, _, stderr = shell(line, smoke.results.parent, RESULTS=str(smoke.results))
    assert (found, stderr) == (code, b"")


def test_a_locale_that_is_not_utf8(smoke_copy):
    """The terminal gets ASCII, the files are UTF-8: the page and the tables hold a plus-minus sign."""
    line = "$TRAINDYN report suite=smoke figures=none results_dir=$RESULTS"
    code, stdout, stderr = shell(line, smoke_copy.parent, RESULTS=str(smoke_copy), **ASCII)
    assert (code, stderr) == (0, b"")
    assert "+-" in stdout.decode("ascii")
    suite = smoke_copy / "suites/smoke"
    for path in (suite / "report/index.html", suite / "report/curves.js", *(suite / "tables").glob("*.*")):
        path.read_bytes().decode("utf-8")
    assert "±" in (suite / "report/index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("encoding", "expected"), [("ascii", b"+- \\xdf -"), ("latin-1", b"\xb1 \xdf -")])
def test_what_an_encoding_lacks(encoding, expected):
    """Our own signs have a stand-in of several letters, all else is escaped."""
    code = "from harness.terminal import patient_streams\nwith patient_streams():\n    print('± ß –')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True, check=True
    )
    assert done.stdout.strip() == expected


def test_streams_of_others_are_left_alone(capsys):
    """As in a notebook, or where a test listens."""
    before = sys.stdout
    with patient_streams():
        assert sys.stdout is before
        print("±")
    assert capsys.readouterr().out == "±\n"


def test_brackets_and_colons_in_names_are_no_markup(tmp_path):
    """rich reads [red] as a colour and :smile: as a face."""
    results = tmp_path / "a [red] b [/] :smile:"
    planned = here("plan", "dataset=digits", "method=base", results=results).stdout
    assert "[red]" in planned
    assert ":smile:" in " ".join(planned.split())


def test_no_home(monkeypatch):
    """Who has none has a cache among the temporary files; presets and plans need nothing of it."""
    from harness.storage.cache import cache_folder

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert cache_folder().is_absolute()


def interrupted_in_a_clean_up(*_):
    """As Optuna's lock of a journal, let go of twice where an interrupt falls between its two steps."""
    try:
        raise KeyboardInterrupt
    except BaseException:
        os.unlink("/nonexistent/lock")


@pytest.mark.parametrize(("redo", "unit"), [("swa", "finished cell"), ("base", "stored epoch")])
def test_an_interrupt_names_epochs_where_some_are_trained_alone(smoke_copy, monkeypatch, capsys, redo, unit):
    """A replay trains nothing."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.cli._execute", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["run", "suite=smoke", f"redo={redo}", "tracker=none", f"results_dir={smoke_copy}"])
    assert ended.value.code == 130
    said = capsys.readouterr().err
    assert said == f"interrupted: run the same command again to go on from the last {unit}\n"


def test_an_interrupt_that_comes_up_as_another_error_is_an_interrupt(monkeypatch, capsys):
    monkeypatch.setattr("harness.cli._tune", interrupted_in_a_clean_up)
    with pytest.raises(SystemExit) as ended:
        main(["tune", "suite=smoke"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == (
        "interrupted: run the same command again to go on from the last finished trial\n"
    )
