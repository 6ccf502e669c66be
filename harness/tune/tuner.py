"""The coordinator: it asks searches for trials, has the engine value them, and tells what they came to.

A batch is told as a whole and in the order of its trials, so what is suggested next does not depend on which job was
faster, or on how many run at once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.config import Settings
from harness.planning.plan import BasePlan
from harness.running.engine import Engine
from harness.running.event_loop import no_notices, run_jobs
from harness.running.events import DiskFailed, EpochEnded, Event, JobEnded, JobResumed, Message, TrialValued
from harness.running.jobs import Job
from harness.running.origin import Origin
from harness.storage.inside import is_file
from harness.storage.paths import snapshot_path
from harness.storage.store import Store
from harness.tune.batch import Batch
from harness.tune.display import TuneDisplay
from harness.tune.study import Candidate, Search
from harness.tune.workers import TRIAL_WORKERS, TrialJob

ATTEMPTS = 2
"""how often a job is run: again where its process was lost, or a stored file was corrupt and set aside

Candidates whose process was lost are run each on its own, since one of them may have taken the others along.
"""
BEAT_SECONDS = 15


@dataclass
class _Active:
    """A batch under way."""

    batch: Batch
    waiting: list[TrialJob] = field(default_factory=list)
    running: list[TrialJob] = field(default_factory=list)


class Tuner:
    """Runs searches in order, as many at once as keep the engine's slots busy.

    `told` is called after every batch, with its candidates.
    """

    def __init__(
        self,
        searches: Sequence[Search],
        store: Store,
        settings: Settings,
        engine: Engine,
        display: TuneDisplay,
        told: Callable[[Search, Sequence[Candidate]], None],
        python_path: tuple[str, ...] = (),
        composed: dict[str, Any] | None = None,
        origin: Origin | None = None,
    ) -> None:
        self.searches = list(searches)
        self.store = store
        self.settings = settings
        self.engine = engine
        self.display = display
        self._told = told
        self._python_path = python_path
        self._composed = composed or {}
        self._origin = origin or Origin()
        self._active: dict[int, _Active] = {}
        """by place of the search"""
        self._closed: set[int] = set()
        self._preparing: dict[str, TrialJob] = {}
        self._ready: set[str] = set()
        self._attempts: Counter[str] = Counter()
        self._beaten = 0.0

    def run(self, notices: Callable[[], Sequence[str]] = no_notices) -> None:
        """Run until every search has ended; an interrupt ends all jobs and passes through, and every trial stays."""
        run_jobs(self, self.engine, self.display, notices)

    def _beat(self) -> None:
        if time.monotonic() - self._beaten > BEAT_SECONDS:
            self._beaten = time.monotonic()
            for active in self._active.values():
                active.batch.search.beat(active.batch.candidates)

    def fill(self) -> bool:
        """Submit jobs while slots are free, those of earlier searches first; whether anything is left to do."""
        self._beat()
        for place, search in enumerate(self.searches):
            while place not in self._closed and self.engine.free > 0:
                if place not in self._active and not self._begin(place, search):
                    break
                if self._submit(place):  # otherwise it is told, and may ask for more at once
                    break
        return len(self._closed) < len(self.searches)

    def _begin(self, place: int, search: Search) -> bool:
        """Ask for a batch; False where the search has ended."""
        candidates = search.batch()
        while not candidates and search.wants():
            candidates = search.batch()
        if not candidates:
            self._close(place)
            return False
        batch = Batch(search, candidates, self.settings, self.engine.slots, self._python_path, self._composed)
        self._active[place] = _Active(batch)
        return True

    def _close(self, place: int) -> None:
        self._closed.add(place)
        self._active.pop(place, None)
        self.display.ended(self.searches[place])

    def _submit(self, place: int) -> bool:
        """Submit what can start of a batch's present step, or go to its next; False where it was the last."""
        active = self._active[place]
        while not active.waiting and not active.running:
            step = next(active.batch.steps, None)
            if step is None:
                self._finish(place)
                return False
            active.waiting = step
        for job in list(active.waiting):
            if self.engine.free > 0 and self._prepared(place, job.base):
                active.waiting.remove(job)
                active.running.append(job)
                self.display.begin(job)
                self.engine.submit(job)
            if place in self._closed:
                return False
        return True

    def _prepared(self, place: int, base: BasePlan) -> bool:
        """Whether a base is trained and has the snapshots that are replayed; if not, it is seen to, or given up."""
        if base.key in self._ready:
            return True
        if base.key in self._preparing:
            return False
        known = self.store.base(base.key)
        if known is not None and known["status"] == "done" and not self._missing(base):
            self._ready.add(base.key)
            return True
        search = self.searches[place]
        if self._attempts[base.key] >= ATTEMPTS or (known is not None and known["status"] == "diverged"):
            done = known is None or known["status"] == "done"
            why = "could not be made ready" if known is None or done else f"{known['status']}: {known['reason']}"
            search.ended, search.failed = f"its base {base.config.label} {why}", True
            self._close(place)
            return False
        self._attempts[base.key] += 1
        job = self._base_job(search, base)
        self._preparing[base.key] = job
        self.display.begin(job)
        self.engine.submit(job)
        return False

    def _snapshots(self, base: BasePlan) -> set[int]:
        """What to record of a base: all that searches on it replay or read, and what stays of it anyway; nothing of an
        adopted one, which has its snapshots."""
        if base.is_adopted:
            return set()
        wanted = base.kept(self.settings.trajectory.keep)
        for search in self.searches:
            if any(base.key == other.key for other in search.problem.bases):
                replayed = search.default_cells[0].replays(base.config.epochs) is not None
                needs = search.default_cells[0].needs
                wanted |= set(range(base.config.epochs + 1)) if replayed else set()
                wanted |= set() if needs is None else set(range(needs[0], needs[1] + 1))
        return wanted

    def _missing(self, base: BasePlan) -> set[int]:
        folder = self.store.base_folder(base.key) / "trajectory"
        return {t for t in self._snapshots(base) if not is_file(snapshot_path(folder, t))}

    def _base_job(self, search: Search, base: BasePlan) -> TrialJob:
        starts = {c.branch.start for s in self.searches for c in s.default_cells if c.branch is not None}
        return TrialJob(
            worker=TRIAL_WORKERS["train"],
            base=base,
            cells=(),
            snapshots=frozenset(self._snapshots(base)),
            starts=frozenset(starts - {0}),
            retrain=False,
            evaluate=search.evaluate,
            settings=self.settings,
            composed=self._composed,
            python_path=self._python_path,
            folder=str(search.work / f"base-s{base.config.seed}"),
            origin=self._origin,
        )

    def _owner(self, job: TrialJob) -> _Active | None:
        return next((a for a in self._active.values() if any(job is other for other in a.running)), None)

    def take(self, job: Job, event: Event) -> None:
        """Hear of a job; OSError where a disk failed it."""
        assert isinstance(job, TrialJob)
        match event:
            case Message(text):
                self.display.line(text)
            case EpochEnded() | JobResumed():
                self.display.epoch(job, event.epoch)
            case DiskFailed(number, text, path):
                raise OSError(number, text, path)
            case TrialValued(cell_key, result):
                active = self._owner(job)
                if active is not None:
                    active.batch.take(job, cell_key, result)
                    self.display.valued(active.batch.search)
            case JobEnded(died):
                self._end(job, died)

    def _end(self, job: TrialJob, died: str | None) -> None:
        self.display.end(job)
        if died is not None:
            self.display.line(f"{job.label}: {died}")
        if job.kind == "train":
            del self._preparing[job.base.key]
            return
        active = self._owner(job)
        if active is None:
            return
        active.running = [other for other in active.running if other is not job]
        if not active.batch.untold(job):
            return
        self._ready.discard(job.base.key)
        self._attempts[job.folder] += 1
        if died is not None and len(job.cells) > 1:
            active.waiting += active.batch.apart(job)
        elif self._attempts[job.folder] < ATTEMPTS:
            active.waiting.append(job)
        else:
            active.batch.lose(job, died or "its job told nothing")

    def _finish(self, place: int) -> None:
        """Tell a batch, trial by trial."""
        batch = self._active.pop(place).batch
        for candidate in batch.candidates:
            batch.search.tell(candidate)
        batch.clear()
        self._told(batch.search, batch.candidates)
        self.display.told(batch.search)
