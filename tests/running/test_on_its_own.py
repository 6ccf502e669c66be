"""Processes of a command start whatever the command is called from, and wherever temporary files lie."""

import subprocess
import sys
import tempfile

import pytest
from command import SECONDS, environment
from command_server import COMMAND

from harness.planning.compose import available
from harness.storage.sockets import MOST_BYTES, room_for_sockets

RUN = ["run", "model=test_resnet", "dataset=digits", "method=base", "epochs=1", "batches_per_epoch=1", "tracker=csv"]
FOREIGN = ("conf", "baselines")
"""packages that a folder of somebody's may have, too"""
SHADOWS = ("harness", "torch", "wandb", "random", "queue")
"""names of libraries, which an installed command never looks for in the folder that it runs in"""
SCRIPT = f"from harness.cli import main\nmain({RUN})\n"


def trap(folder, names):
    for name in names:
        (folder / f"{name}.py").write_text(f"raise RuntimeError('a foreign {name} was imported')\n")


def run(*words, folder, **variables):
    variables = environment() | variables
    done = subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert list((folder / "results/suites").glob("*/frame.parquet"))


def test_a_script_without_a_main_guard_in_a_folder_with_packages_of_these_names(tmp_path):
    """Its folder comes first on the path of the script, and jobs would run the script anew."""
    trap(tmp_path, FOREIGN)
    (tmp_path / "script.py").write_text(SCRIPT)
    run(sys.executable, "script.py", folder=tmp_path)


@pytest.mark.long
def test_the_command_where_temporary_files_have_a_long_path_and_files_are_called_like_libraries(tmp_path):
    """A socket's path may have 107 characters, of which this folder's has more."""
    trap(tmp_path, (*FOREIGN, *SHADOWS))
    long = tmp_path / ("d" * 100)
    long.mkdir()
    run(COMMAND, *RUN, folder=tmp_path, TMPDIR=str(long), PYTHONPATH="")
    assert not any(path.name.startswith("pymp-") for path in long.iterdir())


@pytest.mark.long
def test_the_command_as_a_text_in_a_thread(tmp_path):
    """As from a notebook: no file is the script, and a thread hears no signal."""
    trap(tmp_path, FOREIGN)
    script = f"import threading\ndef go():\n    from harness.cli import main\n    main({RUN})\n"
    run(
        sys.executable,
        "-c",
        f"{script}thread = threading.Thread(target=go)\nthread.start()\nthread.join()",
        folder=tmp_path,
    )


def test_a_package_that_was_imported_before_is_not_taken_for_this_projects(tmp_path):
    (tmp_path / "baselines.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", f"import baselines\n{SCRIPT}"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: method.base._target_ must lie in ")
    assert line.endswith(f"another baselines was imported before: {tmp_path / 'baselines.py'}")


@pytest.mark.parametrize("characters", [MOST_BYTES, MOST_BYTES + 1])
def test_room_for_sockets(characters, monkeypatch, tmp_path):
    """A short folder stays, a long one is left for the block alone."""
    usual = f"/{'d' * (characters - 1)}"
    monkeypatch.setattr(tempfile, "tempdir", usual)
    monkeypatch.setenv("TMPDIR", usual)
    with room_for_sockets():
        assert (tempfile.gettempdir() == usual) == (characters <= MOST_BYTES)
        assert len(tempfile.gettempdir()) <= MOST_BYTES
    assert tempfile.gettempdir() == usual


def test_presets_are_this_projects_own():
    assert "smoke" in available("suite")
