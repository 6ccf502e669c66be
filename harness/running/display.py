"""A live view of the whole matrix for a person watching; plain lines where output is not a terminal."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, ConsoleRenderable, Group, RenderableType, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.table import Table
from rich.text import Text

from harness.causes import short_path
from harness.fitting import FirstThatFits
from harness.planning.duration import Paced, paced
from harness.running.events import BatchesDone, CellEnded, EpochEnded, JobResumed
from harness.storage.masking import masked_text

if TYPE_CHECKING:
    from harness.running.jobs import Job

PACES = 10
"""epochs of a model's bases, or of its branches, the latest, whose mean is their pace"""
SAY_SECONDS = 60.0
"""between plain lines of a job within an epoch"""
KEPT_LINES = 200
"""lines above the live view that are shown again where a window was made too narrow for it"""


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
    said: float
    """when there was a plain line of it, or it began"""
    epoch: int = 0
    """epochs that have ended"""
    batches: int = 0
    """of the epoch under way, of `of`"""
    of: int = 0
    images_per_second: float = 0.0
    epoch_seconds: float | None = None
    """of the epoch under way, as far as its batches tell"""
    best: float | None = None
    heard: float | None = None
    """when the epoch under way began"""

    @property
    def best_text(self) -> str:
        return "" if self.best is None else f"{self.best:.2f}"

    @property
    def speed_text(self) -> str:
        return f"{self.images_per_second:,.0f}" if self.images_per_second > 0 else ""

    @property
    def epoch_text(self) -> str:
        """The epoch under way where it is known how far it is, otherwise the last one that has ended."""
        if self.job.kind == "replay":
            return ""
        if self.epoch >= self.job.epochs:
            return "finishing"
        return f"{self.epoch + (self.batches > 0)}/{self.job.epochs}"

    @property
    def batch_text(self) -> str:
        return f"{self.batches}/{self.of}" if self.batches else ""

    @property
    def ended(self) -> float:
        """Epochs that have ended, and the part of the one under way."""
        return self.epoch + (self.batches / self.of if self.of else 0.0)

    def words(self) -> list[str]:
        """What is known of it, for a line of text."""
        epoch = f"epoch {self.epoch_text}" if "/" in self.epoch_text else self.epoch_text
        return [
            *([epoch] if epoch else []),
            *([f"batch {self.batch_text}"] if self.batches else []),
            *self.facts(),
        ]

    def facts(self) -> list[str]:
        """Its speed and how good it is, as far as they are known."""
        return [
            *([f"{self.speed_text} images/s"] if self.speed_text else []),
            *([f"best validation {self.best_text} %"] if self.best is not None else []),
        ]


def _paced(job: Job) -> Paced:
    return paced(job.base.config, branch=job.kind == "branch")


class _AsItIs:
    """A renderable that is wrapped at the terminal's width, whatever it is printed with."""

    def __init__(self, inner: RenderableType) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.inner, options.update(no_wrap=None, overflow="fold", highlight=False))


class _Region(Live):
    """The live view; where the window was made narrower than it, terminals wrap its lines, each in a way of its own,
    so that it cannot be drawn over: then the screen is cleared, and the latest of `lines` are shown again above it."""

    def __init__(self, view: RenderableType, console: Console, lines: Sequence[str]) -> None:
        super().__init__(view, console=console, refresh_per_second=4, transient=True)
        self._lines = lines

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        with self._lock:
            shape, size = self._live_render._shape, self.console.size
            if not self.console.is_interactive or shape is None or size.width >= shape[0]:
                return super().process_renderables(renderables)
            self._live_render._shape = None
            above = map(Text, list(self._lines)[-size.height :])
            clear = Control(ControlType.CLEAR, ControlType.HOME)
            return [clear, *above, *super().process_renderables(renderables)]


