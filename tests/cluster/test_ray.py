"""`engine=ray` on a Ray of this machine: `make test-ray`."""

import os
import signal
import time
from pathlib import Path

import pytest
from command import SECONDS, assert_same, curves, numbers, start, traindyn, wait_until

pytest.importorskip("ray")
pytestmark = pytest.mark.ray
RUN = ("run", "suite=smoke", "save=final", "engine=ray", "tracker=none", "trajectory.bundle_seconds=0")


def assert_as_local(smoke, results):
    assert_same(numbers(smoke.results, "smoke"), numbers(results, "smoke"))
    assert_same(curves(smoke.results, "smoke"), curves(results, "smoke"))


def workers(results):
    """Processes that have a job's events file of a results folder open."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            files = [os.readlink(link) for link in (path / "fd").iterdir()]
        except OSError:
            continue
        if any(file.startswith(str(results / "engine")) for file in files):
            found.append(int(path.name))
    return found


def test_the_same_numbers_as_on_this_machine(smoke, tmp_path):
    results = tmp_path / "results"
    traindyn(*RUN, results=results)
    assert_as_local(smoke, results)
    assert not (results / "engine").exists()


def test_a_lost_worker_is_started_again(smoke, tmp_path):
    results = tmp_path / "results"
    process = start(*RUN, results=results)
    wait_until(lambda: list(results.glob("bases/*/restart/latest.safetensors")), process)
    os.kill(workers(results)[0], signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=2 * SECONDS)
    assert process.returncode == 0, (stdout, stderr)
    assert "it goes on from its last epoch" in stdout
    assert_as_local(smoke, results)


def test_ctrl_c_ends_jobs_and_cluster(tmp_path):
    results = tmp_path / "results"
    process = start(*RUN, results=results)
    wait_until(lambda: list(results.glob("bases/*/restart/latest.safetensors")), process)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert stderr.splitlines()[-1].startswith("interrupted: run the same command again")
    deadline = time.monotonic() + SECONDS
    while workers(results):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_no_such_cluster(tmp_path):
    done = traindyn(*RUN, "engine.address=127.0.0.1:1", results=tmp_path / "results", code=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: engine.address must be a cluster that answers, got '127.0.0.1:1'")


def test_more_gpus_than_there_are(tmp_path):
    done = traindyn(*RUN, "engine.gpus=64", results=tmp_path / "results", code=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: engine.gpus must be at most ")
