"""What all engines share: a job runs in a process somewhere, and its events are followed in a file.

Records, weights and states go to the store as always; the file only says what happens. A job that is started again by
its cluster's scheduler, on whatever machine, appends to the same file.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.causes import Cause
from harness.running.event_files import EventReader, EventWriter, heard_by_engine
from harness.running.events import Event, JobEnded, Message
from harness.storage.files import is_disk_trouble

if TYPE_CHECKING:
    from harness.federated.elsewhere import Connect
    from harness.running.jobs import Job

LOOK_SECONDS = 0.1
"""between looks at files"""


@dataclass(frozen=True)
class Task:
    """A job as it travels: run with nothing but the results folder, from the folder that the command was given in."""

    job: Job
    events: Path
    directory: Path

    @property
    def dump(self) -> Path:
        """Where the lines of code are written that were being run when a signal such as SIGSEGV ended the process."""
        return self.events.with_suffix(".dump")

    def __call__(self, connect: Connect | None = None) -> None:
        """Run it; `connect` makes the transport to clients that are not trained by this process's own."""
        os.chdir(self.directory)
        from harness.running.jobs import run_job

        with EventWriter(self.events) as file, open(self.dump, "w", encoding="utf-8") as dump:
            faulthandler.enable(dump, all_threads=False)
            try:
                run_job(self.job, file.tell, connect)
                end = JobEnded()
            except Exception as error:
                if is_disk_trouble(error):
                    raise
                cause = Cause.of(error)
                end = JobEnded(cause.reason, cause.where, cause.traceback)
            finally:
                faulthandler.disable()
            file.tell(end)


@dataclass
class Handed:
    """A job that was handed over; `handle` is what the engine knows it by once it is launched, None until then."""

    task: Task
    reader: EventReader
    handle: Any = None
    end: JobEnded | None = None
    """what it said itself of its end"""

    @property
    def ended(self) -> bool:
        return self.end is not None

    @property
    def job(self) -> Job:
        return self.task.job

    def killed(self, died: str, output: str) -> JobEnded:
        """The end of one that could not say it itself, with what it left when a signal ended it, or else printed."""
        dump = ""
        with contextlib.suppress(OSError):
            dump = self.task.dump.read_text(encoding="utf-8", errors="replace")
        cause = Cause.of_signal(died, dump)
        return JobEnded(died, cause.where, cause.traceback or output or None)


class Gone(NamedTuple):
    """A job whose process is gone: what ended it, None where nothing did, and what it could not say itself."""

    handed: Handed
    died: str | None
    unsaid: Event | None = None


class FollowingEngine(ABC):
    """Runs `slots` jobs at once, whose files of events lie in `folder`."""

    def __init__(self, folder: Path, slots: int) -> None:
        self.slots = slots
        self.folder = folder
        self._handed: list[Handed] = []
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
        self._handed.append(Handed(Task(job, path, Path.cwd()), EventReader(path)))

    @abstractmethod
    def launch(self, waiting: list[Handed]) -> None:
        """Start jobs, giving each its handle."""

    @abstractmethod
    def gone(self, running: list[Handed]) -> list[Gone]:
        """Those whose processes are gone for good, and will write no more events."""

    def news(self) -> list[tuple[Handed, str]]:
        """Lines on jobs that cannot say them themselves, each once; of those that `gone` was last asked about."""
        return []

    @abstractmethod
    def cancel(self, running: list[Handed]) -> None:
        """End jobs."""

    def output(self, handed: Handed) -> str:
        """What a job whose process was lost printed, as far as that is kept."""
        return ""

    def pause(self, seconds: float) -> None:
        """Wait so long; an engine that hears of the end of a job may return at once."""
        time.sleep(seconds)

    def events(self, timeout: float) -> Iterator[tuple[Job, Event]]:
        """What jobs have said, at the latest after `timeout` seconds; the last event of each is a JobEnded."""
        if waiting := [handed for handed in self._handed if handed.handle is None]:
            self.launch(waiting)
        deadline = time.monotonic() + timeout
        while True:
            gone = self.gone(self._handed)  # before their files are read, so that their last words are
            for handed, text in (news := self.news()):
                yield handed.job, Message(text)
            heard = bool(gone or news)
            for handed in self._handed:
                for event in handed.reader.read():
                    heard = True
                    if isinstance(event, JobEnded):
                        handed.end = event
                    else:
                        yield handed.job, event
            for handed, died, unsaid in gone:
                self._handed.remove(handed)
                yield from self._end(handed, died, unsaid)
            if heard or time.monotonic() >= deadline:
                return
            self.pause(LOOK_SECONDS)

    def _end(self, handed: Handed, died: str | None, unsaid: Event | None) -> Iterator[tuple[Job, Event]]:
        """The last events of a job, said for it in its file where it did not."""
        if unsaid is not None:
            yield handed.job, unsaid
        end = handed.end
        if end is None:
            end = JobEnded() if died is None else handed.killed(died, self.output(handed))
            with EventWriter(handed.task.events) as file:
                file.tell(end)
        handed.task.dump.unlink(missing_ok=True)
        heard_by_engine(handed.task.events).touch()
        yield handed.job, end

    def stop(self) -> None:
        """End every job; each goes on from its last stored epoch when it is submitted again."""
        self.cancel([handed for handed in self._handed if handed.handle is not None])
        self._handed.clear()

    def close(self) -> None:
        """No more jobs: end those that are still under way."""
        self.stop()
