"""The tracking process follows files of events by itself, removes what it has read, and gives all of it in order."""

import csv

import pytest

from harness.config import TrackerConfig
from harness.processes import METHOD
from harness.publishing import tracking_process
from harness.publishing.tracking_process import TrackingProcess
from harness.running.event_files import EventFolder, EventWriter, heard_by_engine
from harness.running.events import JobEnded, RowsAdded, RunsEnded, RunStarted
from harness.storage.store import Store
from harness.tracking.tracker import RunEnd, RunInfo, WholeRun

CSV = TrackerConfig("csv")


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A loaded machine may take long to start a process; nothing here waits longer than it needs."""
    monkeypatch.setattr(tracking_process, "PATIENCE", 600.0)
    monkeypatch.setattr(tracking_process, "LEAVE_SECONDS", 600.0)


@pytest.fixture
def events(tmp_path):
    with EventFolder(Store(tmp_path)) as folder:
        yield folder


def start(tmp_path, events):
    return TrackingProcess(CSV, tmp_path, "a-suite", METHOD, events.path, records=False)


def say(events, number, *told):
    with EventWriter(events.path / f"{number:06d}.jsonl") as file:
        for event in told:
            file.tell(event)


def info(name):
    return RunInfo(name, name, "group", "swa")


def epochs(tmp_path, name):
    with open(tmp_path / "csv" / name / "history.csv", newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def rows(*ts):
    return [{"epoch": t, "val_loss": 1 / t} for t in ts]


def test_rows_of_a_job_and_of_the_job_that_goes_on_are_given_once(tmp_path, events):
    """The first was killed after its third row; the second tells all rows again."""
    say(events, 1, RunStarted("cell", info("one")), RowsAdded("cell", "one", rows(1, 2)))
    say(events, 1, RowsAdded("cell", "one", rows(3)), JobEnded("process ended with SIGKILL"))
    tracking = start(tmp_path, events)
    say(events, 2, RunStarted("cell", info("one")), RowsAdded("cell", "one", rows(1, 2, 3)))
    say(events, 2, RowsAdded("cell", "one", rows(4)), JobEnded())
    heard_by_engine(events.path / "000001.jsonl").touch()
    assert tracking.finish() == []
    assert epochs(tmp_path, "one") == [1, 2, 3, 4]
    # the engine may not have read the end of the second one yet
    assert [path.name for path in events.path.iterdir()] == ["000002.jsonl"]


def test_an_interrupted_command_gives_what_was_told(tmp_path, events):
    """The file of a job that has not ended is read to where it is whole, and left."""
    tracking = start(tmp_path, events)
    say(events, 1, RunStarted("cell", info("one")), RowsAdded("cell", "one", rows(1, 2)))
    with open(events.path / "000001.jsonl", "ab") as file:
        file.write(b'{"event": "RowsAdd')
    tracking.leave()
    assert epochs(tmp_path, "one") == [1, 2]
    assert [path.name for path in events.path.glob("*.jsonl")] == ["000001.jsonl"]


def test_the_command_itself_gives_runs_without_a_record(tmp_path, events):
    tracking = start(tmp_path, events)
    trials = [WholeRun(info(name), rows(1, 2), RunEnd({"val_loss": 0.5})) for name in ("one", "two")]
    events.tell(RunsEnded("group", trials))
    events.tell(RunsEnded("group", trials))
    assert tracking.finish() == []
    assert [epochs(tmp_path, name) for name in ("one", "two")] == [[1, 2], [1, 2]]


def test_more_events_than_may_wait_in_memory_are_all_given(tmp_path, events, monkeypatch):
    monkeypatch.setattr(tracking_process, "MOST_WAITING", 1)
    told = [RunStarted("cell", info("one")), *(RowsAdded("cell", "one", rows(t)) for t in range(1, 40))]
    say(events, 1, *told, JobEnded())
    here, there = tracking_process.multiprocessing.Pipe()
    here.send("finish")
    tracking_process._Follower(there, CSV, tmp_path, "a-suite", events.path, records=False).run()
    assert epochs(tmp_path, "one") == list(range(1, 40))


def test_an_error_of_the_tracker_is_said_in_one_line_and_ends_nothing(tmp_path, events):
    (tmp_path / "csv").write_text("a file where the folder should be")
    tracking = start(tmp_path, events)
    say(events, 1, RunStarted("cell", info("one")), JobEnded())
    (line,) = tracking.finish()
    assert line.startswith("tracking: ")
    assert line.endswith("the same command again gives what it lacks")
