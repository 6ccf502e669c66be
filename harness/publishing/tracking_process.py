"""A command's tracking in a process of its own, which follows the files of events and which nobody waits for.

It reads what jobs, and the command itself, write to the command's folder of events (`harness.running.event_files`), and
gives it to the tracker. A service that is slow or gone delays this process alone, and events wait in their files. Its
wandb-core is shared by all runs. What a killed process had not passed on is given from the records at the end of the
next run, or by `publish`, and from its study at the end of the next search.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config import TrackerConfig
from harness.processes import on_its_own
from harness.running.event_files import EventReader, heard_by_engine
from harness.running.events import CellEnded, Event, RowsAdded, RunsEnded, RunStarted
from harness.storage.inside import entries, remove
from harness.validation import reason_of_kind

if TYPE_CHECKING:
    from harness.publishing.publish import Publisher

PATIENCE = 45.0
"""seconds without any progress after which a command stops waiting for its tracking to end"""
LEAVE_SECONDS = 5.0
"""that an interrupted command waits for it"""
LOOK_SECONDS = 0.2
"""between looks at the files"""
MOST_WAITING = 256
"""events that wait in memory for the tracker; more of them wait in their files"""


class TrackingProcess:
    """The process as the command sees it, which only hears what it has to say and tells it to finish.

    Arguments: the tracker's configuration, the results folder, the suite, how multiprocessing starts processes, the
    command's folder of events, and whether a suite's records are what is tracked, all of which `finish` looks through;
    a search's are not.
    """

    def __init__(
        self, config: TrackerConfig, results_dir: Path, suite: str, method: str, events: Path, records: bool = True
    ) -> None:
        context = multiprocessing.get_context(method)
        self._here, there = context.Pipe()
        arguments = (there, config, results_dir, suite, events, records, dict(os.environ))
        self._process = context.Process(target=_main, args=arguments, name=f"tracking of {suite}")  # type: ignore[attr-defined]
        with on_its_own():
            self._process.start()
        there.close()
        self._again = _again(suite, records)
        self._gone = False

    def lines(self) -> list[str]:
        """What the tracker has to say since the last call."""
        found = []
        try:
            while not self._gone and self._here.poll():
                line = self._here.recv()
                if line is not None:
                    found.append(line)
        except (EOFError, OSError):
            self._gone = True
        return found

    def finish(self) -> list[str]:
        """All jobs have ended: give what is missing, wait while that goes on, and return what there is to say."""
        try:
            self._here.send("finish")
        except OSError:
            self._gone = True
        said, heard = [], time.monotonic()
        while not self._gone:
            if self._here.poll(0.5):
                said += self.lines()
                heard = time.monotonic()
            elif time.monotonic() - heard > PATIENCE:
                said.append(f"tracking does not end: {self._again}")
                break
        self._end(LEAVE_SECONDS if self._gone else 0.0)
        return said

    def leave(self) -> None:
        """The command was interrupted: its open runs are left, to be gone on with."""
        self._here.close()
        self._gone = True
        self._end(LEAVE_SECONDS)

    def _end(self, seconds: float) -> None:
        self._process.join(seconds)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _again(suite: str, records: bool) -> str:
    command = f"`traindyn publish name={suite}`" if records else "the same command again"
    return f"{command} gives what it lacks"


class _Follower:
    """Gives events to the tracker, those of one cell in order, those of several at the same time."""

    def __init__(
        self, connection: Connection, config: TrackerConfig, results_dir: Path, suite: str, events: Path, records: bool
    ) -> None:
        from harness.tracking.wandb.live import THREADS

        self.connection = connection
        self.config, self.results_dir, self.suite, self.records = config, results_dir, suite, records
        self.events = events
        self.readers: dict[Path, EventReader] = {}
        self.lanes = [ThreadPoolExecutor(1) for _ in range(THREADS)]
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)
        self._speaking = threading.Lock()
        self.publisher: Future[Publisher] = self.lanes[0].submit(self._open)

    def say(self, line: str | None) -> None:
        """Say a line to the command; None: something was done."""
        with self._speaking, suppress(OSError):  # nobody listens any more
            self.connection.send(line)

    def _open(self) -> Publisher:
        from harness.publishing.publish import Publisher
        from harness.storage.store import Store
        from harness.tracking import open_tracker

        tracker = open_tracker(self.config, self.results_dir, self.say, notice=True)
        return Publisher(Store(self.results_dir, self.say), self.suite, self.config, tracker, self.say)

    def run(self) -> None:
        """Follow until the command ends, or its process does: what was told until then is given in any case."""
        finished = self._follow()
        for lane in self.lanes:
            lane.shutdown()
        try:
            publisher = self.publisher.result()
            if finished and self.records:
                # also what an earlier run, or one that was killed, left out
                publisher.all(lambda: self.say(None))
            publisher.tracker.close()
        except Exception as error:
            self._failed(error)

    def _follow(self) -> bool:
        """Look at the files again and again, the last time after the end; whether the command ended by itself."""
        ended = finished = False
        while not ended:
            if ended := self.connection.poll(LOOK_SECONDS):
                with suppress(EOFError, OSError):
                    finished = self.connection.recv() == "finish"
            self._look()
        return finished

    def _look(self) -> None:
        """Take what is new in every file: jobs' in the order of their start, what the command says of them last."""
        for path in entries(self.events, "*.jsonl"):
            mark = heard_by_engine(path)
            whole = mark.exists()  # before the file is read, so that all of it is
            for event in self.readers.setdefault(path, EventReader(path)).read():
                self._take(event)
            if whole:
                remove(path)
                remove(mark)
                del self.readers[path]

    def _take(self, event: Event) -> None:
        match event:
            case RunStarted(key, info):
                self._submit(key, lambda publisher: publisher.tracker.start(info))
            case RowsAdded(key, run_id, rows):
                self._submit(key, lambda publisher: publisher.tracker.log(run_id, rows))
            case CellEnded(key):
                self._submit(key, lambda publisher: publisher.cell(key))
            case RunsEnded(group, runs):
                self._submit(group, lambda publisher: publisher.runs(runs, lambda: self.say(None)))

    def _submit(self, key: str, give: Callable[[Publisher], object]) -> None:
        """Have something given after all else with this key."""
        self._waiting.acquire()
        self.lanes[zlib.crc32(key.encode()) % len(self.lanes)].submit(self._give, give)

    def _give(self, give: Callable[[Publisher], object]) -> None:
        try:
            give(self.publisher.result())
        except Exception as error:
            self._failed(error)
        self._waiting.release()
        self.say(None)

    def _failed(self, error: Exception) -> None:
        from harness.storage.masking import masked_text

        text = reason_of_kind(error)
        self.say(masked_text(f"tracking: {text}; {_again(self.suite, self.records)}"))


def _main(
    connection: Connection,
    config: TrackerConfig,
    results_dir: Path,
    suite: str,
    events: Path,
    records: bool,
    environment: dict[str, str],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command's process hears it too, and closes the pipe
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ.clear()  # a process of a server has the server's
    os.environ.update(environment)
    # the command prints what there is to say; wandb's own warnings would fall into its table
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    _Follower(connection, config, results_dir, suite, events, records).run()
