"""What runs when: bases, then replays and shadows for what is missing, branches as soon as they can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import gcd
from pathlib import Path

from harness.causes import Cause
from harness.config import EvaluateConfig, Save
from harness.planning.duration import Paced, paced
from harness.planning.estimate import epochs_to_train
from harness.planning.plan import BasePlan, CellPlan, Plan, needs_shadow
from harness.planning.slots import client_processes
from harness.running.display import Display
from harness.running.engine import Engine
from harness.running.event_loop import no_notices, run_jobs
from harness.running.events import (
    BatchesDone,
    CellEnded,
    DiskFailed,
    EpochEnded,
    Event,
    JobEnded,
    JobResumed,
    Message,
    Tell,
    WorkedElsewhere,
)
from harness.running.jobs import WORKERS, Job, ended, note_loss, record_end, record_failure
from harness.running.origin import Origin
from harness.storage.inside import is_file
from harness.storage.leases import Owner, lease_name
from harness.storage.paths import base_log, cell_log
from harness.storage.retention import prune
from harness.storage.store import Record

ATTEMPTS = 5
"""how often a job is run in one go: again where a stored file turned out to be corrupt and was set aside"""


class Scheduler:
    """Runs a plan's open cells on an engine, and says so to a display.

    `tell` hears of cells that end without a job, so that a tracker learns of them as it does of those with one.
    `origin` is what logs and records say of the command; None: what the plan knows of it.
    """

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        display: Display,
        python_path: tuple[str, ...],
        tell: Tell,
        origin: Origin | None = None,
    ) -> None:
        self.plan = plan
        self.store = plan.store
        self.engine = engine
        self.display = display
        self.python_path = python_path
        self.tell = tell
        self.origin = origin or Origin(plan.experiment.command)
        self.open = {key for key, status in plan.statuses.items() if status == "left"}
        self.retrain = {base.key for base in plan.bases if plan.retrains(base)}
        self._attempts: Counter[tuple[str, str, str]] = Counter()
        self._active: dict[str, list[Job]] = {base.key: [] for base in plan.bases}
        self._left = list(plan.bases)
        """bases that may have open cells"""
        self._ended: dict[str, Record] = {}
        """records of bases that ended, as far as they were read"""
        self._elsewhere: dict[str, Owner] = {}
        """who else works at what is open here, by the name of the lease"""
        self._seen_elsewhere: set[str] = set()
        records = {key: self.store.record(key) for key in self.open}
        self._generations = {key: None if record is None else record["generation"] for key, record in records.items()}

    def run(self, notices: Callable[[], Sequence[str]] = no_notices) -> None:
        """Run until nothing is open; interrupts end every job and pass through."""
        run_jobs(self, self.engine, self.display, notices)
        for base in self.plan.bases:
            self._prune(base)

    def fill(self) -> bool:
        """Submit jobs while slots are free; whether others work at something that is open here.

        Bases that still have to be trained go before all else, so that no slot waits for one at the end; where
        snapshots are to go when their base's cells have ended, a base is finished before another is begun.
        """
        bases_first = self.plan.experiment.settings.trajectory.keep == "all"
        while (free := self.engine.free) > 0:
            before, self._elsewhere = self._elsewhere, {}
            self._left = [base for base in self._left if any(cell.key in self.open for cell in base.cells)]
            first: list[Job] = []
            then: list[Job] = []
            for base in self._left:
                for job in self._next(base):
                    (first if (job.kind == "train") == bases_first else then).append(job)
                if len(first) >= free:
                    break
            for name, owner in self._elsewhere.items():
                if name not in before:
                    self.display.line(f"{name}: {owner} works there, its results will be taken over")
            for job in (ready := [*first, *then][:free]):
                self._attempts[self._name(job)] += 1
                self._active[job.base.key].append(job)
                self.display.begin(job)
                self.engine.submit(job)
            if not ready:
                break
        return bool(self._elsewhere)

    @staticmethod
    def _name(job: Job) -> tuple[str, str, str]:
        return job.base.key, job.kind, job.cells[0].key if job.kind == "branch" else ""

    def take(self, job: Job, event: Event) -> None:
        """Hear of a job; OSError where a disk failed it."""
        match event:
            case Message(text):
                self.display.line(text)
            case CellEnded():
                self.open.discard(event.cell_key)
                self.display.cell(job, event)
            case JobResumed():
                self.display.resumed(job, event)
            case BatchesDone():
                self.display.batches(job, event)
            case EpochEnded():
                self.display.epoch(job, event)
            case DiskFailed(number, text, path):
                raise OSError(number, text, path)
            case WorkedElsewhere():
                self._attempts[self._name(job)] -= 1
            case JobEnded():
                self._end(job, event)

    def _end(self, job: Job, end: JobEnded) -> None:
        self._active[job.base.key].remove(job)
        self._ended.pop(job.base.key, None)
        if end.died is not None:
            self._died(job, Cause(end.died, end.where, end.traceback))
        if job.kind == "train":
            self.retrain.discard(job.base.key)
        self.display.end(job)
        if not self._active[job.base.key]:
            self._prune(job.base)

    def _close(self, job: Job, event: CellEnded) -> None:
        """A cell has its record, of which no job of this scheduler's told."""
        self.open.discard(event.cell_key)
        self.tell(event)
        self.display.cell(job, event)

    def _died(self, job: Job, cause: Cause) -> None:
        """The process was lost, and could record nothing: it may be started again, to go on from its last epoch."""
        if self._attempts[self._name(job)] <= job.settings.engine.retries:
            self.display.line(f"{job.label}: {cause.reason}; it goes on from its last epoch")
            note_loss(job, self.store, cause)
            return
        lost = tuple(cell for cell in job.cells if cell.key in self.open)
        record_failure(job, self.store, lost, cause)
        for cell in lost:
            self._close(job, CellEnded(cell.key, "failed", cause.reason, cause.where, job.log_of(cell)))
        if not lost:
            self.display.line(f"{job.label}: failed: {cause.reason}")

    def _next(self, base: BasePlan) -> Iterator[Job]:
        """The jobs of a base that can start now."""
        cells = [cell for cell in base.cells if cell.key in self.open]
        active = self._active[base.key]
        if not cells or any(job.kind == "train" for job in active):
            return
        follows = any(job.kind in ("replay", "shadow") for job in active)
        elsewhere = not follows and self._works_elsewhere(base, self.store.base_folder(base.key))
        cells = [cell for cell in cells if cell.key in self.open]
        followers = tuple(c for c in cells if c.kind != "brancher")
        known = self._known(base)
        first = self._attempts[(base.key, "train", "")] == 0
        if known is None or (known["status"] == "failed" and first):
            if active or elsewhere:
                return
            if base.is_adopted:
                self._give_up(base, cells, "failed", Cause("its base.json is gone: adopt it again"))
            elif self._may(base, "train"):
                yield self._job("train", base, followers)
            else:
                self._give_up(base, cells, "failed", Cause("its base could not be trained"), base_log(base.key))
            return
        if known["status"] == "failed":
            self._give_up(base, list(followers), "failed", _with_base(known), base_log(base.key))
            followers = ()
        for cell in cells:
            if cell.branch is None or any(job.kind == "branch" and job.cells == (cell,) for job in active):
                continue
            if self._works_elsewhere(base, self.store.cell_folder(cell.key)) or cell.key not in self.open:
                continue
            if known["status"] == "failed" or (
                known["status"] == "diverged" and cell.branch.prefix >= len(known["digests"])
            ):
                self._give_up(base, [cell], "skipped", _with_base(known), base_log(base.key))
            elif self._may(base, "branch", cell.key):
                yield self._job("branch", base, (cell,))
            else:
                self._give_up(base, [cell], "failed", Cause("its job left no record"))
        if followers and not follows and not elsewhere:
            yield from self._follow(base, followers, known["status"] == "diverged")

    def _known(self, base: BasePlan) -> Record | None:
        """The record of a base that ended, and is not to be trained anew."""
        if base.key in self.retrain:
            return None
        known = self._ended.get(base.key) or self.store.base(base.key)
        if known is not None:
            self._ended[base.key] = known
        return known

    def _works_elsewhere(self, base: BasePlan, folder: Path) -> bool:
        """Whether another run works in a folder; where one has just stopped to, its cells are taken over."""
        name = lease_name(self.store.root, folder)
        owner = self.store.leases.holder(name)
        if owner is not None:
            self._elsewhere[name] = owner
            self._seen_elsewhere.add(name)
            return True
        if name in self._seen_elsewhere:
            self._seen_elsewhere.remove(name)
            self._take_over(base)
        return False

    def _take_over(self, base: BasePlan) -> None:
        """Close the cells that another run has recorded since this one was planned."""
        for cell in base.cells:
            record = self.store.record(cell.key) if cell.key in self.open else None
            if record is not None and record["generation"] != self._generations[cell.key]:
                self._close(self._job("branch", base, (cell,)), ended(record))

    def _follow(self, base: BasePlan, followers: tuple[CellPlan, ...], diverged: bool) -> Iterator[Job]:
        """A replay for what snapshots can serve, a shadow run for the rest."""
        folder = self.store.base_folder(base.key) / "trajectory"
        served = tuple(c for c in followers if diverged or not needs_shadow(base, [c], folder))
        rest = tuple(c for c in followers if c not in served)
        if served and self._may(base, "replay"):
            yield self._job("adopted" if base.is_adopted else "replay", base, served)
        elif rest and self._may(base, "shadow"):
            yield self._job("shadow", base, rest)
        else:
            self._give_up(base, list(followers), "failed", Cause("neither a replay nor a shadow run produced it"))

    def _may(self, base: BasePlan, kind: str, cell_key: str = "") -> bool:
        return self._attempts[(base.key, kind, cell_key)] < ATTEMPTS

    def _give_up(
        self, base: BasePlan, cells: list[CellPlan], status: str, cause: Cause, log: str | None = None
    ) -> None:
        """End cells without a job; `log` says more of the cause where there is such a file, else their own do."""
        job = self._job("branch", base, tuple(cells))
        log = log if log is not None and is_file(self.store.root / log) else None
        record_end(job, self.store, tuple(cells), status, cause, log)
        for cell in cells:
            self._close(job, CellEnded(cell.key, status, cause.reason, cause.where, log or cell_log(cell.key)))

    def _job(self, kind: str, base: BasePlan, cells: tuple[CellPlan, ...]) -> Job:
        experiment = self.plan.experiment
        pending = [cell for cell in base.cells if cell.key in self.open]
        records = {cell.key: self.store.record(cell.key) for cell in cells}
        starts = {c.branch.start for c in pending if c.branch is not None and c.branch.start > 0}
        return Job(
            worker=WORKERS[kind],
            base=base,
            cells=cells,
            snapshots=frozenset(base.snapshots(pending, experiment.settings.trajectory.keep)),
            starts=frozenset(starts),
            retrain=kind == "train" and base.key in self.retrain,
            evaluate=_with_contents(experiment.evaluate, list(records.values())),
            settings=replace(experiment.settings, save=_saves(experiment.settings.save, list(records.values()))),
            composed=experiment.composed,
            python_path=self.python_path,
            generations={cell.key: self._generations.get(cell.key) for cell in cells},
            client_processes=client_processes(experiment.settings.engine, base.config.device, self._open_jobs),
            origin=self.origin,
        )

    @property
    def _open_jobs(self) -> int:
        """Jobs that may still have to run: one per base, and one per cell that trains on its own."""
        cells = [[cell for cell in base.cells if cell.key in self.open] for base in self._left]
        return sum(max(1, sum(cell.branch is not None for cell in own)) for own in cells if own)

    def _prune(self, base: BasePlan) -> None:
        """Drop what nobody needs of a base whose cells have all ended."""
        if not any(cell.key in self.open for cell in base.cells):
            prune(self.store, base.key, base.kept(self.plan.experiment.settings.trajectory.keep))


