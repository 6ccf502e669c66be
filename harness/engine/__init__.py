"""Where jobs run. An engine starts jobs while it has room, and tells what they say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from harness.jobs import Job

Event = dict[str, Any]
"""`kind` is line, run, rows, epoch, resumed, cell, or elsewhere where another run works at it, as a job's process told
it, and last `end`, with `died`: what killed it or None"""


class Engine(Protocol):
    """The interface of every engine; a job's results go to the store, not through here."""

    @property
    def slots(self) -> int:
        """Jobs at once."""

    @property
    def free(self) -> int:
        """Jobs that can be submitted now."""

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""

    def submit(self, job: Job) -> None: ...

    def events(self, timeout: float) -> Iterator[tuple[Job, Event]]:
        """What jobs have said, at the latest after `timeout` seconds."""

    def stop(self) -> None:
        """End every job; each goes on from its last finished epoch when it is submitted again."""
