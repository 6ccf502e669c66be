"""Where jobs run. An engine starts jobs while it has room, and tells what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.config import EngineConfig, RayConfig, SlurmConfig

if TYPE_CHECKING:
    from harness.running.jobs import Job

Event = dict[str, Any]
"""`kind` is line, run, rows, epoch, resumed, cell, elsewhere where another run works at it, or stuck where the disk
is to blame, as a job's process told it, and last `end`, with `died`: what killed it or None"""


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

    def close(self) -> None:
        """No more jobs."""


def open_engine(config: EngineConfig, device: str, root: Path) -> Engine:
    """The engine of a configuration, for jobs on `device` whose results folder is `root`; ConfigError: not here."""
    if isinstance(config, SlurmConfig):
        from harness.running.engine.slurm import SlurmEngine

        return SlurmEngine(config, root)
    if isinstance(config, RayConfig):
        from harness.running.engine.ray import RayEngine

        return RayEngine(config, root)
    from harness.running.engine.local import LocalEngine

    return LocalEngine(config, device)
