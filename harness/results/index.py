"""`index.csv` of a results folder: what lies in its folders of hex digits, in names that people read.

A line per cell of every view and per other cell that has a record: model, data set, optimizer, seed, method and its
parameters, status, the views that show it, its keys, and its folders below the results folder.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from harness.results.columns import ROW
from harness.storage.checked import read_as, read_plan_file
from harness.storage.files import CorruptFile, no_formula, read_bytes, read_json, write_bytes
from harness.storage.inside import folders, is_file
from harness.storage.parquet import MOST_HISTORY_BYTES, check_parquet
from harness.storage.paths import plan_files
from harness.storage.store import Store

INDEX = "index.csv"
NAMES = ("model", "dataset", "optimizer", "seed", "method", "parameters")
KEYS = ("base_key", "cell_key")
COLUMNS = (*NAMES, "status", "views", *KEYS, "base_folder", "cell_folder")


def is_current(store: Store) -> bool:
    """Whether the index is younger than every view, and than the folder that they lie in."""
    try:
        made = (store.root / INDEX).stat().st_mtime_ns
        plans = plan_files(store.root)
        files = [*plans, *filter(is_file, (plan.with_name("frame.parquet") for plan in plans))]
        return all(path.stat().st_mtime_ns <= made for path in (*files, store.root / "suites"))
    except FileNotFoundError:
        return False


def write_index(store: Store) -> None:
    """Write the index of all views and of cells that none shows."""
    cells: dict[str, dict[str, Any]] = {}
    for folder in _views(store):
        statuses = _statuses(folder)
        for cell in _planned(folder):
            key = cell["cell_key"]
            line = cells.setdefault(key, {**cell, "views": []})
            line["views"].append(folder.name)
            line["status"] = statuses.get(key, line.get("status", "left"))
    for folder in folders(store.root / "cells"):
        if folder.name not in cells:
            cells |= _recorded(folder / "record.json")
    ordered = sorted(cells.values(), key=lambda line: [line[name] for name in (*ROW, "seed", "method")])
    text = io.StringIO()
    lines = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    lines.writeheader()
    for line in ordered:
        lie = {f"{what}_folder": f"{what}s/{line[f'{what}_key']}" for what in ("base", "cell")}
        parameters = json.dumps(line["parameters"], sort_keys=True)
        whole = {**line, **lie, "parameters": parameters, "views": " ".join(sorted(line["views"]))}
        lines.writerow({name: no_formula(value) for name, value in whole.items()})
    write_bytes(store.root / INDEX, text.getvalue().encode())


def _views(store: Store) -> list[Path]:
    """The folders of all views, those whose frames are the latest last, since what they say of a cell is newer."""

    def made(folder: Path) -> int:
        frame = folder / "frame.parquet"
        return frame.stat().st_mtime_ns if is_file(frame) else 0

    return sorted((path.parent for path in plan_files(store.root)), key=made)


def _planned(folder: Path) -> Iterator[dict[str, Any]]:
    """The cells of a view's plan; none where it cannot be read."""
    try:
        for cell in read_plan_file(folder / "plan.json")["cells"]:
            yield {name: cell[name] for name in (*NAMES, *KEYS)}
    except (OSError, CorruptFile):
        return


def _statuses(folder: Path) -> dict[str, str]:
    """By cell what the frame of a view says of it."""
    try:
        file = check_parquet(read_bytes(folder / "frame.parquet", MOST_HISTORY_BYTES))
        table = file.read(columns=["cell_key", "status"]).cast(
            pa.schema([(n, "string") for n in ("cell_key", "status")])
        )
    except (OSError, ValueError, pa.ArrowException):
        return {}
    return dict(zip(table["cell_key"].to_pylist(), table["status"].to_pylist(), strict=True))


def _recorded(path: Path) -> dict[str, dict[str, Any]]:
    """A cell that no view shows by its key, as its record names it; nothing where that cannot be read."""
    try:
        record = read_as("CellRecord", read_json(path))
        return {path.parent.name: {**{name: record[name] for name in (*NAMES, *KEYS, "status")}, "views": []}}
    except (OSError, CorruptFile):
        return {}
