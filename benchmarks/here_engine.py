"""An engine that runs its jobs in this process, one after the other, and what a stretch of work took."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from harness.running.events import Event, JobEnded
from harness.running.jobs import Job, run_job


class Stopwatch:
    """Seconds since it was made: by the wall clock, and of this process on all cores."""

    def __init__(self) -> None:
        self._since = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._since[0], time.process_time() - self._since[1]


class HereEngine:
    """Runs a job in this process when it is asked for events; `training` is what the last base took."""

    slots = 1

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self.training = (0.0, 0.0)

    @property
    def free(self) -> int:
        return self.slots - len(self._waiting)

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def events(self, timeout: float) -> Iterator[tuple[Job, Event]]:
        job, told = self._waiting.popleft(), []
        watch = Stopwatch()
        run_job(job, told.append)
        if job.kind == "train":
            self.training = watch.read()
        yield from ((job, event) for event in told)
        yield job, JobEnded()

    def stop(self) -> None:
        self._waiting.clear()
