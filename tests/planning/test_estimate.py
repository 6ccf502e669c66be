"""Disk that a plan asks for, against sums by hand."""

import pytest
import torch

from harness.config import ConfigError
from harness.method import Snapshot
from harness.planning.compose import Request
from harness.planning.estimate import check_room, estimate
from harness.planning.plan import make_plan
from harness.planning.resolve import resolve
from harness.storage.store import Store
from harness.storage.trajectory import write_snapshot

# lenet5 of usual width for one channel of 16 pixels: 5x5 convolutions, then 16 to 120 to 84 to 10; no buffers
WEIGHTS = 6 * 26 + 16 * 151 + 120 * 17 + 84 * 121 + 10 * 85
SNAPSHOT = 4 * WEIGHTS
LENET = (
    "model=lenet5", "model.lenet5.kwargs.width=1", "dataset=digits", "dataset.digits.resize=16", "device=cpu",
    "epochs=6", "batch_size=100", "seeds=[0,1,2]", "method=[base,p_sgd]", "method.p_sgd.warmup=4",
    "method.p_sgd.dimensions=2", "method.p_sgd.epochs=3",
)  # fmt: skip


def asked(results, *overrides):
    study = resolve(Request((*LENET, f"results_dir={results}", *overrides)), "a test", compares=False)
    return estimate(make_plan(study, Store(results))).disk_bytes / SNAPSHOT


# a base's last state stays, three snapshots at most; a job's own state is written beside the one before, of a base or
# of a branch, which has as much again for the method
STATES, BUNDLE = 3 * 3, 2 * (3 + 3)


@pytest.mark.parametrize(
    ("overrides", "snapshots"),
    [
        (("trajectory.keep=all", "engine.workers=1"), STATES + 3 * 7 + BUNDLE),
        (("trajectory.keep=warmup", "engine.workers=1"), STATES + 3 * 5 + BUNDLE),
        # p_sgd reads w(0) to w(4), which go with the last cell of each base: one base at a time has them
        (("trajectory.keep=none", "engine.workers=1"), STATES + 5 + BUNDLE),
        (("trajectory.keep=none", "engine.workers=2"), STATES + 2 * (5 + BUNDLE)),
        (("trajectory.keep=none", "engine=slurm"), STATES + 3 * (5 + BUNDLE)),
        (("trajectory.keep=none", "engine=ray"), STATES + 3 * (5 + BUNDLE)),
        # the final weights of six cells
        (("trajectory.keep=none", "engine.workers=1", "save=final"), STATES + 5 + BUNDLE + 6),
    ],
)
def test_disk_is_what_stays_and_what_jobs_have_at_once(tmp_path, overrides, snapshots):
    assert asked(tmp_path / "results", *overrides) == snapshots


def test_a_disk_that_is_too_small_is_said_with_what_writes_less(tmp_path, monkeypatch):
    study = resolve(Request((*LENET, f"results_dir={tmp_path}")), "a test", compares=False)
    plan = make_plan(study, Store(tmp_path))
    cost = estimate(plan)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": cost.disk_bytes - 1}))
    with pytest.raises(ConfigError, match=r"^results_dir must have .* MB free .*keep=none keeps fewer snapshots$"):
        check_room(plan, cost)


def test_a_half_trained_base_needs_room_for_what_is_left(tmp_path):
    """A disk that a run has filled lets it go on: snapshots and states that are there are not asked for again."""
    overrides = ("trajectory.keep=all", "engine.workers=1")
    study = resolve(Request((*LENET, *overrides, f"results_dir={tmp_path}")), "a test", compares=False)
    plan = make_plan(study, Store(tmp_path))
    base = plan.bases[0]
    before, folder = estimate(plan).disk_bytes, plan.store.base_folder(base.key)
    for t in (0, 1, 2):
        write_snapshot(folder / "trajectory", Snapshot(t, t, torch.zeros(1), {}))
    assert estimate(plan).disk_bytes == before - 3 * 4 * (base.N + base.buffer_floats)
