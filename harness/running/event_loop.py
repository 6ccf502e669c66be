"""The one loop over an engine, for whatever has jobs to give: a suite's scheduler or a search's tuner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from harness.running.display import LiveView
    from harness.running.engine import Engine
    from harness.running.events import Event
    from harness.running.jobs import Job

LOOK_SECONDS = 0.5
"""after which a source is asked for jobs again where nothing happens"""


class Source(Protocol):
    """What has jobs to give."""

    def fill(self) -> bool:
        """Submit jobs while the engine has room; False where no more will come but by the events of these."""

    def take(self, job: Job, event: Event) -> None:
        """Hear of a submitted job."""


def no_notices() -> Sequence[str]:
    """The lines of nobody."""
    return ()


def run_jobs(source: Source, engine: Engine, view: LiveView, notices: Callable[[], Sequence[str]]) -> None:
    """Run a source's jobs until it has no more; an exception or interrupt ends every job and passes through.

    `notices` gives lines that others, such as a tracker, have to say since they were last asked.
    """
    try:
        while source.fill() or engine.busy:
            for job, event in engine.events(timeout=LOOK_SECONDS):
                source.take(job, event)
            for line in notices():
                view.line(line)
            view.refresh()
    except BaseException:
        engine.stop()
        raise
