"""The figures of CMD in suites/<suite>/figures/, one set per model, dataset and optimizer of the last plan.

What a set shows is post-hoc CMD of one base over its whole run, with the parameters of a cell of the plan. Each
figure is a PNG, a PDF and the CSV it was drawn from; `<model>-<dataset>-<optimizer>.json` says of which cell they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.results.frame import ROW, read_plan
from harness.storage.files import CorruptFile, replacing, write_json
from harness.storage.store import Record, Store
from harness.storage.trajectory import StoredTrajectory, stored_ts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from harness.method import Layout
    from harness.report.decomposition import Tables

FIGURES = ("correlation", "layers", "rho", "weights", "errors")
TABLES = (*FIGURES, "sample")
LANDSCAPE = "landscape"


def draw_figures(store: Store, suite: str) -> Iterator[str]:
    """Draw what stored snapshots allow, and say of each set what it shows or why it is not drawn, one line each.

    Figures of cells that the plan no longer has are removed; those of snapshots that are gone since stay.
    """
    folder = store.suite_folder(suite) / "figures"
    cells = decomposed(read_plan(store.root, suite))
    _remove_outdated(folder, {cell["cell_key"] for cell in cells})
    for row, record in chosen(store, cells):
        title = f"figures: {' '.join(row)}:"
        if isinstance(record, str):
            yield f"{title} not drawn, {record}"
            continue
        try:
            yield f"{title} {_draw(store, record, folder)}"
        except (CorruptFile, ValueError) as error:
            yield f"{title} not drawn, {error}"


def decomposed(plan: Record) -> list[dict[str, Any]]:
    """The cells of a plan that have CMD's modes and samples."""
    return [cell for cell in plan["cells"] if {"modes", "samples"} <= set(cell["parameters"])]


def chosen(store: Store, cells: list[dict[str, Any]]) -> Iterator[tuple[tuple[str, ...], Record | str]]:
    """Per model, dataset and optimizer the record of the cell that figures show, or why there is none.

    Of the cells that are done, one that sees the whole run before one with a warm-up, then the lowest seed with all
    its snapshots.
    """
    by_row = itemgetter(*ROW)
    for row, of_row in groupby(sorted(cells, key=by_row), key=by_row):
        ordered = sorted(of_row, key=lambda cell: ("warmup" in cell["parameters"], cell["seed"]))
        records = [record for cell in ordered if (record := _finished(store, cell["cell_key"])) is not None]
        record = next((record for record in records if _has_snapshots(store, record)), None)
        reason = "the base's snapshots are gone; trajectory.keep=all keeps them" if records else "no cell is done"
        yield row, reason if record is None else record


def _finished(store: Store, cell_key: str) -> Record | None:
    record = store.record(cell_key)
    return record if record is not None and record["status"] == "done" else None


def _window(record: Record) -> tuple[int, int]:
    """First and last epoch that the figures show."""
    parameters = record["parameters"]
    first = 0 if parameters.get("include_initial", False) else parameters.get("first", 1)
    return first, record["config"]["base"]["epochs"]


def _trajectory_folder(store: Store, record: Record) -> Path:
    return store.base_folder(record["base_key"]) / "trajectory"


def _has_snapshots(store: Store, record: Record) -> bool:
    first, last = _window(record)
    return set(range(first, last + 1)) <= set(stored_ts(_trajectory_folder(store, record)))


def stored_window(store: Store, record: Record) -> StoredTrajectory:
    """The snapshots that the figures of a record show."""
    import torch

    return StoredTrajectory(_trajectory_folder(store, record), torch.device("cpu"), *_window(record))


def layout_of(record: Record) -> Layout:
    """The layout of the base's weights, from a model without any."""
    import torch

    from harness.problem.models import build_model
    from harness.results.load_model import base_from_record
    from harness.training.flat_model import FlatModel

    base = base_from_record(record)
    with torch.device("meta"):
        return FlatModel(build_model(replace(base.model, pretrained=False), base.dataset, base.seed)).layout


