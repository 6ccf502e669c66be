"""A suite's tracking in a process of its own, which a run or a search feeds and never waits for.

A service that is slow or gone delays this process alone; its wandb-core is shared by all runs. What a killed process
had not passed on is given from the records at the end of the next run, or by `publish`, and from its study at the end
of the next search.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.config import TrackerConfig
from harness.tracking.tracker import Row, RunEnd, RunInfo

PATIENCE = 45.0
"""seconds without any progress after which a run stops waiting for its tracking to end"""
LEAVE_SECONDS = 5.0
"""that an interrupted run waits for it"""


class Background:
    """The process's other end. Each cell's runs are given in the order of the calls; none of these waits.

    `records`: whether a suite's records are what is tracked, all of which `finish` looks through; a search's are not.
    """

    def __init__(self, config: TrackerConfig, results_dir: Path, suite: str, method: str, records: bool = True) -> None:
        context = multiprocessing.get_context(method)
        self._here, there = context.Pipe()
        arguments = (there, config, results_dir, suite, records, dict(os.environ))
        self._process = context.Process(target=_main, args=arguments, name=f"tracking of {suite}")  # type: ignore[attr-defined]
        self._process.start()
        there.close()
        self._again = _again(suite, records)
        self._gone = False

    def _send(self, *message: Any) -> None:
        if not self._gone:
            try:
                self._here.send(message)
            except OSError:
                self._gone = True

    def start(self, cell_key: str, info: RunInfo) -> None:
        self._send("start", cell_key, info)

    def log(self, cell_key: str, run_id: str, rows: Sequence[Row]) -> None:
        self._send("log", cell_key, run_id, rows)

    def cell(self, cell_key: str) -> None:
        """A cell has its record."""
        self._send("cell", cell_key)

    def runs(self, group: str, wholes: Sequence[tuple[RunInfo, Sequence[Row], RunEnd]]) -> None:
        """Runs of a group that have ended, each as a whole; those that the tracker has are skipped."""
        self._send("runs", group, wholes)

    def lines(self, timeout: float = 0.0) -> list[str]:
        """What the tracker has to say since the last call, waiting so long for news."""
        found = []
        try:
            while not self._gone and self._here.poll(timeout):
                line = self._here.recv()
                if line is not None:
                    found.append(line)
                timeout = 0.0
        except (EOFError, OSError):
            self._gone = True
        return found

    def finish(self) -> list[str]:
        """All cells have ended: give what is missing, wait while that goes on, and return what there is to say."""
        self._send("finish")
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
        """The run or search was interrupted: its open runs are left, to be gone on with."""
        self._here.close()
        self._gone = True
        self._end(LEAVE_SECONDS)

    def _end(self, seconds: float) -> None:
        self._process.join(seconds)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _again(suite: str, records: bool) -> str:
    command = f"`traindyn publish suite={suite}`" if records else "the same command again"
    return f"{command} gives what it lacks"


class _Feed:
    """Takes messages from the pipe to the tracker, those of one cell in order, those of several at the same time."""

    def __init__(
        self, connection: Connection, config: TrackerConfig, results_dir: Path, suite: str, records: bool
    ) -> None:
        from harness.tracking.wandb.live import THREADS

        self.connection = connection
        self.config, self.results_dir, self.suite, self.records = config, results_dir, suite, records
        self.lanes = [ThreadPoolExecutor(1) for _ in range(THREADS)]
        self._speaking = threading.Lock()
        self.publisher: Future[Any] = self.lanes[0].submit(self._open)

    def say(self, line: str | None) -> None:
        """None: something was done."""
        with self._speaking, suppress(OSError):  # nobody listens any more
            self.connection.send(line)

    def _open(self) -> Any:
        from harness.publishing.publish import Publisher
        from harness.storage.store import Store
        from harness.tracking import open_tracker

        tracker = open_tracker(self.config, self.results_dir, self.say, notice=True)
        return Publisher(Store(self.results_dir, self.say), self.suite, self.config, tracker, self.say)

    def run(self) -> None:
        """Until the run ends, or its process does: what was told is given in any case."""
        finished = self._receive()
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

    def _receive(self) -> bool:
        """Hand messages to the lanes until the last; whether the run ended by itself."""
        while True:
            try:
                kind, *rest = self.connection.recv()
            except (EOFError, OSError):
                return False
            if kind == "finish":
                return True
            self.lanes[zlib.crc32(rest[0].encode()) % len(self.lanes)].submit(self._take, kind, *rest)

    def _take(self, kind: str, key: str, *rest: Any) -> None:
        try:
            publisher = self.publisher.result()
            match kind:
                case "start":
                    publisher.tracker.start(*rest)
                case "log":
                    publisher.tracker.log(*rest)
                case "cell":
                    publisher.cell(key)
                case "runs":
                    publisher.runs(*rest, lambda: self.say(None))
        except Exception as error:
            self._failed(error)
        self.say(None)

    def _failed(self, error: Exception) -> None:
        from harness.storage.masking import masked_text

        text = " ".join(f"{type(error).__name__}: {error}".split())
        self.say(masked_text(f"tracking: {text}; {_again(self.suite, self.records)}"))


def _main(
    connection: Connection,
    config: TrackerConfig,
    results_dir: Path,
    suite: str,
    records: bool,
    environment: dict[str, str],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run's process hears it too, and closes the pipe
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ.clear()  # a process of a server has the server's
    os.environ.update(environment)
    # the run prints what there is to say; wandb's own warnings would fall into its table
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    _Feed(connection, config, results_dir, suite, records).run()
