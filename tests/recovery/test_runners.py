"""Several commands on one results folder: each cell is run once, also when one of them is killed at its work."""

import json
import os
import signal
import time

import pytest
from command import SECONDS, assert_same, curves, numbers, start

from harness.storage.leases import Leases

RUN = ("run", "suite=smoke", "save=final", "tracker=none", "engine.workers=1", "trajectory.bundle_seconds=0")


def ends(processes):
    """Exit codes and outputs."""
    found = []
    for process in processes:
        stdout, stderr = process.communicate(timeout=SECONDS)
        found.append((process.returncode, stdout, stderr))
    return found


def epochs_trained(results):
    """How often each epoch of each base, and the end of each cell, was reached, from the logs."""
    epochs = {}
    for path in results.glob("bases/*/log.txt"):
        for line in path.read_text().splitlines():
            if " epoch " in line:
                name = path.parent.name, line.split(" epoch ")[1].split("/")[0]
                epochs[name] = epochs.get(name, 0) + 1
    cells = {p.parent.name: p.read_text().count(" done") for p in results.glob("cells/*/log.txt")}
    return epochs, cells


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.long)])
def test_runners_that_start_together_share_the_work(smoke, tmp_path, count):
    results = tmp_path / "results"
    found = ends([start(*RUN, results=results) for _ in range(count)])
    assert [code for code, *_ in found] == [0] * count, found
    epochs, cells = epochs_trained(results)
    assert set(epochs.values()) == {1}
    assert set(cells.values()) == {1}
    assert len(cells) == 18
    assert {json.loads(p.read_text())["generation"] for p in results.glob("cells/*/record.json")} == {0}
    assert_same(numbers(smoke.results, "smoke"), numbers(results, "smoke"))
    assert_same(curves(smoke.results, "smoke"), curves(results, "smoke"))


def test_a_killed_runners_work_is_taken_over(smoke, tmp_path):
    """It is killed while its job holds the lease on a base; the other goes on with that base."""
    results = tmp_path / "results"
    killed = start(*RUN, results=results)
    deadline = time.monotonic() + SECONDS
    while not list(results.glob("bases/*/restart/latest.safetensors")):
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.001)
    other = start(*RUN, results=results)
    (held,) = [n for n, owner in Leases(results).all().items() if n.startswith("bases-") and owner is not None]
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    ((code, stdout, stderr),) = ends([other])
    assert code == 0, (stdout, stderr)
    assert (results / "leases" / f"{held}.json").exists() is False
    assert_same(numbers(smoke.results, "smoke"), numbers(results, "smoke"))
    assert_same(curves(smoke.results, "smoke"), curves(results, "smoke"))
