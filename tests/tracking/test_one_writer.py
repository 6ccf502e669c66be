"""No two processes write one run's rows: a successor waits for its predecessor, and for what writes on its behalf.

The predecessor is held at a chosen point: its wandb-core is stopped by a signal before it is given any row, and its
own process is killed, so that rows are under way that no file holds yet.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from offline import offline_runs

from harness.config import TrackerConfig
from harness.storage.leases import Owner
from harness.tracking import open_tracker, run_locks
from harness.tracking.tracker import RunEnd, RunInfo
from harness.tracking.wandb import services
from harness.tracking.wandb.transaction_log import read_offline

RUN = RunInfo("0123456789ab-store", "name", "base0", "ema")
OFFLINE = TrackerConfig("wandb", mode="offline")
CSV = TrackerConfig("csv")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", os.devnull)


def rows(first, last):
    return [{"epoch": t, "val_loss": 1 / t} for t in range(first, last + 1)]


PREDECESSOR = """
import json, os, signal, sys
from pathlib import Path
from harness.config import TrackerConfig
from harness.tracking import open_tracker
from harness.tracking.tracker import RunInfo
root = Path(sys.argv[1])
tracker = open_tracker(TrackerConfig("wandb", mode="offline"), root, print)
tracker.start(RunInfo("0123456789ab-store", "name", "base0", "ema"))
(noted,) = (root / "wandb" / "services").glob("*.json")
os.kill(json.loads(noted.read_text())["service"]["pid"], signal.SIGSTOP)
tracker.log("0123456789ab-store", [{"epoch": t, "val_loss": 1 / t} for t in range(1, 7)])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def orphan(tmp_path):
    """The stopped wandb-core of a killed process, which was given six rows and has written none."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run([sys.executable, "-c", PREDECESSOR, str(tmp_path)], env=environment, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    (noted,) = (tmp_path / "wandb" / "services").glob("*.json")
    owner = Owner(**json.loads(noted.read_text())["service"])
    assert not owner.is_gone
    yield owner
    if not owner.is_gone:
        os.kill(owner.pid, signal.SIGKILL)


def go_on(folder):
    """A successor gives all rows; the rows of all fragments, one after the other."""
    said = []
    tracker = open_tracker(OFFLINE, folder, said.append)
    tracker.record(RUN, rows(1, 8), RunEnd())
    tracker.close()
    assert said == []
    return [row for path in offline_runs(folder, RUN.run_id) for row in read_offline(path).history]


def test_a_successor_waits_for_the_wandb_core_of_a_killed_process(orphan, tmp_path, monkeypatch):
    """It may go on only once the successor waits for it, and then writes what it was given."""
    waited = []

    def let_go_on():
        if not waited:
            os.kill(orphan.pid, signal.SIGCONT)
        waited.append(orphan.is_gone)

    monkeypatch.setattr(services, "pause", let_go_on)
    assert go_on(tmp_path) == rows(1, 8)
    assert waited
    assert orphan.is_gone


def test_a_wandb_core_that_does_not_end_is_ended(orphan, tmp_path, monkeypatch):
    """What it had not written is given anew, and by nobody else."""
    monkeypatch.setattr(services, "PATIENCE", -1.0)
    assert go_on(tmp_path) == rows(1, 8)
    assert orphan.is_gone
    assert [len(read_offline(path).history) for path in offline_runs(tmp_path, RUN.run_id)] == [0, 8]


def test_a_wandb_core_whose_command_lives_is_left_alone(tmp_path):
    """Other runs of a running command are not disturbed; its note goes when it closes."""
    first, second = (open_tracker(OFFLINE, tmp_path, print) for _ in range(2))
    first.start(RUN)
    second.record(RunInfo("another-store", "name", "base0", "ema"), rows(1, 2), RunEnd())
    first.log(RUN.run_id, rows(1, 3))
    first.end(RUN.run_id, RunEnd())
    (path,) = offline_runs(tmp_path, RUN.run_id)
    assert read_offline(path).history == rows(1, 3)
    first.close()
    second.close()
    assert not list((tmp_path / "wandb" / "services").glob("*"))


@pytest.mark.parametrize("config", [OFFLINE, CSV], ids=["wandb", "csv"])
def test_a_run_that_another_tracker_has_open_is_not_written(config, tmp_path, monkeypatch):
    monkeypatch.setattr(run_locks, "WAIT_SECONDS", 0.0)
    said = []
    first, second = (open_tracker(config, tmp_path, said.append) for _ in range(2))
    first.start(RUN)
    second.record(RUN, rows(1, 3), RunEnd())
    (line,) = said
    assert "is not tracked" in line or "does not track" in line
    first.record(RUN, rows(1, 2), RunEnd())
    second.record(RUN, rows(1, 3), RunEnd())
    assert second.states([RUN.run_id])[RUN.run_id].epoch == 3
    first.close()
    second.close()
