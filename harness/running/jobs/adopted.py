"""Serving observers and reconstructions from the snapshots of an adopted run."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from harness.checkpoints.registry import read_run
from harness.checkpoints.runs import AdoptedRun
from harness.checkpoints.trajectory import AdoptedTrajectory
from harness.config import AdoptedConfig, EvaluateConfig
from harness.method import Proposal, Snapshot
from harness.running.audience import Audience, RunningCell
from harness.running.jobs.job import Refused
from harness.running.jobs.observing import ObservingWorker
from harness.training.evaluate import Evaluator
from harness.training.own_evaluation import OwnEvaluator


class AdoptedAudience(Audience):
    """Tells somebody's own evaluation on whose behalf it measures, and what it may measure at once."""

    def _ready(self, snapshot: Snapshot) -> None:
        if not isinstance(self.evaluator, OwnEvaluator) or snapshot.t not in self.epochs:
            return
        tasks: list[tuple[Snapshot, Proposal | None, str, str]] = []
        for entry, method in self.observers():
            with self._guarded(entry), self.clock.phase(f"method/{entry.key}"):
                tasks.append((snapshot, method.propose(), entry.cell.method.batchnorm, entry.cell.method.name))
        self.evaluator.expect(tasks, self.evaluator.splits(snapshot.t == self.base.epochs))

    def _evaluate(self, entry: RunningCell, snapshot: Snapshot, proposal: Proposal | None) -> dict[str, float]:
        if isinstance(self.evaluator, OwnEvaluator):
            self.evaluator.method = entry.cell.method.name
        return super()._evaluate(entry, snapshot, proposal)


class AdoptedWorker(ObservingWorker):
    """Runs epoch-cadence observers and reconstructions from an adopted run, which is never trained."""

    kind: ClassVar[str] = "replay"

    @cached_property
    def run_read(self) -> AdoptedRun:
        return read_run(self.store, self.job.base.key)

    def own_evaluator(self, evaluate: EvaluateConfig) -> OwnEvaluator:
        """Somebody's own evaluation; a checkpoint that a killed process left goes when the job goes on."""
        own = self.run_read, evaluate, self.store, self.device, self.job.base.evaluation
        return OwnEvaluator(*own, self.lock_folder)

    @cached_property
    def evaluator(self) -> Evaluator | OwnEvaluator:  # type: ignore[override]
        base = self.base
        assert isinstance(base, AdoptedConfig)
        if self.job.evaluate.is_own or not base.is_known:
            return self.own_evaluator(self.job.evaluate)
        return Evaluator(base, self.job.evaluate, self.images, self.device)

    def work(self) -> None:
        known = self.store.base(self.job.base.key)
        if known is None:
            raise Refused("the base has no record to replay")
        self.base_digest = known["digests"][-1:]
        rows, run = self.store.base_history(self.job.base.key), self.run_read
        trajectory = AdoptedTrajectory(run, self.device)
        cells = [self.start_cell(cell) for cell in self.job.cells]
        keep = self.job.settings.save == "final"
        audience = AdoptedAudience(
            self.base,
            cells,
            self.evaluator,  # type: ignore[arg-type]  # of the same face
            self.clock,
            trajectory,  # type: ignore[arg-type]
            run.steps_per_epoch,
            keep,
        )
        self.open_runs(audience.cells)
        trajectory.rewind(-1)
        audience.begin()
        for place, t in enumerate(run.ts) if audience.observers() else ():
            trajectory.extend(t)
            snapshot = trajectory[place]
            if t == 0:
                audience.start(snapshot)
            else:
                audience.epoch(snapshot, rows[t - 1])
                self.report_epoch(t, 0, 0.0, audience.cells)
        trajectory.extend(run.epochs)
        audience.reconstruct(rows)
        audience.finish(trajectory[len(trajectory) - 1])
        self._end_cells(audience, rows, known.get("moving"))
