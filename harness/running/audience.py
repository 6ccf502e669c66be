"""Feeding a base's snapshots to the observers that watch it, live or replayed, and evaluating what they propose.

A method that raises is dropped with its traceback; the base and the other methods go on. Where several methods
propose the base's own weights under one BatchNorm policy, these are evaluated once.
"""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.config import BaseConfig
from harness.method import Method, Observer, Proposal, Reconstruction, Run, Snapshot, State
from harness.planning.plan import CellPlan
from harness.randomness import generator
from harness.storage.files import CorruptFile, is_disk_trouble
from harness.storage.tensors import pack
from harness.storage.trajectory import StoredTrajectory
from harness.training.clock import Clock
from harness.training.evaluate import Evaluator
from harness.training.out_of_memory import bounded_by

Row = dict[str, Any]
RESERVED_COLUMNS = frozenset(
    {
        "cell_key",
        "epoch",
        "train_loss",
        "train_accuracy",
        "lr",
        "val_loss",
        "val_accuracy",
        "test_loss",
        "test_accuracy",
        "train_seconds",
        "method_seconds",
        "eval_seconds",
        "gradients_full",
        "gradients_subspace",
        "forward_passes",
    }
)


@dataclass
class Watched:
    """One cell while its job runs: its method, the rows so far, and how it ended."""

    cell: CellPlan
    method: Method
    rows: list[Row] = field(default_factory=list)
    status: str = "running"
    reason: str | None = None
    traceback: str | None = None

    @property
    def key(self) -> str:
        return self.cell.key

    def fail(self, error: Exception) -> None:
        self.status = "failed"
        self.reason = " ".join(f"{type(error).__name__}: {error}".split())
        self.traceback = "".join(traceback.format_exception(error))

    def add(self, row: Row, scalars: dict[str, float]) -> None:
        """Append an epoch's row; a validation loss that is not finite ends the cell as diverged."""
        taken = RESERVED_COLUMNS & scalars.keys()
        if taken:
            raise ValueError(f"scalars must not be named {', '.join(sorted(taken))}")
        self.rows.append({**row, **{name: float(value) for name, value in scalars.items()}})
        if not math.isfinite(row.get("val_loss", 0.0)):
            self.status = "diverged"
            self.reason = f"validation loss not finite at epoch {row['epoch']}"


