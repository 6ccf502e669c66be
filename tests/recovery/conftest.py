"""One results folder whose command was ended again and again, and then let finish."""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from command import SECONDS, start, traindyn

RUN = ("run", "suite=smoke", "save=final", "trajectory.bundle_seconds=0")


class End(NamedTuple):
    """How one attempt ended, and how many cells had their record by then."""

    code: int
    stdout: str
    stderr: str
    records: int


class Interrupted(NamedTuple):
    """A finished folder, what it looked like after the first kill, the ends on the way, and the last run's output."""

    results: Path
    half: Path
    ends: dict[str, End]
    stdout: str


def marks(results, pattern):
    """When the files of a pattern were written."""
    found = {}
    for path in results.glob(pattern):
        try:
            found[path] = path.stat().st_mtime_ns
        except FileNotFoundError:  # replaced or finished with in between
            continue
    return found


def end_when(results, condition, how):
    """Start the command, and send the signal `how` to all of its processes as soon as `condition` holds."""
    process = start(*RUN, results=results)
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, f"ended on its own: {process.communicate()}"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.killpg(process.pid, how)
    stdout, stderr = process.communicate(timeout=30)
    return End(process.returncode, stdout, stderr, len(marks(results, "cells/*/record.json")))


@pytest.fixture(scope="session")
def interrupted(tmp_path_factory):
    """Killed at the first bundle, interrupted at a later one, killed at the first record, and in a branch."""
    results = tmp_path_factory.mktemp("interrupted") / "results"
    bundles, branches = "bases/*/restart/latest.safetensors", "cells/*/restart/latest.safetensors"

    def bundle_is_new(known):
        return any(known.get(path) != mark for path, mark in marks(results, bundles).items())

    ends = {"first bundle": end_when(results, lambda: bundle_is_new({}), signal.SIGKILL)}
    half = Path(shutil.copytree(results, results.parent / "half", ignore=shutil.ignore_patterns("wandb")))
    known = marks(results, bundles)
    ends["next bundle"] = end_when(results, lambda: bundle_is_new(known), signal.SIGINT)
    ends["first record"] = end_when(results, lambda: marks(results, "cells/*/record.json"), signal.SIGKILL)
    ends["in a branch"] = end_when(results, lambda: marks(results, branches), signal.SIGKILL)
    return Interrupted(results, half, ends, traindyn(*RUN, results=results).stdout)
