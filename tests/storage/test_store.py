"""Records are whole, checked, and the truth."""

from __future__ import annotations

import errno
import itertools
import os

import pytest

from harness.storage import files
from harness.storage.store import Store

ROWS = [{"epoch": 1, "val_accuracy": 50.0}, {"epoch": 2, "val_accuracy": 60.0, "rho_mean": 0.5}]


@pytest.fixture
def store(tmp_path):
    lines = []
    store = Store(tmp_path, lines.append)
    store.lines = lines
    store.write_record({"cell_key": "c1", "status": "done", "summary": {"val_accuracy": 60.0}}, ROWS)
    return store


def test_record_and_history_come_back(store):
    assert store.record("c1")["summary"] == {"val_accuracy": 60.0}
    history = store.history("c1")
    assert history["epoch"].tolist() == [1, 2]
    assert history["rho_mean"].isna().tolist() == [True, False]
    assert store.record("absent") is None
    assert store.history("absent") is None


@pytest.mark.parametrize("name", ["record.json", "history.parquet"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_damage_is_set_aside_with_one_line(store, name, damage):
    path = store.cell_folder("c1") / name
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        place = data.index(b"60.0") if name == "record.json" else len(data) // 2
        data[place] ^= 1
        path.write_bytes(data)
    else:
        path.unlink()
    assert store.record("c1") is None
    if (name, damage) == ("record.json", "delete"):
        assert store.lines == []
        return
    assert len(store.lines) == 1
    assert name in store.lines[0]
    assert not (store.cell_folder("c1") / "record.json").exists()
    store.write_record({"cell_key": "c1", "status": "done", "summary": {}}, ROWS)
    assert store.record("c1") is not None


def test_store_id_is_made_once(tmp_path):
    first = Store(tmp_path).store_id
    assert len(first) == 6
    assert Store(tmp_path).store_id == first
    assert Store(tmp_path / "other").store_id != first


def test_a_base_without_rows_can_be_recorded(store, tmp_path):
    store.write_base({"base_key": "b", "status": "failed"}, [], store.base_folder("b"))
    assert store.base("b")["status"] == "failed"
    assert store.base_history("b") == []


@pytest.mark.parametrize("what", ["full", "failing", "partial", "killed"])
def test_a_fault_at_any_write_leaves_the_earlier_record_or_the_new_one(tmp_path, monkeypatch, what):
    """Every flush and rename of a redone cell's record in turn: whoever looks finds one of the two, whole."""
    earlier = {"cell_key": "c1", "status": "done", "summary": {"val_accuracy": 60.0}}
    other = {"cell_key": "c1", "status": "done", "summary": {"val_accuracy": 70.0}}
    other_rows = [{"epoch": 1, "val_accuracy": 70.0}]
    faults = 0
    for k in itertools.count(1):
        store = Store(tmp_path / str(k), lambda line: pytest.fail(line))
        store.write_record(earlier, ROWS)
        writes = itertools.count(1)

        def disturbed(function, k=k, writes=writes):
            def call(target, *arguments):
                if next(writes) != k:
                    return function(target, *arguments)
                if what == "killed":
                    raise KeyboardInterrupt
                if what == "partial" and arguments:
                    os.truncate(target, os.stat(target).st_size // 2)
                raise OSError(errno.EIO if what == "failing" else errno.ENOSPC, "fault")

            return call

        with monkeypatch.context() as patched:
            patched.setattr(files.os, "fsync", disturbed(os.fsync))
            patched.setattr(files.os, "replace", disturbed(os.replace))
            try:
                store.write_record(other, other_rows)
            except (OSError, KeyboardInterrupt):
                faults += 1
            else:
                break
        found = store.record("c1")["summary"]["val_accuracy"]
        assert found in (60.0, 70.0)
        assert store.history("c1")["val_accuracy"].tolist()[-1] == found
        store.write_record(other, other_rows)
        assert store.record("c1")["summary"] == other["summary"]
        assert {p.name for p in store.cell_folder("c1").iterdir()} == {"record.json", "history.parquet"}
    assert faults == 9  # three files: flushed, renamed, and their folder flushed