def _draw(store: Store, record: Record, folder: Path) -> str:
    """Write one set, and say what it shows."""
    from harness.report.decomposition import decompose

    first, last = _window(record)
    modes, samples = record["parameters"]["modes"], record["parameters"]["samples"]
    tables = decompose(stored_window(store, record), layout_of(record), modes, samples, record["seed"])
    stem = "-".join(record[name] for name in ROW)
    _save(tables, record, folder, stem)
    found = tables.sample["mode"].nunique()
    origin = {name: record[name] for name in ("cell_key", "base_key", *ROW, "seed", "method")}
    shown = {"modes": found, "samples": len(tables.sample), "first_epoch": first, "last_epoch": last}
    write_json(folder / f"{stem}.json", {**origin, **shown})
    sampled = f"{found} modes of {len(tables.sample)} sampled weights"
    return f"seed {record['seed']}, epochs {first}..{last}, {sampled}{_difference(store, record, tables)}"


def _difference(store: Store, record: Record, tables: Tables) -> str:
    """What sets the modes drawn apart from those of the cell's own table, if anything does."""
    if "warmup" in record["parameters"]:
        return f"; {record['method']} has those of its warm-up"
    try:
        own = pd.read_parquet(store.cell_folder(record["cell_key"]) / "tables" / "modes.parquet")
    except OSError:
        return ""
    if own["reference"].tolist() == tables.sample.loc[tables.sample["reference"], "weight"].tolist():
        return ""
    return f"; {record['method']} has others, from other sources or another device: redo={record['method']} fits anew"


def _save(tables: Tables, record: Record, folder: Path, stem: str) -> None:
    """Figures and tables of one set, each file whole or not at all."""
    import matplotlib as mpl

    from harness.report.drawing import STYLE, draw_correlation, draw_errors, draw_layers, draw_rho, draw_weights

    for name in TABLES:
        table = getattr(tables, name)
        with replacing(folder / f"{stem}-{name}.csv") as temporary:
            table.to_csv(temporary, index=name == "correlation", float_format="%.9g")
    title = f"{', '.join(record[name] for name in ROW)}, seed {record['seed']}"
    with mpl.rc_context(STYLE):
        figures = {
            "correlation": draw_correlation(tables.correlation, tables.sample, title),
            "layers": draw_layers(tables.layers, title),
            "rho": draw_rho(tables.rho, title),
            "weights": draw_weights(tables.weights, record["optimizer"], title),
            "errors": draw_errors(tables.errors, title),
        }
        for name, figure in figures.items():
            write_figure(figure, folder / f"{stem}-{name}", f"cell {record['cell_key']}")


def write_figure(figure: Figure, path: Path, origin: str) -> None:
    """As PNG and PDF, with no date in them, so that one table gives one file."""
    metadata: dict[str, dict[str, Any]] = {
        "png": {"Description": origin, "Software": None},
        "pdf": {"Subject": origin, "CreationDate": None},
    }
    for kind, values in metadata.items():
        with replacing(path.with_name(f"{path.name}.{kind}")) as temporary:
            figure.savefig(temporary, format=kind, metadata=values)


def _remove_outdated(folder: Path, cell_keys: set[str]) -> None:
    """Delete the sets and landscapes whose cell is not one of these."""
    for origin in folder.glob("*.json"):
        if json.loads(origin.read_bytes())["cell_key"] not in cell_keys:
            for name in TABLES:
                for kind in ("csv", "png", "pdf"):
                    (folder / f"{origin.stem}-{name}.{kind}").unlink(missing_ok=True)
            origin.unlink()
    for points in folder.glob(f"*-{LANDSCAPE}.csv"):
        if not set(pd.read_csv(points)["cell_key"]) <= cell_keys:
            for kind in ("csv", "png", "pdf"):
                points.with_suffix(f".{kind}").unlink(missing_ok=True)
