"""Kills and disk faults at seeded moments, in whichever process they fall: afterwards all is as in an undisturbed run.

A few in every run of the tests, the rest with `make test-recovery`.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from command import assert_same, curves, numbers, start, traindyn
from offline import offline_runs

from harness.tracking.wandb.transaction_log import read_offline

SHIM = str(Path(__file__).parents[1] / "shim")
RUN = ("run", "suite=smoke", "save=final", "tracker=none", "trajectory.bundle_seconds=0")
PUBLISH = ("publish", "suite=smoke", "tracker.mode=offline")
TUNE = ("tune", "suite=smoke", "seeds=[0]", "method=[swa,lookahead]", "trials=3", "tune.batch=1", "tracker=none")
KILLS_A_FOLDER = 5
FOLDERS = 10
LAST = {"write": 130, "step": 110, "second": 80}
"""about as many as an undisturbed run has: writes, optimizer steps, tenths of a second"""
SECONDS = 180


def disturbed(words, results, fault, counter):
    """A command with a fault; its exit code and what it printed."""
    counter.unlink(missing_ok=True)
    process = start(*words, results=results, variables={"PYTHONPATH": SHIM, "FAULT": f"{fault} {counter}"})
    try:
        stdout, stderr = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, stdout, stderr


def kills(seed, count=KILLS_A_FOLDER):
    """Moments to be killed at, early ones more often, since later attempts have less left to do."""
    random_ = random.Random(seed)
    for _ in range(count):
        at = random_.choice(list(LAST))
        yield f"kill {at} {random_.randint(1, LAST[at] // 2)}"


def weights(results):
    """Digests of every base's weights after every epoch, and of every cell's last weights."""
    bases = {path.parent.name: json.loads(path.read_text())["digests"] for path in results.glob("bases/*/base.json")}
    finals = sorted(results.glob("cells/*/weights.safetensors"))
    return bases, {path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in finals}


def images(results):
    """Which test images every cell got right."""
    records = [json.loads(path.read_text()) for path in results.glob("cells/*/record.json")]
    return {record["cell_key"]: record["test_correct"] for record in records}


def assert_as_undisturbed(expected, results):
    assert_same(numbers(expected, "smoke"), numbers(results, "smoke"))
    assert_same(curves(expected, "smoke"), curves(results, "smoke"))
    assert weights(expected) == weights(results)
    assert images(expected) == images(results)
    assert not list(results.rglob("*.corrupt-*"))
    assert not list(results.rglob("latest.safetensors"))


LONG = [pytest.param(seed, marks=pytest.mark.long) for seed in range(1, FOLDERS)]


@pytest.mark.parametrize("seed", [0, *LONG])
def test_killed_again_and_again(smoke, tmp_path, seed):
    results, killed = tmp_path / "results", 0
    for fault in kills(seed, 2 if seed == 0 else KILLS_A_FOLDER):
        code, stdout, stderr = disturbed(RUN, results, fault, tmp_path / "counter")
        assert code in (0, -signal.SIGKILL), f"{fault}: exit code {code}\n{stdout}\n{stderr}"
        killed += code != 0
    assert killed > 0
    traindyn(*RUN, results=results)
    assert_as_undisturbed(smoke.results, results)


def faults():
    """Every kind of disk fault at seeded writes, one of them outside `make test-recovery`."""
    random_ = random.Random("faults")
    for place, what in enumerate(("full", "partial", "failing") * 5):
        marks = () if place == 1 else pytest.mark.long
        yield pytest.param(f"{what} write {random_.randint(1, LAST['write'] // 2)}", marks=marks)


@pytest.mark.parametrize("fault", list(faults()))
def test_disk_faults_end_with_one_line_and_lose_nothing(smoke, tmp_path, fault):
    results = tmp_path / "results"
    code, stdout, stderr = disturbed((*RUN, "seeds=[0]"), results, fault, tmp_path / "counter")
    assert code == 1, f"{code}\n{stdout}\n{stderr}"
    (line,) = stderr.splitlines()
    assert line.startswith(("error: No space left on device: ", "error: Input/output error: "))
    assert str(results) in line
    assert not [path for path in results.glob("cells/*/record.json") if '"failed"' in path.read_text()]
    traindyn(*RUN, results=results)
    assert_as_undisturbed(smoke.results, results)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_tuning_killed_again_and_again(tmp_path, seed):
    """No trial is lost or counted twice, and every value is that of the same setting undisturbed."""
    undisturbed, results = tmp_path / "undisturbed" / "results", tmp_path / "results"
    undisturbed.parent.mkdir()
    traindyn(*TUNE, results=undisturbed)
    for fault in kills(seed, 3):
        disturbed(TUNE, results, fault, tmp_path / "counter")
    traindyn(*TUNE, results=results)
    for path in undisturbed.glob("tuning/**/trials.parquet"):
        expected, got = pd.read_parquet(path), pd.read_parquet(results / path.relative_to(undisturbed))
        kept = ["trial", *(name for name in expected.columns if name.startswith(("params_", "val_")))]
        pd.testing.assert_frame_equal(got[kept], expected[kept], check_exact=True)


@pytest.mark.parametrize("at", [7, *(pytest.param(k, marks=pytest.mark.long) for k in (12, 18, 25, 33, 45))])
def test_publishing_killed_and_done_again(smoke, tmp_path, at):
    """Killed so many tenths of a second after its start: then once more, and every row is there once."""
    results = shutil.copytree(smoke.results, tmp_path / "results", ignore=shutil.ignore_patterns("wandb"))
    disturbed(PUBLISH, results, f"kill second {at}", tmp_path / "counter")
    traindyn(*PUBLISH, results=results)
    for path in results.glob("cells/*/record.json"):
        logs = offline_runs(results, json.loads(path.read_text())["run_id"])
        rows = [row for log in logs for row in read_offline(log).history]
        history = pd.read_parquet(path.parent / "history.parquet")
        assert rows == [{k: v for k, v in row.items() if v == v} for row in history.to_dict("records")]
