"""Where jobs run. An engine starts jobs while it has room, and tells what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from harness.config import EngineConfig, FlowerConfig, RayConfig, SlurmConfig
from harness.running.events import Event

if TYPE_CHECKING:
    from harness.running.jobs import Job


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

    def submit(self, job: Job) -> None:
        """Hand a job over; call only while `free` is positive."""

    def events(self, timeout: float) -> Iterator[tuple[Job, Event]]:
        """What jobs have said, at the latest after `timeout` seconds; the last event of each is a JobEnded."""

    def stop(self) -> None:
        """End every job; each goes on from its last stored epoch when it is submitted again."""

    def close(self) -> None:
        """No more jobs."""


def open_engine(config: EngineConfig, device: str, folder: Path, clients: set[int]) -> Engine:
    """The engine of a configuration, for jobs on `device` whose files of events lie in `folder`.

    `clients`: how many the federations of the bases have.

    ConfigError where it cannot be had here.
    """
    if isinstance(config, SlurmConfig):
        from harness.running.engine.slurm import SlurmEngine

        return SlurmEngine(config, folder)
    if isinstance(config, RayConfig):
        from harness.running.engine.ray import RayEngine

        return RayEngine(config, folder)
    if isinstance(config, FlowerConfig):
        from harness.running.engine.flower import FlowerEngine

        return FlowerEngine(config, folder, clients)
    from harness.running.engine.local import LocalEngine

    return LocalEngine(config, device, folder)
