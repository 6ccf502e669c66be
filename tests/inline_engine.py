"""An engine that runs its jobs in the test's own process, one after the other."""

from collections import deque
from dataclasses import dataclass, field

from harness.running.events import JobEnded
from harness.running.jobs import run_job


@dataclass
class InlineEngine:
    """Runs a job when it is asked for events, in the order of submission; `done` remembers them.

    `deaths` maps a job's label to how often its process is lost before it does anything.
    """

    slots: int = 1
    waiting: deque = field(default_factory=deque)
    done: list = field(default_factory=list)
    deaths: dict = field(default_factory=dict)

    @property
    def free(self):
        return self.slots - len(self.waiting)

    @property
    def busy(self):
        return bool(self.waiting)

    def submit(self, job):
        self.waiting.append(job)

    def events(self, timeout):
        if not self.waiting:
            return
        job = self.waiting.popleft()
        self.done.append(job)
        if self.deaths.get(job.label, 0) > 0:
            self.deaths[job.label] -= 1
            yield job, JobEnded("process ended with SIGKILL")
            return
        told = []
        run_job(job, told.append)
        yield from ((job, event) for event in told)
        yield job, JobEnded()

    def stop(self):
        self.waiting.clear()
