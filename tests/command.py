"""The command `traindyn` as a test runs it, and what two results folders must have in common.

`start` and `traindyn` run the installed command in a process of its own, which a server forks that has imported the
libraries (`command_server`); `here` calls the same `main` in this process (its jobs still are processes of their own).
"""

import contextlib
import io
import os
import signal
import subprocess
import time
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple
from unittest import mock

import pandas as pd
from command_server import Forked

from harness.cli import main
from harness.results.columns import PARAMETER
from harness.storage.views import chosen_view

OWN = Path(__file__).parent / "own"
"""presets and modules as a user would have them, for --config-dir"""
RUN_ONLY = ("train_seconds", "method_seconds", "eval_seconds", "peak_memory_bytes", "busy", "run_id")
"""what two runs of the same cells may differ in"""
SHIM = Path(__file__).parent / "shim"
SECONDS = 600
"""Longer than anything takes on a machine under load: what meets this deadline hangs."""


def environment():
    """Nothing of the person's own W&B account or data folders."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "TRAINDYN_"))}
    return {**kept, "NETRC": os.devnull, "WANDB_CONFIG_DIR": "/nonexistent"}


def start(*arguments, results, variables=None):
    """The command with its jobs in a process group of its own, so that a signal reaches all of them or none else.

    `variables` are set in its environment.
    """
    words = [*map(str, arguments), f"results_dir={results}"]
    return Forked(words, Path(results).parent, environment() | (variables or {}))


def wait_until(condition, process):
    """Until `condition` holds, while a started command goes on."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, f"ended on its own: {process.communicate()}"
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Held(NamedTuple):
    """A command of which one job waits at an optimizer step, whatever the speed of the machine."""

    process: Forked
    mark: Path

    def go_on(self):
        """Let the job take its next step."""
        self.mark.unlink()

    def end(self, how):
        """Send a signal to all processes of the command, and return what it had printed once it has ended."""
        os.killpg(self.process.pid, how)
        printed = self.process.communicate(timeout=SECONDS)
        self.mark.unlink()
        return printed


def hold(step, *arguments, results, variables=None):
    """Start the command, and come back once a job of it waits at the `step`-th optimizer step of all its jobs."""
    counter = Path(results).with_name("steps")
    counter.unlink(missing_ok=True)
    fault = {"PYTHONPATH": str(SHIM), "FAULT": f"hold step {step} {counter}"}
    process = start(*arguments, results=results, variables=fault | (variables or {}))
    held = Held(process, counter.with_name("steps.held"))
    wait_until(held.mark.exists, process)
    return held


def traindyn(*arguments, results, code=0, variables=None):
    """Run the command to its end, which must be exit code `code`."""
    process = start(*arguments, results=results, variables=variables)
    try:
        stdout, stderr = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == code, f"exit code {process.returncode}\n{stdout}\n{stderr}"
    return CompletedProcess(process.args, process.returncode, stdout, stderr)


def here(*arguments, results, code=0, variables=None):
    """The command in this process; `code` may be several, any of which is expected."""
    words = [*map(str, arguments), f"results_dir={results}"]
    stdout, stderr = io.StringIO(), io.StringIO()
    found = None
    before = signal.getsignal(signal.SIGTERM)
    try:
        with (
            mock.patch.dict(os.environ, environment() | (variables or {}), clear=True),
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
        ):
            main(words)
    except SystemExit as end:
        found = end.code
    finally:
        signal.signal(signal.SIGTERM, before)
    expected = code if isinstance(code, tuple) else (code,)
    assert found in expected, f"exit code {found}\n{stdout.getvalue()}\n{stderr.getvalue()}"
    return CompletedProcess(words, found, stdout.getvalue(), stderr.getvalue())


LATEST = None
"""In place of the name of a view: the latest."""


def view_folder(results, view=LATEST):
    """The folder of a view."""
    return Path(results) / "suites" / chosen_view(results, view)


def numbers(results, view):
    """A view's frame without what two runs may differ in and what depends on the cells beside, by cell key."""
    frame = pd.read_parquet(view_folder(results, view) / "frame.parquet")
    beside = [name for name in frame if name.startswith(PARAMETER)]
    return frame.drop(columns=[*RUN_ONLY, *beside]).set_index("cell_key").sort_index()


def curves(results, view):
    """A view's history without seconds, by cell key and epoch."""
    history = pd.read_parquet(view_folder(results, view) / "history.parquet")
    kept = sorted(name for name in history.columns if not name.endswith("_seconds"))
    return history[kept].set_index(["cell_key", "epoch"]).sort_index()


def assert_same(expected, got):
    """Two frames are the same to the last bit, whatever the order in which rows were made."""
    pd.testing.assert_frame_equal(expected, got, check_exact=True)


def state(folder, *patterns):
    """What lies in a folder and when it was written: equal before and after means that nothing was touched."""
    paths = [path for pattern in patterns or ("**/*",) for path in Path(folder).glob(pattern)]
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_size)
        for path in paths
        if path.is_file()
    }


def cell_folder(results, view, method, seed=0):
    """The folder of the one cell of a method and a seed."""
    frame = pd.read_parquet(view_folder(results, view) / "frame.parquet")
    (key,) = frame.loc[(frame["method"] == method) & (frame["seed"] == seed), "cell_key"]
    return Path(results) / "cells" / key


def base_folder(results, view, seed=0):
    """The folder of the one base of a seed."""
    frame = pd.read_parquet(view_folder(results, view) / "frame.parquet")
    (key,) = set(frame.loc[frame["seed"] == seed, "base_key"])
    return Path(results) / "bases" / key
