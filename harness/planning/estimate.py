"""What the rest of a plan will take: epochs, disk at its fullest, and memory."""

from __future__ import annotations

import heapq
import math
import shutil
import tempfile
from dataclasses import dataclass
from typing import NamedTuple

from harness.config import ConfigError
from harness.planning.plan import BasePlan, CellPlan, Plan, branch_lacks, needs_shadow
from harness.planning.slots import most_jobs
from harness.storage.inside import is_file
from harness.storage.paths import restart_path, stored_ts

STATE = 3
"""snapshots that the state of a training run takes: weights, and two moments at most"""


@dataclass(frozen=True)
class Estimate:
    """What is left to do will take."""

    base_epochs: int
    branch_epochs: int
    shadow_epochs: int
    disk_bytes: int
    """free space that the fullest moment asks for"""
    memory_bytes: int
    """of the largest job, beside its images and activations"""
    largest: str = ""
    """the methods that the largest job holds"""
    rederived_epochs: int = 0
    """of bases run again for restart states and snapshots that branchers need and that are gone"""


class EpochsLeft(NamedTuple):
    """Epochs that open cells of a base ask for."""

    base: int
    branch: int
    shadow: int
    rederived: int


def epochs_to_train(plan: Plan, base: BasePlan, left: list[CellPlan]) -> EpochsLeft:
    """What a base's open cells `left` take in epochs of training."""
    if not left or base.is_adopted:
        return EpochsLeft(0, 0, 0, 0)
    epochs, folder = base.config.epochs, plan.store.base_folder(base.key)
    branch = sum(cell.branch.epochs for cell in left if cell.branch is not None)
    if plan.base_status(base) not in ("done", "diverged") or plan.retrains(base):
        return EpochsLeft(epochs, branch, 0, 0)
    shadow = epochs if shadowed(plan, base, left) else 0
    rederived = sum(cell.branch.prefix for cell in left if cell.branch is not None and branch_lacks(cell, folder))
    return EpochsLeft(0, branch, shadow, rederived)


def shadowed(plan: Plan, base: BasePlan, left: list[CellPlan]) -> list[CellPlan]:
    """Those of a base's open cells `left` for which it is run again in a shadow run."""
    if base.is_adopted or plan.base_status(base) != "done" or plan.retrains(base):
        return []
    folder = plan.store.base_folder(base.key) / "trajectory"
    return [cell for cell in left if cell.kind != "brancher" and needs_shadow(base, [cell], folder)]


def estimate(plan: Plan) -> Estimate:
    """Epochs to train, disk at its fullest, and memory of the largest job."""
    total = EpochsLeft(0, 0, 0, 0)
    stays = memory = 0
    largest = ""
    passing: list[int] = []
    bundles = [0]
    for base in plan.bases:
        left = [c for c in base.cells if plan.statuses[c.key] == "left"]
        if not left:
            continue
        epochs = epochs_to_train(plan, base, left)
        total = EpochsLeft(*(a + b for a, b in zip(total, epochs, strict=True)))
        disk = _disk(plan, base, left, trains=epochs.base > 0)
        stays += disk.stays
        passing.append(disk.passing)
        held = {"all that watch": sum(c.memory_floats for c in left if c.kind != "brancher")}
        held |= {c.method.name: c.memory_floats for c in left if c.kind == "brancher"}
        most = max(held, key=held.__getitem__)
        bundles.append(_bundle(base, left))
        if 6 * _snapshot(base) + 4 * held[most] > memory:
            memory = 6 * _snapshot(base) + 4 * held[most]
            largest = f"{most} on {base.config.model.name}, {held[most] / base.N:.1f} floats per weight"
    at_once = most_jobs(plan.experiment.settings.engine, plan.bases[0].config.device) or len(passing)
    under_way = sum(heapq.nlargest(at_once, passing)) + min(at_once, len(passing)) * max(bundles)
    return Estimate(
        base_epochs=total.base,
        branch_epochs=total.branch,
        shadow_epochs=total.shadow,
        disk_bytes=stays + under_way,
        memory_bytes=memory,
        largest=largest,
        rederived_epochs=total.rederived,
    )


class Disk(NamedTuple):
    """Bytes that a base and its cells write."""

    stays: int
    passing: int
    """snapshots that go when the last cell has ended"""


def _snapshot(base: BasePlan) -> int:
    """Bytes of one."""
    return 4 * (base.N + base.buffer_floats)


def _bundle(base: BasePlan, left: list[CellPlan]) -> int:
    """Bytes of the largest state that a job goes on from, twice, as it is written beside the one before.

    Beside its training, that of a base has what all observers hold, and that of a branch as much again as training:
    what a brancher derives from the trajectory it derives anew.
    """
    observers = 4 * sum(c.memory_floats for c in left if c.kind == "observer")
    branch = STATE * _snapshot(base) if any(c.kind == "brancher" for c in left) else 0
    return 2 * (STATE * _snapshot(base) + max(observers, branch))


def _disk(plan: Plan, base: BasePlan, left: list[CellPlan], trains: bool) -> Disk:
    settings = plan.experiment.settings
    stays = len(left) if settings.save == "final" else 0
    passing = 0
    if trains:
        kept = base.kept(settings.trajectory.keep)
        starts = {c.branch.start for c in left if c.branch is not None and c.branch.start > 0}
        folder = plan.store.base_folder(base.key)
        there = set() if plan.retrains(base) else set(stored_ts(folder / "trajectory"))
        states = [t for t in starts | {base.config.epochs} if not is_file(restart_path(folder, t))]
        stays += len(kept - there) + STATE * len(states)
        passing = len(base.snapshots(left, settings.trajectory.keep) - kept - there)
    return Disk(stays * _snapshot(base), passing * _snapshot(base))


def check_room(plan: Plan, cost: Estimate) -> None:
    """ConfigError where the results folder cannot be written or its disk is too small for the plan."""
    root = plan.store.root
    free = shutil.disk_usage(next(folder for folder in (root, *root.parents) if folder.exists())).free
    if cost.disk_bytes > free:
        keep = plan.experiment.settings.trajectory.keep
        less = "; trajectory.keep=none keeps fewer snapshots" if keep != "none" else ""
        raise ConfigError(
            f"results_dir must have {math.ceil(cost.disk_bytes / 1e6):,} MB free for what is left of this plan, got "
            f"{free // 1_000_000:,} MB in {root}{less}"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()
    except OSError as error:
        raise ConfigError(f"results_dir must be a folder that can be written, got {root} ({error.strerror})") from error
