"""The trials that a search suggests at once, as steps of jobs: of what kind follows from kind and cadence alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import gcd
from typing import Any

from harness.config import Settings
from harness.planning.plan import BasePlan, CellPlan
from harness.storage.inside import remove_folder
from harness.tune.study import RUNGS, Candidate, Result, Search
from harness.tune.workers import TRIAL_WORKERS, TrialJob


class Batch:
    """Candidates of one search until all are told. Candidates with the same setting share its jobs."""

    def __init__(
        self,
        search: Search,
        candidates: Sequence[Candidate],
        settings: Settings,
        slots: int,
        python_path: tuple[str, ...],
        composed: dict[str, Any],
    ) -> None:
        self.search = search
        self.candidates = list(candidates)
        self.slots = slots
        self._settings = replace(settings, save="none")
        self._python_path = python_path
        self._composed = composed
        self._latest: dict[tuple[str, int], Result] = {}
        """the last look at a setting (its key) on a seed"""
        self.steps = self._branches() if search.prunes else iter([self._all()])

    def _open(self, base: BasePlan) -> list[Candidate]:
        """One candidate per setting that is not valued on this base yet."""
        seed = base.config.seed
        open_ = [c for c in self.candidates if not c.over and seed not in c.results]
        return list({c.key: c for c in open_}.values())

    def _all(self) -> list[TrialJob]:
        """All settings on all bases."""
        jobs: list[TrialJob] = []
        bases = self.search.problem.bases
        for place, base in enumerate(bases):
            open_ = self._open(base)
            cells = [candidate.cells[place] for candidate in open_]
            if self.search.kind == "brancher":
                jobs += [self._branch(base, cell, _last(cell)) for cell in cells]
                continue
            replayed = [cell for cell in cells if cell.replays(base.config.epochs) is not None]
            watching = [cell for cell in cells if cell not in replayed]
            jobs += [self._job("shadow", base, watching)] if watching else []
            # as many jobs as fill the slots evenly
            parts = min(self.slots // gcd(self.slots, len(bases)), len(replayed))
            jobs += [self._job("replay", base, replayed[part::parts]) for part in range(parts)]
        return jobs

    def _branches(self) -> Iterator[list[TrialJob]]:
        """Seed by seed and rung by rung, with a look at every candidate in between."""
        for place, base in enumerate(self.search.problem.bases):
            for rung in range(1, RUNGS + 1):
                cells = [candidate.cells[place] for candidate in self._open(base)]
                jobs = [self._branch(base, cell, _rung(cell, rung)) for cell in cells]
                yield [job for job in jobs if self.untold(job)]  # a short branch may be there already
                self._look(place, base, rung)

    def _look(self, place: int, base: BasePlan, rung: int) -> None:
        """Report what every candidate has come to, and keep what is final."""
        seed, metric = base.config.seed, f"val_{self.search.config.metric}"
        for candidate in self.candidates:
            result = self._latest.get((candidate.key, seed), candidate.results.get(seed))
            if candidate.over or result is None:
                continue
            if rung == RUNGS or result["status"] != "done":
                self.search.keep(candidate, seed, result)
            if result["status"] == "done":
                before = [r[metric] for s, r in candidate.results.items() if s != seed]
                value = (sum(before) + result[metric]) / (len(before) + 1)
                self.search.look(candidate, place * RUNGS + rung - 1, value)

    def take(self, job: TrialJob, cell_key: str, result: Result) -> None:
        """What a job told of one of its cells."""
        base = job.base
        place = self.search.problem.bases.index(base)
        for candidate in self.candidates:
            if candidate.cells[place].key != cell_key:
                continue
            self._latest[candidate.key, base.config.seed] = result
            if not self.search.prunes:
                self.search.keep(candidate, base.config.seed, result)

    def untold(self, job: TrialJob) -> list[CellPlan]:
        """What a job has not told of its cells."""
        place, seed = self.search.problem.bases.index(job.base), job.base.config.seed
        keys = {candidate.cells[place].key: candidate.key for candidate in self.candidates}
        results = {cell.key: self._latest.get((keys[cell.key], seed)) for cell in job.cells}
        return [cell for cell in job.cells if not _reached(results[cell.key], job.until)]

    def apart(self, job: TrialJob) -> list[TrialJob]:
        """What a job has not told, each of it in a job of its own."""
        return [self._job(job.kind, job.base, [cell], job.until) for cell in self.untold(job)]

    def lose(self, job: TrialJob, reason: str) -> None:
        """A job was lost for good, and with it what it has not told."""
        lost = {"status": "failed", "reason": reason, "traceback": None, "epoch": None, "seconds": 0.0}
        for cell in self.untold(job):
            self.take(job, cell.key, {**lost, "val_accuracy": None, "val_loss": None})

    def clear(self) -> None:
        """Drop what its jobs would have gone on from."""
        remove_folder(self.search.work, ignore_errors=True)

    def _branch(self, base: BasePlan, cell: CellPlan, until: int) -> TrialJob:
        return self._job("branch", base, [cell], until)

    def _job(self, kind: str, base: BasePlan, cells: Sequence[CellPlan], until: int = 0) -> TrialJob:
        """Its folder is named by what it works on, so that the same job goes on after a kill."""
        digest = hashlib.sha256(" ".join(sorted(cell.key for cell in cells)).encode()).hexdigest()[:16]
        return TrialJob(
            worker=TRIAL_WORKERS["adopted" if base.is_adopted and kind == "replay" else kind],
            base=base,
            cells=tuple(cells),
            snapshots=frozenset(),
            starts=frozenset(),
            retrain=False,
            # never at an epoch of its own: at the last alone
            evaluate=replace(self.search.evaluate, every=10**9, test="last", reconstructions="last"),
            settings=self._settings,
            composed=self._composed,
            python_path=self._python_path,
            folder=str(self.search.work / f"{kind}-s{base.config.seed}-{digest}"),
            until=until,
        )


def _last(cell: CellPlan) -> int:
    assert cell.branch is not None
    return cell.branch.prefix + cell.branch.epochs


def _rung(cell: CellPlan, rung: int) -> int:
    """The epoch of a branch's rung, the last of which is its end."""
    assert cell.branch is not None
    return cell.branch.prefix + -(-cell.branch.epochs * rung // RUNGS)


def _reached(result: Result | None, until: int) -> bool:
    return result is not None and (result["status"] != "done" or (result["epoch"] or 0) >= until)
