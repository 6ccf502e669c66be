"""Searches under way for a person watching: best so far, trials per minute, time left; lines without a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence

from optuna.trial import TrialState
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from harness.fitting import FirstThatFits
from harness.running.display import LiveView, duration
from harness.tune.study import Search, mean
from harness.tune.workers import TrialJob


class _Pace:
    """One search as it is shown."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.since: float | None = None
        self.before, self.seconds_before = search.spent()
        self.under_way = 0
        """settings valued on some seed, of the batch under way"""
        self.read()

    def read(self) -> None:
        """What the study says now."""
        search = self.search
        self.trials, self.seconds = search.spent()
        trials = search.trials
        self.counts = {
            "running": sum(t.state == TrialState.RUNNING for t in trials),
            "failed": sum("error" in t.user_attrs for t in trials),
            "pruned": sum(t.state == TrialState.PRUNED and "refused" not in t.user_attrs for t in trials),
        }
        self.told = self.trials - self.counts["running"]
        values = [t.value for t in trials if t.state == TrialState.COMPLETE and t.value is not None]
        default = search.default
        if default is not None and all(r["status"] == "done" for r in default.values()):
            values.append(mean(search.config.metric, default.values()))
        best = max if search.config.metric == "accuracy" else min
        self.best = None if not values else best(values)

    def runs(self, job: TrialJob) -> bool:
        """Whether a job is one of this search's."""
        name, keys = self.search.method.name, {base.key for base in self.search.problem.bases}
        return job.base.key in keys and any(cell.method.name == name for cell in job.cells)

    @property
    def budget(self) -> str:
        config = self.search.config
        trials = "" if config.trials is None else f"/{config.trials}"
        seconds = "" if config.seconds is None else f", {self.seconds:.0f}/{config.seconds:g} s"
        return f"{self.told}{trials} trials{seconds}"

    @property
    def per_minute(self) -> float | None:
        if self.since is None or self.told <= self.before:
            return None
        return 60 * (self.told - self.before) / max(time.monotonic() - self.since, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds until the budget is spent, at the pace so far."""
        config, pace = self.search.config, self.per_minute
        if self.since is None or pace is None:
            return None
        found = []
        if config.trials is not None:
            found.append(60 * (config.trials - self.told) / pace)
        if config.seconds is not None and self.seconds > self.seconds_before:
            rate = (self.seconds - self.seconds_before) / (time.monotonic() - self.since)
            found.append((config.seconds - self.seconds) / rate)
        return max(min(found), 0.0) if found else None

    @property
    def best_text(self) -> str:
        if self.best is None:
            return ""
        return f"{self.best:.2f} %" if self.search.config.metric == "accuracy" else f"{self.best:.4f}"


class TuneDisplay(LiveView):
    """Told what happens by the tuner."""

    def __init__(self, console: Console, searches: Sequence[Search]) -> None:
        super().__init__(console)
        self._paces = {id(search): _Pace(search) for search in searches}
        self._jobs: dict[int, tuple[TrialJob, int]] = {}

    def begin(self, job: TrialJob) -> None:
        self._jobs[id(job)] = (job, 0)
        if job.kind == "train" and self._live is None:
            self.line(f"{job.base.config.label}: trained for the searches on it")
        if job.kind != "train":
            for pace in self._paces.values():
                if pace.since is None and pace.runs(job):
                    pace.since = time.monotonic()

    def epoch(self, job: TrialJob, epoch: int) -> None:
        if id(job) in self._jobs:
            self._jobs[id(job)] = (job, epoch)

    def end(self, job: TrialJob) -> None:
        self._jobs.pop(id(job), None)

    def valued(self, search: Search) -> None:
        """A setting has been valued on a seed."""
        self._paces[id(search)].under_way += 1

    def told(self, search: Search) -> None:
        """A batch of trials has ended."""
        pace = self._paces[id(search)]
        pace.under_way = 0
        pace.read()
        if self._live is None:
            self.line(self._words(pace))

    def ended(self, search: Search) -> None:
        """A search asks for no more."""
        if search.ended not in (None, "done"):
            self.line(f"{search.label}: ended: {search.ended}")

    @staticmethod
    def _words(pace: _Pace) -> str:
        parts = [f"{pace.search.label}: {pace.budget}"]
        parts += [f"best {pace.best_text}"] if pace.best is not None else []
        parts += [f"{pace.per_minute:.0f} trials/min"] if pace.per_minute is not None else []
        parts += [f"{count} {name}" for name, count in pace.counts.items() if count and name != "running"]
        parts += [f"about {duration(pace.left)} left"] if pace.left else []
        return ", ".join(parts)

    def _view(self) -> Group:
        lines = [
            Text(f"{job.label}: epoch {epoch}/{_epochs(job)}" if epoch else job.label, style="dim")
            for job, epoch in self._jobs.values()
        ]
        return Group(FirstThatFits(self._table, self._stacked), *lines)

    def _stacked(self) -> Group:
        """For a narrow terminal: a line per search, wrapped at words."""
        return Group(*(Text(self._words(pace)) for pace in self._paces.values()))

    def _table(self) -> Table:
        """A row per search."""
        searches = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("search", "trials", "best validation", "trials/min", "pruned", "failed", "left"):
            searches.add_column(name, justify="left" if name == "search" else "right", no_wrap=True)
        for pace in self._paces.values():
            searches.add_row(
                pace.search.label,
                pace.budget,
                pace.best_text,
                "" if pace.per_minute is None else f"{pace.per_minute:.0f}",
                str(pace.counts["pruned"] or ""),
                str(pace.counts["failed"] or ""),
                "" if pace.left is None else duration(pace.left),
            )
        return searches


def _epochs(job: TrialJob) -> int:
    branch = job.cells[0].branch if job.kind == "branch" else None
    return job.epochs if branch is None else job.until - branch.prefix
