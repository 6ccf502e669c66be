"""What a real job stores after an epoch: as much after many epochs as after few, as often as asked, for any end."""

import pandas as pd
import pytest
from fake_work import Ran, plan_of

from harness.causes import Interrupted
from harness.running.jobs import bundle
from harness.storage.tensors import read_state, write_state

SHORT = ("batches_per_epoch=1", "method=[base,base_recalibrated,swa,ema,lookahead]")


@pytest.fixture
def written(monkeypatch):
    """For every bundle its epoch, and the bytes of it and of the rows beside it when it was written."""
    sizes = []

    def write(path, state):
        write_state(path, state)
        sizes.append((state["trainer"]["t"], path.stat().st_size, path.with_suffix(".jsonl").stat().st_size))

    monkeypatch.setattr(bundle, "write_state", write)
    return sizes


def test_an_epoch_writes_as_much_late_as_early(tmp_path, written):
    """Rows of 30 epochs of a base, observers and a branch: only texts of numbers differ in their length."""
    asked = ("batches_per_epoch=1", "method=[base,base_recalibrated,ema,lookahead]", "epochs=30")
    Ran(plan_of(tmp_path, *asked, "trajectory.bundle_seconds=0"))
    (first, last) = (written[:30], written[30:])
    assert [t for t, *_ in first] == [t for t, *_ in last] == [*range(1, 31)]
    for part in (first, last):
        states, rows = ([sizes[place] for sizes in part] for place in (1, 2))
        added = [after - before for before, after in zip([0, *rows], rows, strict=False)]
        assert max(states[20:]) < 1.01 * max(states[:10])
        # the first row of a branch's bundle has those of its prefix with it, the last one the test split's metrics
        assert max(added[20:-1]) < 1.2 * max(added[1:11])


def test_without_time_for_more_there_is_one_at_the_end(tmp_path, written):
    ran = Ran(plan_of(tmp_path, *SHORT, "epochs=6", "trajectory.bundle_seconds=1000"))
    assert [t for t, *_ in written] == [6, 6]
    assert {record["status"] for _, cell in ran.plan.cells if (record := ran.plan.store.record(cell.key))} == {"done"}
    assert not list(tmp_path.rglob("latest.*"))


@pytest.mark.parametrize("kind", ["bases", "cells"])
def test_a_bundle_of_an_earlier_version_is_gone_on_from(tmp_path, monkeypatch, kind):
    """It holds all rows itself, those of cells within what they have stored."""
    asked = (*SHORT, "epochs=5", "trajectory.bundle_seconds=0")
    whole, again = Ran(plan_of(tmp_path / "whole", *asked)), plan_of(tmp_path / "again", *asked)
    write = bundle.Bundle.write

    def write_earlier(self, state, lists):
        if ("audience" in state) is (kind == "cells"):
            write(self, state, lists)
            return
        if kind == "bases":
            cells = {key: {**saved, "rows": lists[f"cell/{key}"]} for key, saved in state["audience"].items()}
            state = {**state, "audience": cells, "digests": lists["digests"]}
        write_state(self.path, {**state, "rows": lists["rows"]})
        if state["trainer"]["t"] == 3:
            raise Interrupted(130)

    with monkeypatch.context() as patched:
        patched.setattr(bundle.Bundle, "write", write_earlier)
        with pytest.raises(Interrupted):
            Ran(again)
    (left,) = again.store.root.glob(f"{kind}/*/restart/latest.safetensors")
    assert len(read_state(left)["rows"]) == 3
    ran = Ran(plan_of(tmp_path / "again", *asked))
    for method in ("base", "swa", "ema", "lookahead"):
        assert ran.record(method)["summary"] == whole.record(method)["summary"]
        ours, theirs = (one.plan.store.history(one.record(method)["cell_key"]) for one in (ran, whole))
        clocks = [name for name in ours if name.endswith("_seconds")]
        pd.testing.assert_frame_equal(ours.drop(columns=clocks), theirs.drop(columns=clocks))