class Audience:
    """The observers of one base, each with its own view of the trajectory."""

    def __init__(
        self,
        base: BaseConfig,
        watched: Sequence[Watched],
        evaluator: Evaluator,
        clock: Clock,
        trajectory: StoredTrajectory,
        steps_per_epoch: int,
        save_final: bool,
    ) -> None:
        self.base = base
        self.evaluator = evaluator
        self.clock = clock
        self.trajectory = trajectory
        self.steps_per_epoch = steps_per_epoch
        self.save_final = save_final
        self.epochs = evaluator.config.epochs(base.epochs)
        self.watched = list(watched)
        self.weights: dict[str, dict[str, torch.Tensor]] = {}
        """state dicts of final models, by cell key, where `save=final`"""

    def _run(self, cell: CellPlan) -> Run:
        first, last = (0, -1) if cell.needs is None else cell.needs
        return Run(
            layout=self.evaluator.flat.layout,
            trajectory=self.trajectory.window(first, last),
            epochs=self.base.epochs,
            steps_per_epoch=self.steps_per_epoch,
            device=self.evaluator.device,
            rng=lambda purpose: generator(self.base.seed, f"method/{purpose}"),
        )

    def observers(self) -> list[tuple[Watched, Observer]]:
        return [(w, w.method) for w in self.watched if w.status == "running" and isinstance(w.method, Observer)]

    @contextlib.contextmanager
    def _guarded(self, watched: Watched) -> Iterator[None]:
        """A method's error ends its own cell; a corrupt file is the job's to deal with."""
        try:
            with bounded_by("batch_size", self.base.batch_size):
                yield
        except CorruptFile:
            raise
        except Exception as error:
            if is_disk_trouble(error):
                raise
            watched.fail(error)

    def begin(self) -> None:
        for watched, method in self.observers():
            with self._guarded(watched), self.clock.phase(f"method/{watched.key}"):
                method.begin(self._run(watched.cell))

    @property
    def every_step(self) -> bool:
        """Whether anyone watches optimizer steps."""
        return any(watched.cell.cadence != "epoch" for watched, _ in self.observers())

    def step(self, snapshot: Snapshot) -> None:
        """Feed the state after an optimizer step to those whose cadence it meets."""
        for watched, method in self.observers():
            if watched.cell.cadence == "epoch" or snapshot.step % int(watched.cell.cadence or 1) != 0:
                continue
            with self._guarded(watched), self.clock.phase(f"method/{watched.key}", in_step=True):
                method.observe(snapshot)

    def start(self, snapshot: Snapshot) -> None:
        """Feed w(0), which every observer sees first."""
        for watched, method in self.observers():
            self._observe(watched, method, snapshot)

    def _observe(self, watched: Watched, method: Observer, snapshot: Snapshot) -> None:
        with self._guarded(watched), self.clock.phase(f"method/{watched.key}"):
            method.observe(snapshot)

    def epoch(self, snapshot: Snapshot, train: Row) -> None:
        """Feed the state after an epoch, add everyone's row, evaluated where due. `train` is the base's row."""
        for watched, method in self.observers():
            if watched.cell.cadence == "epoch":
                self._observe(watched, method, snapshot)
        own: dict[str, Row] = {}
        for watched, method in self.observers():
            with self._guarded(watched):
                metrics = self._proposed(watched, method, snapshot, own) if snapshot.t in self.epochs else {}
                with self.clock.phase(f"method/{watched.key}"):
                    scalars = method.scalars()
                watched.add({**train, **metrics, **self._seconds(watched)}, scalars)

    def _proposed(self, watched: Watched, method: Observer, snapshot: Snapshot, own: dict[str, Row]) -> Row:
        """Metrics of what a method proposes; `own` remembers those of the base's weights, by BatchNorm policy."""
        with self.clock.phase(f"method/{watched.key}"):
            proposal = method.propose()
        if proposal is not None:
            return self._evaluate(watched, snapshot, proposal)
        policy = watched.cell.method.batchnorm
        if policy not in own:
            own[policy] = self._evaluate(watched, snapshot, None)
        return own[policy]

    def _seconds(self, watched: Watched) -> Row:
        return {
            "method_seconds": self.clock.get(f"method/{watched.key}"),
            "eval_seconds": self.clock.get(f"eval/{watched.key}"),
        }

    def _evaluate(self, watched: Watched, snapshot: Snapshot, proposal: Proposal | None) -> Row:
        splits = self.evaluator.splits(snapshot.t == self.base.epochs)
        with self.clock.phase(f"eval/{watched.key}"):
            return self.evaluator.evaluate(snapshot, proposal, watched.cell.method.batchnorm, splits)

    def reconstruct(self, train_rows: list[Row]) -> None:
        """Fit the reconstructions on the finished run and evaluate them at the asked epochs."""
        ts = self.epochs if self.evaluator.config.reconstructions == "every" else (self.base.epochs,)
        by_epoch = {row["epoch"]: row for row in train_rows}
        for watched in self.watched:
            method = watched.method
            if watched.status != "running" or not isinstance(method, Reconstruction):
                continue
            with self._guarded(watched):
                with self.clock.phase(f"method/{watched.key}"):
                    method.fit(self._run(watched.cell))
                for t in ts:
                    with self.clock.phase(f"method/{watched.key}"):
                        proposal = method.reconstruct(t)
                        scalars = method.scalars()
                    snapshot = self.trajectory[self.trajectory.ts.index(t)]
                    metrics = self._evaluate(watched, snapshot, proposal)
                    watched.add({**by_epoch[t], **metrics, **self._seconds(watched)}, scalars)
                    if t == self.base.epochs:
                        self._keep(watched, snapshot, proposal)

    def finish(self, snapshot: Snapshot) -> None:
        """Keep the observers' final weights where asked, and end every cell that is still running."""
        for watched, method in self.observers():
            with self._guarded(watched):
                self._keep(watched, snapshot, method.propose())
        for watched in self.watched:
            if watched.status == "running":
                watched.status = "done"

    def _keep(self, watched: Watched, snapshot: Snapshot, proposal: Proposal | None) -> None:
        if not self.save_final:
            return
        model = self.evaluator.prepare(snapshot, proposal, watched.cell.method.batchnorm)
        self.weights[watched.key] = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def diverge(self, reason: str) -> None:
        """The base diverged, and with it all that watch it."""
        for watched in self.watched:
            if watched.status == "running":
                watched.status, watched.reason = "diverged", reason

    def state_dict(self) -> State:
        return {
            w.key: {
                "method": self._method_state(w),
                "status": w.status,
                "reason": w.reason,
                "traceback": w.traceback,
                "rows": w.rows,
            }
            for w in self.watched
        }

    def _method_state(self, watched: Watched) -> State | None:
        """An observer's state, tried: one that cannot be stored is its own cell's failure."""
        if watched.status == "running" and isinstance(watched.method, Observer):
            with self._guarded(watched):
                state = watched.method.state_dict()
                pack(state)
                return state
        return None

    def load_state_dict(self, state: State) -> None:
        """Take up the cells that the state knows; the others missed the beginning and are dropped."""
        self.watched = [w for w in self.watched if w.key in state]
        for watched in self.watched:
            saved = state[watched.key]
            if watched.status == "running":
                watched.status, watched.reason, watched.traceback = saved["status"], saved["reason"], saved["traceback"]
            watched.rows = saved["rows"]
            if isinstance(watched.method, Observer) and saved["method"] is not None:
                with self._guarded(watched):
                    watched.method.load_state_dict(saved["method"])
