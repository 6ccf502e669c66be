"""Feeding a base's snapshots to the observers that watch it, live or replayed, and evaluating what they propose.

A method that raises is dropped with its traceback; the base and the other methods go on. Where several methods
propose the base's own weights under one BatchNorm policy, these are evaluated once.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from harness.causes import Cause, Interrupted
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
Own = tuple[Row, torch.Tensor | None, torch.Tensor | None]
"""metrics of a base's own weights, which test images they get right, and how right its clients are"""
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
        "val_ece",
        "val_brier",
        "test_ece",
        "test_brier",
        "train_seconds",
        "method_seconds",
        "eval_seconds",
        "gradients_full",
        "gradients_subspace",
        "forward_passes",
        "upload_bytes",
        "download_bytes",
        "clients",
        "transmitted_fraction",
        "update_norm",
        "client_drift",
        "longest_client_seconds",
        "client_accuracy",
        "client_accuracy_std",
        "client_accuracy_worst",
    }
)


@dataclass
class RunningCell:
    """One cell while its job runs: its method, the rows so far, and how it ended."""

    cell: CellPlan
    method: Method | None
    """None where it could not be made, and failed"""
    rows: list[Row] = field(default_factory=list)
    status: str = "running"
    reason: str | None = None
    where: str | None = None
    """the line of a person's own code that failed"""
    traceback: str | None = None
    test_correct: torch.Tensor | None = None
    """which test images it got right at last, (n,) bool"""
    client_accuracy_K: torch.Tensor | None = None
    """validation accuracy of every client of a federation at last, in percent"""
    probed: int = 0
    """images that passed through the model for its probe losses"""

    @property
    def key(self) -> str:
        return self.cell.key

    @property
    def cause(self) -> Cause | None:
        """Why it ended otherwise than done."""
        return None if self.reason is None else Cause(self.reason, self.where, self.traceback)

    def fail(self, error: BaseException) -> None:
        cause = Cause.of(error)
        self.status, self.reason, self.where, self.traceback = "failed", cause.reason, cause.where, cause.traceback

    def add(self, row: Row, scalars: dict[str, float]) -> None:
        """Append an epoch's row; a validation loss that is not finite ends the cell as diverged."""
        taken = RESERVED_COLUMNS & scalars.keys()
        if taken:
            raise ValueError(f"scalars must not be named {', '.join(sorted(taken))}")
        self.rows.append({**row, **{name: float(value) for name, value in scalars.items()}})
        if not math.isfinite(row.get("val_loss", 0.0)):
            self.status = "diverged"
            self.reason = f"validation loss not finite at epoch {row['epoch']}"


class Shown:
    """A state as observers see it: a copy, so that what one does to it reaches neither the base nor the others."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._copy()

    def _copy(self) -> None:
        buffers = {name: buffer.clone() for name, buffer in self._snapshot.buffers.items()}
        self.snapshot = replace(self._snapshot, theta_N=self._snapshot.theta_N.clone(), buffers=buffers)
        self._versions = self._read_versions()

    def _read_versions(self) -> list[int]:
        """How often torch has written into each tensor."""
        return [tensor._version for tensor in (self.snapshot.theta_N, *self.snapshot.buffers.values())]

    def check(self) -> None:
        """ValueError where the copy was written into; there is another one then."""
        if self._read_versions() != self._versions:
            self._copy()
            raise ValueError("observe must leave the snapshot that it is given as it is: clone what is to be changed")


def checked_proposal(method: Method, call: str, given: object, N: int) -> Proposal | None:
    """What a method's call gave, a Proposal of N weights or None; ValueError where it is anything else."""
    where = f"{call} of {type(method).__name__}"
    if given is not None and not isinstance(given, Proposal):
        raise ValueError(f"{where} must give a Proposal or None, got {type(given).__name__}")
    if given is not None and getattr(given.theta_N, "shape", None) != (N,):
        weights = given.theta_N
        got = tuple(weights.shape) if isinstance(weights, torch.Tensor) else type(weights).__name__
        raise ValueError(f"{where} must give {N} weights in one dimension, got {got}")
    return given