def _with_base(known: Record) -> Cause:
    """Why cells cannot go on from a base that ended badly."""
    return Cause(f"its base {known['status']}: {known['reason']}", known.get("where"))


def _with_contents(evaluate: EvaluateConfig, records: list[Record | None]) -> EvaluateConfig:
    """What is asked for, and what the records that will be replaced already hold."""
    held = [EvaluateConfig(**r["config"]["evaluate"]) for r in records if r is not None and r["status"] == "done"]
    return replace(
        evaluate,
        every=gcd(evaluate.every, *(one.every for one in held)),
        test="every" if "every" in (evaluate.test, *(one.test for one in held)) else "last",
        reconstructions="every"
        if "every" in (evaluate.reconstructions, *(one.reconstructions for one in held))
        else "last",
    )


def _saves(save: Save, records: list[Record | None]) -> Save:
    """`final` where it is asked for, or where a record that will be replaced holds weights."""
    return "final" if any(r is not None and r["holds"]["weights"] for r in records) else save


def epochs_left(plan: Plan) -> dict[Paced, int]:
    """Epochs still to be trained, by what has a pace of its own, for the time that is left."""
    left: Counter[Paced] = Counter()
    for base in plan.bases:
        cells = [cell for cell in base.cells if plan.statuses[cell.key] == "left"]
        epochs = epochs_to_train(plan, base, cells)
        left[paced(base.config, branch=False)] += epochs.base + epochs.shadow
        left[paced(base.config, branch=True)] += epochs.branch
    return dict(left)
