"""Events as lines, and files of them: nothing is lost, nothing read twice, and torn lines harm nobody."""

import json
import math
import os

import pytest

from harness.running import events
from harness.running.event_files import EventFolder, EventReader, EventWriter, abandoned
from harness.running.events import (
    CellEnded,
    DiskFailed,
    EpochEnded,
    JobEnded,
    JobResumed,
    Message,
    RowsAdded,
    RunsEnded,
    RunStarted,
    TrialValued,
    WorkedElsewhere,
    event_line,
    read_event,
)
from harness.storage.leases import lease_name
from harness.storage.store import Store
from harness.tracking.tracker import RunEnd, RunInfo, WholeRun

INFO = RunInfo("id-store", "name", "group", "swa", ["smoke", "swa"], {"lr": 0.1, "seeds": [0, 1]})
ROWS = [{"epoch": 1, "train_loss": 0.1 + 0.2, "val_loss": math.inf}]
ALL = [
    Message("one line"),
    RunStarted("cell", INFO),
    RowsAdded("cell", "id-store", ROWS),
    JobResumed(3),
    EpochEnded(4, 123.5, None),
    CellEnded("cell", "failed", "no", "mine.py:3 in observe: no", "cells/cell/log.txt"),
    TrialValued("cell", {"status": "done", "val_loss": 1 / 3}),
    RunsEnded("group", [WholeRun(INFO, ROWS, RunEnd({"val_loss": 1 / 3}, status="failed", digest="abc"))]),
    DiskFailed(28, "No space left on device", "a/file"),
    WorkedElsewhere(),
    JobEnded("process ended with SIGSEGV", "mine.py:3 in observe: no", "two\nlines"),
    JobEnded(),
]


def test_every_kind_of_event_is_tried_here():
    assert {type(event) for event in ALL} == set(events.Event.__args__)


@pytest.mark.parametrize("event", ALL, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_from_its_line(event):
    """Numbers to the last bit, and those that are not finite."""
    line = event_line(event)
    assert line.count(b"\n") == 1
    assert read_event(line) == event


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b"3", b'{"text": "none"}', b'{"event": "Nothing"}'])
def test_what_is_no_event_is_refused(line):
    with pytest.raises(ValueError, match=r"event|JSON|Expecting"):
        read_event(line)


def test_each_event_is_read_once_and_by_every_reader(tmp_path):
    first, second = (EventReader(tmp_path / "a.jsonl") for _ in range(2))
    assert list(first.read()) == []
    with EventWriter(tmp_path / "a.jsonl") as file:
        file.tell(JobResumed(1))
        assert list(first.read()) == [JobResumed(1)]
        file.tell(JobResumed(2))
        assert list(first.read()) == [JobResumed(2)]
    assert list(first.read()) == []
    assert list(second.read()) == [JobResumed(1), JobResumed(2)]


def test_a_line_is_read_when_it_is_whole(tmp_path):
    path, line = tmp_path / "a.jsonl", event_line(Message("whole"))
    reader = EventReader(path)
    path.write_bytes(line[:9])
    assert list(reader.read()) == []
    path.write_bytes(line)
    assert list(reader.read()) == [Message("whole")]


def test_a_line_that_a_kill_tore_is_closed_by_who_goes_on(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(event_line(Message("before")) + event_line(Message("torn"))[:-5])
    with EventWriter(path) as file:
        file.tell(Message("after"))
    assert list(EventReader(path).read()) == [Message("before"), Message("after")]


def test_a_disk_that_takes_no_event_is_named():
    with EventWriter("/dev/full") as file, pytest.raises(OSError, match=r"No space left") as error:
        file.tell(Message("no room"))
    assert error.value.filename == "/dev/full"


def test_a_folder_of_events_is_its_owners_alone_and_goes_with_its_command(tmp_path):
    store = Store(tmp_path)
    with EventFolder(store) as folder, EventFolder(store) as other:
        folder.tell(Message("from the command"))
        (path,) = folder.path.glob("*.jsonl")
        assert list(EventReader(path).read()) == [Message("from the command")]
        assert folder.path.stat().st_mode & 0o777 == 0o700
        assert other.path.is_dir()
        assert abandoned(store) == []
    assert not (tmp_path / "engine").exists()
    assert store.leases.all() == {}


def test_names_that_are_no_utf8_arrive_with_their_bytes_escaped():
    """As they are, no page, no table and hardly a terminal takes them."""
    name = os.fsdecode(b"/data/caf\xe9.png")
    assert read_event(event_line(CellEnded("key", "failed", f"{name}: gone"))).reason == r"/data/caf\xe9.png: gone"


def left_behind(store, name):
    """The folder of a command whose process is gone."""
    path = store.root / "engine" / name
    path.mkdir(parents=True)
    (path / "000001.jsonl").touch()
    child = os.fork()
    if child == 0:
        store.leases.take(lease_name(store.root, path))
        os._exit(0)
    os.waitpid(child, 0)
    return path


def test_what_killed_commands_left_is_removed_by_the_next(tmp_path):
    """But for what jobs in Slurm's queue still start from."""
    store = Store(tmp_path)
    gone, queued = left_behind(store, "gone"), left_behind(store, "queued")
    (queued / "slurm").mkdir()
    assert json.loads(store.leases.path("engine-gone").read_text())["pid"] != os.getpid()
    assert abandoned(store) == [gone, queued]
    with EventFolder(store):
        assert not gone.exists()
        assert queued.exists()
