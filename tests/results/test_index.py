"""The index of a results folder: readable names beside the hex digits that folders have."""

import pandas as pd
from frames import cells, write_suite

from harness.report.views import write_views
from harness.results.index import COLUMNS, INDEX
from harness.storage.store import Store


def test_every_cell_is_a_line_with_its_views_and_folders(tmp_path):
    store = Store(tmp_path)
    write_suite(store, [cells("base", [80.0, 81.0]), cells("swa", [82.0, "left"])])
    write_views(store, "quick")
    write_suite(store, [cells("swa", [82.0])], suite="mine")
    write_suite(store, [cells("ema", [79.0])], suite="gone")
    (store.suite_folder("gone") / "plan.json").unlink()
    write_views(store, "mine")
    index = pd.read_csv(tmp_path / INDEX, dtype="str", keep_default_na=False)
    assert tuple(index.columns) == COLUMNS
    found = index[["method", "seed", "status", "views"]].to_numpy().tolist()
    assert found == [
        ["base", "0", "done", "quick"],
        ["ema", "0", "done", ""],  # of no view, as its record says
        ["swa", "0", "done", "mine quick"],
        ["base", "1", "done", "quick"],
        ["swa", "1", "left", "quick"],
    ]
    first = index.iloc[0]
    assert (first["model"], first["dataset"], first["optimizer"]) == ("net", "digits", "sgd")
    assert (tmp_path / first["cell_folder"] / "record.json").is_file()
    assert first["base_folder"] == f"bases/{first['base_key']}"


def test_it_is_written_with_the_views_and_not_without(tmp_path):
    store = Store(tmp_path)
    write_suite(store, [cells("base", [80.0])])
    write_views(store, "quick")
    before = (tmp_path / INDEX).stat().st_mtime_ns
    write_views(store, "quick")
    assert (tmp_path / INDEX).stat().st_mtime_ns == before
    (tmp_path / INDEX).unlink()
    write_views(store, "quick")
    assert (tmp_path / INDEX).is_file()