class LiveView(ABC):
    """A view that is redrawn in place on a terminal, below lines that stay; elsewhere lines alone."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)

    @abstractmethod
    def _view(self) -> RenderableType:
        """What is shown now."""

    def start(self) -> None:
        if self.console.is_terminal:
            self._live = _Region(_AsItIs(self._view()), self.console, self._lines)
            self._live.start()

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def refresh(self) -> None:
        if self._live is not None:
            self._live.update(_AsItIs(self._view()))

    def line(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, highlight=False, soft_wrap=not self.console.is_terminal)
        self._lines.append(text)


class Display(LiveView):
    """Told what happens by the scheduler; `cells` of `all_cells` had ended before it began.

    `epochs` are left to train, by what has a pace of its own, at `expected` seconds each as far as these are known.
    """

    def __init__(
        self,
        console: Console,
        cells: int,
        all_cells: int,
        epochs: Mapping[Paced, int],
        slots: int,
        expected: Mapping[Paced, float] | None = None,
    ) -> None:
        super().__init__(console)
        self._ended = cells
        self._all = all_cells
        self._epochs_left = dict(epochs)
        self._expected = dict(expected or {})
        self._pace: dict[Paced, deque[float]] = {}
        self._running: dict[int, _Line] = {}
        self._slots = slots
        self._since = time.monotonic()
        self._explained: set[tuple[str | None, str | None]] = set()
        """lines of code and logs that were named"""

    def begin(self, job: Job) -> None:
        now = time.monotonic()
        self._running[id(job)] = _Line(job, since=now, said=now)

    def resumed(self, job: Job, event: JobResumed) -> None:
        """A job goes on after an epoch that it finished earlier."""
        line = self._running[id(job)]
        line.epoch = event.epoch
        self._count_down(job, event.epoch)
        self.line(f"{job.label}: resumed at epoch {event.epoch}/{job.epochs}")

    def _count_down(self, job: Job, epochs: int) -> None:
        of = _paced(job)
        self._epochs_left[of] = max(self._epochs_left.get(of, 0) - epochs, 0)

    def batches(self, job: Job, event: BatchesDone) -> None:
        """A job is within an epoch."""
        line, now = self._running[id(job)], time.monotonic()
        line.batches, line.of, line.images_per_second = event.batches, event.of, event.images_per_second
        line.epoch_seconds = event.epoch_seconds
        if line.heard is None:
            line.heard = now - event.batches / event.of * event.epoch_seconds
        # where an epoch takes minutes, a person without a terminal hears of it before it ends
        if self._live is None and event.epoch_seconds > SAY_SECONDS and now - line.said > SAY_SECONDS:
            self._say(line, f"epoch {event.epoch}/{job.epochs}: batch {event.batches}/{event.of}")

    def epoch(self, job: Job, event: EpochEnded) -> None:
        """A job finished an epoch."""
        line, now = self._running[id(job)], time.monotonic()
        steps = max(event.epoch - line.epoch, 1)
        paces = self._pace.setdefault(_paced(job), deque(maxlen=PACES))
        if line.heard is not None or not paces:  # an epoch without a known beginning has the job's start in it
            paces.append((now - (line.since if line.heard is None else line.heard)) / steps)
        line.heard, line.epoch, line.batches, line.epoch_seconds = now, event.epoch, 0, None
        line.images_per_second, line.best = event.images_per_second, event.best_val_accuracy
        self._count_down(job, steps)
        tenth = max(job.epochs // 5, 1)
        if self._live is None and (line.epoch % tenth == 0 or line.epoch == job.epochs):
            self._say(line, f"epoch {line.epoch}/{job.epochs}")

    def _say(self, line: _Line, where: str) -> None:
        """A plain line on a job, with all that is known of the whole."""
        line.said = time.monotonic()
        parts = [where, *line.facts(), f"{self._ended}/{self._all} cells", self._left_text()]
        self.line(f"{line.job.label}: {', '.join(parts)}")

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

    def _pace_of(self, of: Paced) -> float | None:
        """Seconds of an epoch: as they were lately, as the batches under way tell, or as was expected."""
        if self._pace.get(of):
            return sum(self._pace[of]) / len(self._pace[of])
        told = [
            line.epoch_seconds
            for line in self._running.values()
            if line.epoch_seconds is not None and _paced(line.job) == of
        ]
        if told:
            return sum(told) / len(told)
        return self._expected.get(of)

    def _left(self) -> float | None:
        """Seconds left: epochs to go at their own pace, shared by the slots, but none sooner than its own job."""
        paces = {of: self._pace_of(of) for of in self._epochs_left}
        known = [pace for pace in paces.values() if pace is not None]
        if not known:
            return None
        mean = sum(known) / len(known)
        by_what = {of: mean if pace is None else pace for of, pace in paces.items()}
        total, longest = sum(epochs * by_what[of] for of, epochs in self._epochs_left.items()), 0.0
        for line in self._running.values():
            pace = by_what.get(_paced(line.job), mean)
            total -= (line.ended - line.epoch) * pace
            if line.job.kind != "replay":
                longest = max(longest, (line.job.epochs - line.ended) * pace)
        return max(total / self._slots, longest)

    def _left_text(self) -> str:
        seconds = self._left()
        if not any(self._epochs_left.values()):
            return "no epoch left to train"
        return "time left: not known yet" if seconds is None else f"about {duration(seconds)} left"

    def _view(self) -> Group:
        head = (
            f"{self._ended}/{self._all} cells, {self._left_text()}, {duration(time.monotonic() - self._since)} elapsed"
        )
        return Group(Text(head, style="bold"), FirstThatFits(self._table, self._stacked))

    def _table(self) -> Table:
        """A row per running job."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("running", "epoch", "batch", "images/s", "best val %", "elapsed"):
            table.add_column(name, justify="left" if name == "running" else "right", no_wrap=True)
        for line in self._running.values():
            table.add_row(
                line.job.label, line.epoch_text, line.batch_text, line.speed_text, line.best_text, self._elapsed(line)
            )
        return table

    def _stacked(self) -> Group:
        """For a narrow terminal: below each job's name what is known of it."""
        lines = []
        for line in self._running.values():
            words = [*line.words(), f"{self._elapsed(line)} elapsed"]
            lines += [Text(line.job.label), Text(f"  {', '.join(words)}", style="dim")]
        return Group(*lines)

    @staticmethod
    def _elapsed(line: _Line) -> str:
        return duration(time.monotonic() - line.since)
