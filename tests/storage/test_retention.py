"""Which snapshots stay, by `trajectory.keep` and by the last plans of all suites."""

import pytest
import torch

from harness.method import Snapshot
from harness.storage.retention import Retention, kept_ts, prune
from harness.storage.store import Store
from harness.storage.trajectory import stored_ts, write_snapshot


@pytest.mark.parametrize(("keep", "expected"), [("all", {0, 1, 2, 3, 4}), ("warmup", {0, 1, 2}), ("none", set())])
def test_what_a_plan_keeps(keep, expected):
    assert kept_ts(keep, epochs=4, warmup=2) == expected


@pytest.fixture
def store(tmp_path):
    """A base with snapshots of epochs 0 to 4, whose one cell is done."""
    store = Store(tmp_path)
    for t in range(5):
        write_snapshot(store.base_folder("base") / "trajectory", Snapshot(t, t, torch.zeros(1), {}))
    store.write_record({"cell_key": "cell", "status": "done"}, [])
    return store


def plan(store, suite, *keeps, cells=("cell",)):
    bases = [{"base_key": "base", "keeps": list(keeps)}]
    store.write_plan({"suite": suite, "bases": bases, "cells": [{"cell_key": c, "base_key": "base"} for c in cells]})


def left(store):
    prune(store, "base", ())
    return stored_ts(store.base_folder("base") / "trajectory")


def test_what_any_plan_keeps_stays(store):
    plan(store, "one", 0, 1)
    plan(store, "two", 1, 4)
    assert Retention(store).unneeded("base") == [2, 3]
    assert left(store) == (0, 1, 4)


def test_nothing_goes_while_a_cell_has_no_whole_record(store):
    plan(store, "one", 0, cells=("cell", "open"))
    assert left(store) == (0, 1, 2, 3, 4)
    store.write_record({"cell_key": "open", "status": "failed"}, [])
    path = store.cell_folder("open") / "record.json"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"failed", b"done"))
    assert left(store) == (0, 1, 2, 3, 4)
    path.write_bytes(whole)
    assert left(store) == (0,)


def test_nothing_goes_while_a_plan_is_damaged(store):
    plan(store, "one", 0)
    (store.suite_folder("two")).mkdir()
    (store.suite_folder("two") / "plan.json").write_text("{")
    assert left(store) == (0, 1, 2, 3, 4)


def test_nothing_goes_while_another_process_works_at_the_base(store):
    plan(store, "one", 0)
    with store.leases.take("bases-base"):
        assert left(store) == (0, 1, 2, 3, 4)
