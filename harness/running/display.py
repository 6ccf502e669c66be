"""A live view of the whole matrix for a person watching; plain lines where output is not a terminal."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.causes import short_path
from harness.running.events import CellEnded, EpochEnded, JobResumed
from harness.storage.masking import masked_text

if TYPE_CHECKING:
    from harness.running.jobs import Job


def duration(seconds: float) -> str:
    """`1 h 05 min`, `3 min 20 s` or `12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


@dataclass
class _Line:
    """A running job as it was last heard of."""

    job: Job
    since: float
    epoch: int = 0
    images_per_second: float = 0.0
    best: float | None = None
    heard: float = field(default_factory=time.monotonic)

    @property
    def best_text(self) -> str:
        return "" if self.best is None else f"{self.best:.2f}"


class LiveView(ABC):
    """A view that is redrawn in place on a terminal, below lines that stay; elsewhere lines alone."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None

    @abstractmethod
    def _view(self) -> RenderableType:
        """What is shown now."""

    def start(self) -> None:
        if self.console.is_terminal:
            self._live = Live(self._view(), console=self.console, refresh_per_second=4, transient=True)
            self._live.start()

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._view())

    def line(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, highlight=False, soft_wrap=True)


class Display(LiveView):
    """Told what happens by the scheduler; `cells` of `all_cells` had ended before it began."""

    def __init__(self, console: Console, cells: int, all_cells: int, epochs: Mapping[str, int], slots: int) -> None:
        super().__init__(console)
        self._ended = cells
        self._all = all_cells
        self._epochs_left = dict(epochs)
        self._pace: dict[str, list[float]] = {}
        self._running: dict[int, _Line] = {}
        self._slots = slots
        self._explained: set[tuple[str | None, str | None]] = set()
        """lines of code and logs that were named"""

    def begin(self, job: Job) -> None:
        self._running[id(job)] = _Line(job, time.monotonic())

    def resumed(self, job: Job, event: JobResumed) -> None:
        """A job goes on after an epoch that it finished earlier."""
        name = job.base.config.model.name
        self._running[id(job)].epoch = event.epoch
        self._epochs_left[name] = max(self._epochs_left.get(name, 0) - event.epoch, 0)

    def epoch(self, job: Job, event: EpochEnded) -> None:
        """A job finished an epoch."""
        line = self._running[id(job)]
        now = time.monotonic()
        steps = max(event.epoch - line.epoch, 1)
        self._pace.setdefault(job.base.config.model.name, []).append((now - line.heard) / steps)
        line.heard, line.epoch = now, event.epoch
        line.images_per_second, line.best = event.images_per_second, event.best_val_accuracy
        name = job.base.config.model.name
        self._epochs_left[name] = max(self._epochs_left.get(name, 0) - steps, 0)
        tenth = max(job.epochs // 5, 1)
        if self._live is None and (line.epoch % tenth == 0 or line.epoch == job.epochs):
            best = f", best validation {line.best_text} %" if line.best is not None else ""
            self.line(
                f"{job.label}: epoch {line.epoch}/{job.epochs}, {line.images_per_second:,.0f} images/s{best}, "
                f"{self._ended}/{self._all} cells, about {self._left()} left"
            )

    def cell(self, job: Job, event: CellEnded) -> None:
        """A cell ended."""
        self._ended += 1
        if event.status != "done":
            name = next((c.method.name for c in job.cells if c.key == event.cell_key), "")
            self.line(masked_text(f"{job.base.config.label}-{name}: {event.status}: {event.reason}"))
            self._explain(event, Path(job.settings.results_dir))

    def _explain(self, event: CellEnded, results: Path) -> None:
        """Below the line of a cell that did not end well, where to look; what several have in common is said once."""
        if (event.where, event.log) not in self._explained:
            self._explained.add((event.where, event.log))
            for what, text in (("at", event.where), ("log", event.log and short_path(results / event.log))):
                if text is not None:
                    self.line(masked_text(f"  {what} {text}"))

    def end(self, job: Job) -> None:
        self._running.pop(id(job), None)

    def _left(self) -> str:
        """Time left: epochs to go at each model's own pace so far, shared by the slots."""
        known = [p for paces in self._pace.values() for p in paces]
        if not known:
            return "?"
        mean = sum(known) / len(known)
        total = 0.0
        for name, epochs in self._epochs_left.items():
            paces = self._pace.get(name)
            total += epochs * (sum(paces) / len(paces) if paces else mean)
        return duration(total / self._slots)

    def _view(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("running", "epoch", "images/s", "best val %", "for"):
            table.add_column(name, justify="left" if name == "running" else "right", no_wrap=True)
        for line in self._running.values():
            table.add_row(
                line.job.label,
                f"{line.epoch}/{line.job.epochs}" if line.epoch < line.job.epochs else "finishing",
                f"{line.images_per_second:,.0f}" if line.epoch else "",
                line.best_text,
                duration(time.monotonic() - line.since),
            )
        head = Text(f"{self._ended}/{self._all} cells, about {self._left()} left", style="bold")
        return Group(head, table)