class Audience:
    """The observers of one base, each with its own view of the trajectory."""

    def __init__(
        self,
        base: BaseConfig,
        cells: Sequence[RunningCell],
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
        self.cells = list(cells)
        self.weights: dict[str, dict[str, torch.Tensor]] = {}
        """state dicts of final models, by cell key, where `save=final`"""

    def _run(self, entry: RunningCell) -> Run:
        first, last = (0, -1) if entry.cell.needs is None else entry.cell.needs

        def probe_loss(theta_N: torch.Tensor) -> float:
            entry.probed += len(self.evaluator.probe)
            return self.evaluator.probe_loss(theta_N)

        probes = {"probe_loss": probe_loss} if entry.method is not None and entry.method.needs_probe else {}
        return Run(
            layout=self.evaluator.flat.layout,
            trajectory=self.trajectory.window(first, last),
            epochs=self.base.epochs,
            steps_per_epoch=self.steps_per_epoch,
            device=self.evaluator.device,
            rng=lambda purpose: generator(self.base.seed, f"method/{purpose}"),
            **probes,
        )

    def observers(self) -> list[tuple[RunningCell, Observer]]:
        return [(w, w.method) for w in self.cells if w.status == "running" and isinstance(w.method, Observer)]

    @contextlib.contextmanager
    def _guarded(self, entry: RunningCell) -> Iterator[None]:
        """A method's error, or its leaving, ends its own cell; a corrupt file is the job's to deal with."""
        try:
            with bounded_by("batch_size", self.base.batch_size):
                yield
        except (CorruptFile, Interrupted):
            raise
        except (Exception, SystemExit) as error:
            if is_disk_trouble(error):
                raise
            entry.fail(error)

    def begin(self) -> None:
        for entry, method in self.observers():
            with self._guarded(entry), self.clock.phase(f"method/{entry.key}"):
                method.begin(self._run(entry))

    @property
    def every_step(self) -> bool:
        """Whether anyone watches optimizer steps."""
        return any(entry.cell.cadence != "epoch" for entry, _ in self.observers())

    def step(self, snapshot: Snapshot) -> None:
        """Feed the state after an optimizer step to those whose cadence it meets."""
        watching = [
            (entry, method)
            for entry, method in self.observers()
            if entry.cell.cadence != "epoch" and snapshot.step % int(entry.cell.cadence or 1) == 0
        ]
        self._show(watching, snapshot, in_step=True)

    def start(self, snapshot: Snapshot) -> None:
        """Feed w(0), which every observer sees first."""
        self._show(self.observers(), snapshot)

    def _show(
        self, watching: Sequence[tuple[RunningCell, Observer]], snapshot: Snapshot, in_step: bool = False
    ) -> None:
        shown = Shown(snapshot) if watching else None
        for entry, method in watching:
            assert shown is not None
            with self._guarded(entry):
                with self.clock.phase(f"method/{entry.key}", in_step=in_step):
                    method.observe(shown.snapshot)
                shown.check()

    def epoch(self, snapshot: Snapshot, train: Row) -> None:
        """Feed the state after an epoch, add everyone's row, evaluated where due. `train` is the base's row."""
        self._show([one for one in self.observers() if one[0].cell.cadence == "epoch"], snapshot)
        self._ready(snapshot)
        own: dict[str, Own] = {}
        for entry, method in self.observers():
            with self._guarded(entry):
                metrics = self._proposed(entry, method, snapshot, own) if snapshot.t in self.epochs else {}
                with self.clock.phase(f"method/{entry.key}"):
                    scalars = method.scalars()
                entry.add({**train, **metrics, **self._spent(entry, train)}, scalars)

    def _checked(self, method: Method, call: str, given: object) -> Proposal | None:
        return checked_proposal(method, call, given, self.evaluator.flat.layout.N)

    def _ready(self, snapshot: Snapshot) -> None:
        """All observers have seen the snapshot, and what they propose is asked for next."""

    def _proposed(self, entry: RunningCell, method: Observer, snapshot: Snapshot, own: dict[str, Own]) -> Row:
        """Metrics of what a method proposes; `own` remembers those of the base's weights, by BatchNorm policy."""
        with self.clock.phase(f"method/{entry.key}"):
            proposal = self._checked(method, "propose", method.propose())
        if proposal is not None:
            return self._evaluate(entry, snapshot, proposal)
        policy = entry.cell.method.batchnorm
        if policy not in own:
            own[policy] = self._evaluate(entry, snapshot, None), entry.test_correct, entry.client_accuracy_K
        metrics, correct, clients_K = own[policy]
        entry.test_correct = None if correct is None else correct.clone()  # a bundle holds no tensor twice
        entry.client_accuracy_K = None if clients_K is None else clients_K.clone()
        return metrics

    def _spent(self, entry: RunningCell, train: Row) -> Row:
        """What a method's own work came to, in a row beside what its base's took."""
        passes = {"forward_passes": train["forward_passes"] + entry.probed} if "forward_passes" in train else {}
        return {
            **passes,  # an earlier version counted none
            "method_seconds": self.clock.get(f"method/{entry.key}"),
            "eval_seconds": self.clock.get(f"eval/{entry.key}"),
        }

    def _evaluate(self, entry: RunningCell, snapshot: Snapshot, proposal: Proposal | None) -> Row:
        splits = self.evaluator.splits(snapshot.t == self.base.epochs)
        with self.clock.phase(f"eval/{entry.key}"):
            metrics = self.evaluator.evaluate(snapshot, proposal, entry.cell.method.batchnorm, splits)
        if "test" in splits:
            entry.test_correct = self.evaluator.test_correct
        entry.client_accuracy_K = self.evaluator.client_accuracy_K
        return metrics

    def reconstruct(self, train_rows: list[Row]) -> None:
        """Fit the reconstructions on the finished run and evaluate them at the asked epochs."""
        ts = self.epochs if self.evaluator.config.reconstructions == "every" else (self.base.epochs,)
        by_epoch = {row["epoch"]: row for row in train_rows}
        for entry in self.cells:
            method = entry.method
            if entry.status != "running" or not isinstance(method, Reconstruction):
                continue
            with self._guarded(entry):
                with self.clock.phase(f"method/{entry.key}"):
                    method.fit(self._run(entry))
                for t in ts:
                    with self.clock.phase(f"method/{entry.key}"):
                        proposal = self._checked(method, "reconstruct", method.reconstruct(t))
                        scalars = method.scalars()
                    snapshot = self.trajectory[self.trajectory.ts.index(t)]
                    metrics = self._evaluate(entry, snapshot, proposal)
                    entry.add({**by_epoch[t], **metrics, **self._spent(entry, by_epoch[t])}, scalars)
                    if t == self.base.epochs:
                        self._keep(entry, snapshot, proposal)

    def finish(self, snapshot: Snapshot) -> None:
        """Keep the observers' final weights where asked, and end every cell that is still running."""
        for entry, method in self.observers():
            with self._guarded(entry):
                self._keep(entry, snapshot, method.propose())
        for entry in self.cells:
            if entry.status == "running":
                entry.status = "done"

    def _keep(self, entry: RunningCell, snapshot: Snapshot, proposal: Proposal | None) -> None:
        if not self.save_final:
            return
        model = self.evaluator.prepare(snapshot, proposal, entry.cell.method.batchnorm)
        self.weights[entry.key] = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def diverge(self, reason: str) -> None:
        """The base diverged, and with it all that watch it."""
        for entry in self.cells:
            if entry.status == "running":
                entry.status, entry.reason = "diverged", reason

    def state_dict(self) -> State:
        """All but the rows, which whoever stores this stores beside it."""
        return {
            w.key: {
                "method": self._method_state(w),
                "status": w.status,
                "reason": w.reason,
                "where": w.where,
                "traceback": w.traceback,
                "test_correct": w.test_correct,
                "client_accuracy_K": w.client_accuracy_K,
                "probed": w.probed,
            }
            for w in self.cells
        }

    def _method_state(self, entry: RunningCell) -> State | None:
        """An observer's state, tried: one that cannot be stored is its own cell's failure."""
        if entry.status == "running" and isinstance(entry.method, Observer):
            with self._guarded(entry):
                state = entry.method.state_dict()
                pack(state)
                return state
        return None

    def load_state_dict(self, state: State) -> None:
        """Take up the cells that the state knows; the others missed the beginning and are dropped."""
        self.cells = [w for w in self.cells if w.key in state]
        for entry in self.cells:
            saved = state[entry.key]
            if entry.status == "running":
                entry.status, entry.reason, entry.traceback = saved["status"], saved["reason"], saved["traceback"]
                entry.where = saved.get("where")  # an earlier version's bundle has none
            entry.test_correct = saved["test_correct"]
            entry.client_accuracy_K = saved.get("client_accuracy_K")  # likewise
            entry.probed = saved.get("probed", 0)  # an earlier version's bundle has none
            if isinstance(entry.method, Observer) and saved["method"] is not None:
                with self._guarded(entry):
                    entry.method.load_state_dict(saved["method"])
