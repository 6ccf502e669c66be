"""Jobs of a search, in processes of their own: a base made ready, or candidates valued on it.

They are the jobs of `run` with another end: what a candidate came to is told and recorded nowhere, nothing is tracked
on the way, and their evaluator is made without a handle to the test split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from harness.causes import Cause
from harness.planning.plan import CellPlan, branch_lacks
from harness.running.audience import Row, RunningCell
from harness.running.events import TrialValued
from harness.running.jobs.adopted import AdoptedWorker
from harness.running.jobs.branch import BranchWorker
from harness.running.jobs.job import Job
from harness.running.jobs.replay import ReplayWorker
from harness.running.jobs.shadow import ShadowWorker
from harness.running.jobs.train import TrainWorker
from harness.running.jobs.worker import Worker
from harness.training.evaluate import Evaluator
from harness.training.own_evaluation import OwnEvaluator


@dataclass(frozen=True)
class TrialJob(Job):
    """A piece of a search; its `cells` are candidates, which leave no record."""

    waits: ClassVar[bool] = True

    folder: str = ""
    """where it keeps what it needs to go on, and that it is the only one to work there"""
    until: int = 0
    """of a branch: the epoch to train to and be valued at"""

    @property
    def label(self) -> str:
        if self.kind == "train":
            return self.base.config.label
        return f"{self.base.config.label}-{self.cells[0].method.name} ({len(self.cells)} trials)"


class _Validating(Worker):
    """Validation data alone."""

    job: TrialJob

    @cached_property
    def evaluator(self) -> Evaluator:
        return Evaluator(self.base, self.job.evaluate, self.images, self.device, with_test=False)

    def _unfinished(self) -> Job:
        return self.job

    def open_runs(self, cells: list[RunningCell]) -> None:
        """Trials are tracked when they end, by who asked for them."""

    def log_rows(self, cells: list[RunningCell]) -> None:
        """See `open_runs`."""

    def begin_cell_log(self, cell: CellPlan) -> None:
        """A candidate has no folder of its own, and no log."""


class SearchBaseWorker(_Validating, TrainWorker):
    """Trains a base that nobody watches, or repeats one for snapshots that are gone."""

    @property
    def bundle_path(self) -> Path:
        return super().bundle_path if self.expected is None else Path(self.job.folder) / "base.safetensors"

    def work(self) -> None:
        known = self.store.base(self.job.base.key)
        if known is not None and known["status"] == "done":
            self.expected, self.expected_rows = known, self.store.base_history(self.job.base.key)
        if known is None or known["status"] != "diverged":
            self.follow()


class _Valuing(_Validating):
    """Tells what candidates come to."""

    @property
    def lock_folder(self) -> Path:
        return Path(self.job.folder)

    def end_cell(self, entry: RunningCell, cost: dict[str, Any], weights: dict[str, torch.Tensor] | None) -> None:
        row: Row = entry.rows[-1] if entry.rows else {}
        status, reason = entry.status, entry.reason
        if status == "done" and not any(name.startswith("val_") for name in row):
            status, reason = "failed", "it was never evaluated: snapshots of its base are gone"
        self._tell(entry.cell, status, reason, entry.traceback, row)

    def fail(self, cells: tuple[CellPlan, ...], cause: Cause) -> None:
        for cell in cells:
            self._tell(cell, "failed", cause.reason, cause.traceback, {})

    def _tell(self, cell: CellPlan, status: str, reason: str | None, trace: str | None, row: Row) -> None:
        self._ended.add(cell.key)
        result = {
            "status": status,
            "reason": reason,
            "traceback": trace,
            "epoch": row.get("epoch"),
            "val_accuracy": row.get("val_accuracy"),
            "val_loss": row.get("val_loss"),
            "seconds": self._seconds(cell),
        }
        self.tell(TrialValued(cell.key, result))

    def _seconds(self, cell: CellPlan) -> float:
        """A candidate's own, and its share of those that serve all of the job's."""
        keys = {one.key for one in self.job.cells}
        own = shared = 0.0
        for phase, seconds in self.clock.seconds.items():
            key = phase.partition("/")[2]
            if key == cell.key:
                own += seconds
            elif key not in keys:
                shared += seconds
        return own + shared / len(self.job.cells)


class TrialReplayWorker(_Valuing, ReplayWorker):
    """Observers of epochs and reconstructions, in one reading of the snapshots."""


class TrialAdoptedWorker(_Valuing, AdoptedWorker):
    """As `TrialReplayWorker`, of an adopted run."""

    @cached_property
    def evaluator(self) -> Evaluator | OwnEvaluator:  # type: ignore[override]
        evaluate = replace(self.job.evaluate, test_command=None)
        if not evaluate.is_own:
            return Evaluator(self.base, evaluate, self.images, self.device, with_test=False)
        return self.own_evaluator(evaluate)


class TrialShadowWorker(_Valuing, ShadowWorker):
    """Observers of optimizer steps, all in one repetition of the base."""

    @property
    def bundle_path(self) -> Path:
        return self.lock_folder / "shadow.safetensors"


class TrialBranchWorker(_Valuing, BranchWorker):
    """One brancher, up to an epoch at which it is looked at; it goes on from there in another job."""

    @property
    def until(self) -> int:
        return self.job.until

    def _prefix_rows(self) -> list[Row]:
        """None: a trial is valued at the epoch it is trained to, and nowhere else."""
        return []

    def _missing(self) -> list[int]:
        return branch_lacks(self.cell, self.folder)

    def _clear(self) -> None:
        """Its bundle stays, for the next look."""


_ALL: tuple[type[Worker], ...] = (SearchBaseWorker, TrialReplayWorker, TrialShadowWorker, TrialBranchWorker)
TRIAL_WORKERS = {worker.kind: worker for worker in _ALL} | {"adopted": TrialAdoptedWorker}
"""what runs the jobs of a search, by kind"""
