"""A damaged file is set aside with one line when it is needed, and only what depended on it is done again."""

import shutil

import pandas as pd
import pytest
import torch
from command import (
    LATEST,
    OWN,
    assert_same,
    base_folder,
    cell_folder,
    curves,
    here,
    numbers,
    state,
)
from safetensors.torch import load

from harness import load_frame

RUN = ("run", "suite=smoke", "save=final", "tracker=none", "trajectory.bundle_seconds=0")


def flip(path):
    """One bit in the middle is another."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    """The second half is gone."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def said(done):
    """The lines on files set aside."""
    return [line for line in done.stdout.splitlines() if "set aside" in line]


def records(results):
    return state(results, "cells/*/record.json", "cells/*/history.parquet")


def assert_only(results, before, *folders):
    """No cell's record was written but those in `folders`."""
    names = {folder.name for folder in folders}
    now = records(results)
    assert {p: m for p, m in now.items() if p.split("/")[1] not in names} == {
        p: m for p, m in before.items() if p.split("/")[1] not in names
    }


@pytest.mark.parametrize(
    ("name", "damage"),
    [pytest.param("record.json", truncate, marks=pytest.mark.long), ("record.json", flip), ("history.parquet", flip)],
)
def test_a_cells_record(smoke, smoke_copy, name, damage):
    folder = cell_folder(smoke_copy, "smoke", "lawa")
    before = records(smoke_copy)
    damage(folder / name)
    done = here(*RUN, results=smoke_copy)
    (line,) = said(done)
    assert str(folder / name) in line
    assert list(folder.glob(f"{name}.corrupt-*"))
    assert_only(smoke_copy, before, folder)
    assert_same(numbers(smoke.results, "smoke"), numbers(smoke_copy, "smoke"))
    assert_same(curves(smoke.results, "smoke"), curves(smoke_copy, "smoke"))


@pytest.mark.parametrize(("method", "damage"), [("swa", flip), ("cmd_posthoc", truncate)])
def test_a_snapshot_that_is_needed(smoke, smoke_copy, method, damage):
    """Its base is run again in a shadow, and the snapshot is whole afterwards."""
    folder = cell_folder(smoke_copy, "smoke", method)
    snapshot = base_folder(smoke_copy, "smoke") / "trajectory/00003.safetensors"
    whole = load(snapshot.read_bytes())
    before = records(smoke_copy)
    (folder / "record.json").unlink()
    damage(snapshot)
    done = here(*RUN, results=smoke_copy)
    (line,) = said(done)
    assert str(snapshot) in line
    again = load(snapshot.read_bytes())
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    assert_only(smoke_copy, before, folder)
    assert_same(numbers(smoke.results, "smoke"), numbers(smoke_copy, "smoke"))
    assert_same(curves(smoke.results, "smoke"), curves(smoke_copy, "smoke"))


def test_the_bundle_of_a_half_trained_base(smoke, interrupted, tmp_path):
    """It starts from the beginning, and ends where it would have."""
    results = shutil.copytree(interrupted.half, tmp_path / "results")
    bundles = list(results.glob("bases/*/restart/latest.safetensors"))
    assert len(bundles) >= 1
    for bundle in bundles:
        flip(bundle)
    done = here(*RUN, results=results)
    assert len(said(done)) == len(bundles)
    assert all(any(str(bundle) in line for line in said(done)) for bundle in bundles)
    assert_same(numbers(smoke.results, "smoke"), numbers(results, "smoke"))
    assert_same(curves(smoke.results, "smoke"), curves(results, "smoke"))


def test_the_record_of_a_base(smoke, smoke_copy):
    """Read when a cell is to be done: the base is trained again, its other cells are not."""
    folder = cell_folder(smoke_copy, "smoke", "ema")
    before = records(smoke_copy)
    (folder / "record.json").unlink()
    base = base_folder(smoke_copy, "smoke") / "base.json"
    truncate(base)
    done = here(*RUN, results=smoke_copy)
    (line,) = said(done)
    assert str(base) in line
    assert_only(smoke_copy, before, folder)
    assert_same(numbers(smoke.results, "smoke"), numbers(smoke_copy, "smoke"))


@pytest.fixture(scope="module")
def branched(tmp_path_factory):
    """A brancher that starts at epoch 2 of 4, undisturbed."""
    results = tmp_path_factory.mktemp("branched") / "results"
    here(*LATE, results=results)
    return results


LATE = (
    "run",
    "dataset=digits",
    "epochs=4",
    "batches_per_epoch=2",
    "tracker=none",
    "method=[base,base_recalibrated,late]",
    f"--config-dir={OWN}",
)


@pytest.mark.parametrize("lost", [flip, lambda path: path.unlink()], ids=["flip", "unlink"])
def test_a_restart_state(branched, tmp_path, lost):
    """The base is run again up to the start, from epoch 0, which its seed gives."""
    results = shutil.copytree(branched, tmp_path / "results")
    folder, base = cell_folder(results, LATEST, "late"), base_folder(results, LATEST)
    restart = base / "restart/00002.safetensors"
    before = records(results)
    (folder / "record.json").unlink()
    lost(restart)
    done = here(*LATE, results=results)
    assert len(said(done)) == (1 if lost is flip else 0)
    assert "from epoch 0 to 2" in done.stdout
    assert restart.is_file()
    assert_only(results, before, folder)
    assert_same(numbers(branched, LATEST), numbers(results, LATEST))
    assert_same(curves(branched, LATEST), curves(results, LATEST))


def test_damaged_views_are_built_anew(smoke, smoke_copy):
    """A frame is a view of the records."""
    path = smoke_copy / "suites/smoke/frame.parquet"
    expected = pd.read_parquet(path)
    truncate(path)
    pd.testing.assert_frame_equal(load_frame(smoke_copy, "smoke"), expected)
