"""What engines beyond this machine share: a job's events come back as lines of a file in the shared results folder.

Records, weights and states go to the store as always; the file only says what happens. A job that is started again by
its scheduler, on whatever machine, appends to the same file. Lines are JSON: nothing that a job says is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.running.engine import Event
from harness.tracking.tracker import RunInfo

if TYPE_CHECKING:
    from harness.running.jobs import Job

LEFT = "left"
"""the kind of a job's last line: it came to its end by itself"""
PAUSE = 0.1
"""seconds between looks at files"""
LAG_SECONDS = 10.0
"""how long a shared folder may take to show the last lines of a job that has ended"""


def event_line(event: Mapping[str, Any]) -> bytes:
    """An event as one line."""
    plain = {k: asdict(v) if isinstance(v, RunInfo) else v for k, v in event.items()}
    return json.dumps(plain).encode() + b"\n"


def read_event(line: bytes) -> Event:
    """The event of one line."""
    event: Event = json.loads(line)
    if "info" in event:
        event["info"] = RunInfo(**event["info"])
    return event


@dataclass(frozen=True)
class Task:
    """A job as it travels: run with nothing but the shared folder, from the folder that the command was given in."""

    job: Job
    events: Path
    directory: Path

    def __call__(self) -> None:
        os.chdir(self.directory)
        from harness.running.jobs import run_job

        with open(self.events, "ab", buffering=0) as file:

            def tell(event: Mapping[str, Any]) -> None:
                file.write(event_line(event))

            run_job(self.job, tell)
            tell({"kind": LEFT})


@dataclass
class Remote:
    """A job that was handed over; `handle` is the scheduler's name for it, None until then."""

    job: Job
    task: Task
    handle: Any = None
    read: int = 0
    """bytes of its events that were passed on"""
    gone: float | None = None
    """when its scheduler was first seen to have ended it, on the monotonic clock"""
    reason: str = ""


class RemoteEngine(ABC):
    """An engine whose jobs run elsewhere, `slots` of them at once, waiting ones included."""

    def __init__(self, root: Path, slots: int) -> None:
        self.slots = slots
        self.folder = root / "engine" / uuid.uuid4().hex[:12]
        self.folder.mkdir(parents=True, mode=0o700)
        self._handed: list[Remote] = []
        self._count = 0

    @property
    def free(self) -> int:
        return self.slots - len(self._handed)

    @property
    def busy(self) -> bool:
        return bool(self._handed)

    def submit(self, job: Job) -> None:
        """Hand a job over with the next call of `events`, together with all that were submitted until then."""
        self._count += 1
        path = self.folder / f"{self._count:06d}.jsonl"
        path.touch()
        self._handed.append(Remote(job, Task(job, path, Path.cwd())))

    @abstractmethod
    def launch(self, waiting: list[Remote]) -> None:
        """Start jobs, giving each its handle."""

    @abstractmethod
    def ended(self, running: Iterable[Remote]) -> dict[int, str]:
        """Of those that the scheduler has ended for good, by `id`, why as far as it knows."""

    @abstractmethod
    def cancel(self, running: list[Remote]) -> None:
        """End jobs."""

    def events(self, timeout: float) -> Iterator[tuple[Job, Event]]:
        """What jobs have said, at the latest after `timeout` seconds; `end` comes last, with what killed it."""
        if waiting := [remote for remote in self._handed if remote.handle is None]:
            self.launch(waiting)
        deadline = time.monotonic() + timeout
        while True:
            found = [(remote, event) for remote in self._handed for event in self._heard(remote)]
            for remote, event in found:
                if event["kind"] != LEFT:
                    yield remote.job, event
                    continue
                self._handed.remove(remote)
                yield remote.job, {"kind": "end", "died": None}
            for remote in self._lost():
                self._handed.remove(remote)
                yield remote.job, {"kind": "end", "died": remote.reason}
                found.append((remote, {}))
            if found or time.monotonic() >= deadline:
                return
            time.sleep(PAUSE)

    def _heard(self, remote: Remote) -> Iterator[Event]:
        """What a job has written since the last look: whole lines."""
        with open(remote.task.events, "rb") as file:
            file.seek(remote.read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        remote.read += len(whole)
        for line in whole.splitlines():
            yield read_event(line)

    def _lost(self) -> list[Remote]:
        """Jobs that ended and said no more for a while."""
        ended, now = self.ended(self._handed), time.monotonic()
        lost = []
        for remote in self._handed:
            if id(remote) not in ended:
                remote.gone = None
            elif remote.gone is None:
                remote.gone, remote.reason = now, ended[id(remote)]
            elif now - remote.gone > LAG_SECONDS:
                lost.append(remote)
        return lost

    def stop(self) -> None:
        """End every job; each goes on from its last finished epoch when it is submitted again."""
        self.cancel([remote for remote in self._handed if remote.handle is not None])
        self._handed.clear()

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another command's files are there
            self.folder.parent.rmdir()
