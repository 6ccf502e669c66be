"""Jobs in processes of their own: what they say is followed in their files, however they end."""

import errno
import os
import signal
import time
from types import SimpleNamespace

import pytest
from fake_work import plan_of

from harness.config import EngineConfig
from harness.running.engine import remote
from harness.running.engine.local import LocalEngine
from harness.running.engine.remote import RemoteEngine
from harness.running.event_files import EventReader, EventWriter
from harness.running.events import DiskFailed, JobEnded, JobResumed, Message, WorkedElsewhere
from harness.running.jobs import Job, Worker
from harness.storage.leases import leave


class Saying(Worker):
    """Says a line, and ends."""

    kind = "train"

    def work(self):
        """Nothing but what `run` does."""

    def run(self):
        self.tell(Message("said"))


class Killed(Saying):
    """Is killed after its line."""

    def run(self):
        super().run()
        os.kill(os.getpid(), signal.SIGKILL)


class LosingItsLease(Saying):
    """Leaves as a process does whose lease was taken over."""

    def run(self):
        leave()


class OnAFullDisk(Saying):
    """Cannot even say that."""

    def run(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/file")


class Crashing(Saying):
    """Is ended by a signal in a line of its own."""

    def run(self):
        os.abort()


class Raising(Saying):
    """Raises what no job is to raise."""

    def run(self):
        raise LookupError("nowhere")


class Endless(Saying):
    """Works until it is ended."""

    def run(self):
        super().run()
        while True:
            time.sleep(1)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return plan_of(tmp_path_factory.mktemp("planned") / "results")


def job_of(plan, worker):
    return Job(
        worker=worker, base=plan.bases[0], cells=(), snapshots=frozenset(), starts=frozenset(), retrain=False,
        evaluate=plan.experiment.evaluate, settings=plan.experiment.settings, composed={}, python_path=(),
    )  # fmt: skip


@pytest.fixture
def engine(tmp_path):
    engine = LocalEngine(EngineConfig("local", workers=3), "cpu", tmp_path)
    yield engine
    engine.close()


def until_idle(engine):
    """What all jobs said, by their worker."""
    said = {}
    while engine.busy:
        for job, event in engine.events(timeout=60):
            said.setdefault(job.worker, []).append(event)
    return said


def test_what_jobs_say_and_how_they_end(engine, plan, tmp_path):
    """Their files hold the same for whoever else follows them, each with its end last."""
    for worker in (Saying, Killed, LosingItsLease):
        engine.submit(job_of(plan, worker))
    assert engine.free == 0
    said = until_idle(engine)
    killed = JobEnded("process ended with SIGKILL, as Linux does where memory runs out")
    assert said == {
        Saying: [Message("said"), JobEnded()],
        Killed: [Message("said"), killed],
        LosingItsLease: [WorkedElsewhere(), JobEnded()],
    }
    files = [list(EventReader(path).read()) for path in sorted(tmp_path.glob("*.jsonl"))]
    assert files == [[Message("said"), JobEnded()], [Message("said"), killed], [JobEnded()]]


def test_the_line_of_code_that_ended_a_process_is_told(engine, plan):
    """Also to who follows its file, which is the same line of events."""
    for worker in (Crashing, Raising):
        engine.submit(job_of(plan, worker))
    said = until_idle(engine)
    (crashed,), (raised,) = said[Crashing], said[Raising]
    assert crashed.died == "process ended with SIGABRT"
    assert crashed.where.endswith("in run: os.abort()")
    assert "Fatal Python error: Aborted" in crashed.traceback
    assert raised.died == "LookupError: nowhere"
    assert raised.where.endswith('in run: raise LookupError("nowhere")')
    assert raised.traceback.startswith("Traceback")


def test_a_disk_that_takes_no_event_is_told_all_the_same(engine, plan):
    engine.submit(job_of(plan, OnAFullDisk))
    _, said = next(engine.events(timeout=60))
    assert said == DiskFailed(28, "No space left on device", "a/file")


def test_stopping_ends_every_job(engine, plan):
    engine.submit(job_of(plan, Endless))
    (_, said), *_ = engine.events(timeout=60)
    assert said == Message("said")
    (process,) = [handed.handle.process for handed in engine._handed]
    engine.stop()
    assert not engine.busy
    assert not process.is_alive()


class Clusterless(RemoteEngine):
    """A cluster whose scheduler says what the test lets it say."""

    def __init__(self, folder):
        super().__init__(folder, 2)
        self.over = {}

    def launch(self, waiting):
        for handed in waiting:
            handed.handle = handed.task.events.name

    def reasons(self, running):
        return {id(one): self.over[one.handle] for one in running if one.handle in self.over}

    def cancel(self, running):
        """Nothing runs."""


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [100.0]
    monkeypatch.setattr(remote, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_remote_job_is_lost_when_its_scheduler_ended_it_and_its_file_says_no_more(plan, tmp_path, clock):
    """The shared folder may show its last lines late."""
    engine = Clusterless(tmp_path)
    jobs = [job_of(plan, Saying), job_of(plan, Killed)]
    for job in jobs:
        engine.submit(job)
    assert list(engine.events(timeout=0)) == []
    engine.over = {"000001.jsonl": "COMPLETED", "000002.jsonl": "NODE_FAIL"}
    assert list(engine.events(timeout=0)) == []
    with EventWriter(tmp_path / "000001.jsonl") as file:
        file.tell(JobResumed(2))
        file.tell(JobEnded())
    assert list(engine.events(timeout=0)) == [(jobs[0], JobResumed(2))]
    assert list(engine.events(timeout=0)) == [(jobs[0], JobEnded())]
    clock[0] += 60
    assert list(engine.events(timeout=0)) == [(jobs[1], JobEnded("NODE_FAIL"))]
    assert not engine.busy


def test_a_remote_job_that_its_scheduler_knows_again_is_not_lost(plan, tmp_path, clock):
    """Requeued, say."""
    engine = Clusterless(tmp_path)
    engine.submit(job_of(plan, Saying))
    for over in ({"000001.jsonl": "TIMEOUT"}, {}, {"000001.jsonl": "TIMEOUT"}):
        engine.over = over
        assert list(engine.events(timeout=0)) == []
        clock[0] += 6
    assert engine.busy
