"""The report page of a suite: suites/<suite>/report/, a folder that opens from disk and needs nothing else.

`index.html` holds the tables, so it can be read without scripts; `report.js` sorts, filters and draws the curves with
plotly, which lies beside it. A page per cell has its configuration and history. The folder is written beside the old
one and takes its place when it is whole.
"""

from __future__ import annotations

import json
import math
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.report.cellpages import write_cell_pages
from harness.report.columns import COLUMNS, Column
from harness.report.curvedata import COSTS, METRICS, curve_table
from harness.report.gallery import Shown, gather_figures
from harness.report.headline import headline
from harness.report.looks import CMD, FAMILIES, OTHERS, look
from harness.report.printing import COST, NO_TIES, TIES
from harness.report.rendering import Printed
from harness.report.stats import ALL, BESIDE, CONTROLS
from harness.report.summary import Results
from harness.report.tables import CONTROL, Row, caption
from harness.report.tables import METRICS as RANKED
from harness.results.frame import ROW
from harness.storage.store import Store

POINTS = 100
"""most evaluated epochs of a curve on the page; the figures' data have all"""
POINTS_IN_ALL = 40_000
"""of all curves together, so that a page stays below 10 MiB; but FEWEST of each"""
FEWEST = 20
FIRST = 8
"""most curves that are drawn before the reader chooses"""
RESULTS = (
    *("val_accuracy", "test_accuracy", "rank", "difference_base_recalibrated", "p_base_recalibrated"),
    *("effect_base_recalibrated", "wins_base_recalibrated", "difference_time_mean", "p_time_mean", "difference_base"),
)
SPEED = ("area", "reached", "epochs_to_target", "seconds_to_target")
ASSETS = ("report.css", "report.js")


def environment() -> jinja2.Environment:
    """Templates of this package, everything escaped; `runs` are the groups of consecutive heads, with their sizes."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters["runs"] = lambda heads: [
        (group, len(list(own))) for group, own in groupby(heads, key=attrgetter("group"))
    ]
    return templates


@dataclass(frozen=True)
class Head:
    """A column of a table on the page."""

    name: str
    heading: str
    short: str
    """the heading below that of its group"""
    group: str
    """the control that it compares with, if any"""
    meaning: str


@dataclass(frozen=True)
class Body:
    """A line of a table on the page: the method's names, texts with the values that they sort by, links to cells."""

    model: str
    dataset: str
    optimizer: str
    method: str
    label: str
    colour: str
    cells: list[tuple[str, str, str]]
    """text, sort value and class by column"""
    links: list[tuple[str, str, str]]
    """seed, address and status of every cell"""


def write_page(
    store: Store,
    plan: dict[str, Any],
    found: Results,
    history: pd.DataFrame,
    summary: pd.DataFrame,
    warnings: list[str],
    compared: Sequence[Printed] = (),
) -> Path:
    """Write the page of a suite, with a comparison where there is one, and return its index.html."""
    suite_folder = store.suite_folder(plan["suite"])
    folder = suite_folder / "report"
    fresh = suite_folder / f".report-{uuid.uuid4().hex[:8]}.tmp"
    fresh.mkdir(parents=True)
    try:
        templates = environment()
        for name in ASSETS:
            (fresh / name).write_bytes((files("harness.report") / "templates" / name).read_bytes())
        shutil.copyfile(str(files("plotly") / "package_data" / "plotly.min.js"), fresh / "plotly.min.js")
        figures = gather_figures(suite_folder / "figures", fresh / "figures")
        data = json.dumps(curve_data(found.frame, history), separators=(",", ":"))
        (fresh / "curves.js").write_text(f"window.CURVES = {data};\n")
        context = _context(store, plan, found, summary, warnings, figures) | {"compared": compared}
        (fresh / "index.html").write_text(templates.get_template("index.html").render(context))
        write_cell_pages(store, plan, found.frame, history, templates, fresh / "cells")
        _replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder / "index.html"


def _replace(fresh: Path, folder: Path) -> None:
    """Put a whole folder in the place of another; a page that is open loses nothing but for an instant."""
    aside = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}.old")
    if folder.exists():
        folder.rename(aside)
    fresh.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)


def _context(
    store: Store,
    plan: dict[str, Any],
    found: Results,
    summary: pd.DataFrame,
    warnings: list[str],
    figures: list[Shown],
) -> dict[str, Any]:
    frame = found.frame
    counts = Counter(frame["status"])
    lines = [{**{str(k): v for k, v in line.items()}, "ranked_by": found.metric} for line in summary.to_dict("records")]
    links = _links(frame)
    choices = {name: list(dict.fromkeys(map(str, frame[name]))) for name in ROW}
    of_rows = _best_first([line for line in lines if line["model"] != ALL], found.metric, f"{found.metric}_mean")
    over_all = _best_first([line for line in lines if line["model"] == ALL], found.metric, f"mean_to_{CONTROL}")
    return {
        "suite": plan["suite"],
        "command": plan["command"],
        "planned": plan["created"],
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "counts": [(status, counts[status]) for status in ("done", "failed", "diverged", "skipped", "left")],
        "cells": len(frame),
        "left": counts["left"],
        "headline": headline(found),
        "caption": caption(found.metric),
        "tested": TIES if any(ranking.ranks for ranking in found.ranked.values()) else NO_TIES,
        "facts": [*_facts(frame), ("machine", "; ".join(_machines(store, frame)) or "not recorded")],
        "versions": list(_versions(frame)),
        "choices": choices,
        # What all lines have in common is said once, below.
        "names": [name for name in ROW if name == "model" or len(choices[name]) > 1],
        "heads": [_head(name) for name in RESULTS],
        "lines": [_body(line, RESULTS, links) for line in of_rows],
        "overall_heads": [_head(name) for name in RESULTS[2:]],
        "overall": [_body(line, RESULTS[2:], {}) for line in over_all],
        "cost_heads": [_head(name) for name in (*COST, *SPEED)],
        "cost_lines": [_body(line, (*COST, *SPEED), {}) for line in of_rows],
        "target": "what the recalibrated base ends with" if found.target is None else f"{found.target:g} %",
        "metrics": METRICS,
        "costs": COSTS,
        "figures": figures,
        "warnings": warnings,
        "failures": list(_failures(store, frame)),
    }


def _best_first(lines: list[dict[str, Any]], metric: str, name: str) -> list[dict[str, Any]]:
    """Rows in the plan's order, the methods of each by a column that goes with the metric; the unknown come last.

    The control differs from itself by 0.
    """
    rows = {tuple(line[part] for part in ROW): place for place, line in reversed(list(enumerate(lines)))}
    sign = -1 if RANKED[metric].higher_is_better else 1

    def place(line: dict[str, Any]) -> tuple[int, bool, float]:
        value = 0.0 if name == f"mean_to_{line['method']}" else float(line[name])
        return rows[tuple(line[part] for part in ROW)], math.isnan(value), 0.0 if math.isnan(value) else sign * value

    return sorted(lines, key=place)


def _head(name: str) -> Head:
    column = COLUMNS[name]
    return Head(name, column.heading, column.short, column.control, column.meaning)


def _body(
    line: dict[str, Any], names: tuple[str, ...], links: dict[tuple[str, ...], list[tuple[str, str, str]]]
) -> Body:
    model, dataset, optimizer, method = key = tuple(str(line[name]) for name in (*ROW, "method"))
    looks = look(method)
    cells = [(COLUMNS[name].text(line), _sort_value(COLUMNS[name], line), _class(name, line)) for name in names]
    return Body(model, dataset, optimizer, method, looks.label, looks.colour, cells, links.get(key, []))


def _sort_value(column: Column, line: dict[str, Any]) -> str:
    """What a cell sorts by: empty for what is not known, which goes last whichever way."""
    value = line[column.value]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{float(value):.10g}"


def _class(name: str, line: dict[str, Any]) -> str:
    if not name.startswith("difference_"):
        return ""
    verdict = line[f"verdict_to_{name.removeprefix('difference_')}"]
    return verdict if verdict in ("better", "worse") else ""


def _links(frame: pd.DataFrame) -> dict[tuple[str, ...], list[tuple[str, str, str]]]:
    links: dict[tuple[str, ...], list[tuple[str, str, str]]] = {}
    for *key, seed, status, cell in zip(
        *(frame[name] for name in (*ROW, "method", "seed", "status", "cell_key")), strict=True
    ):
        links.setdefault(tuple(map(str, key)), []).append((str(seed), f"cells/{cell}.html", str(status)))
    return links


def _facts(frame: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """What was run, as names and values."""
    for name, title in (("model", "models"), ("dataset", "data sets"), ("optimizer", "optimizers"), ("seed", "seeds")):
        yield title, ", ".join(map(str, dict.fromkeys(frame[name])))
    yield "methods", ", ".join(dict.fromkeys(frame["method"]))
    epochs = frame.loc[(frame["method"] == "base") & frame["epochs"].notna(), "epochs"]
    if len(epochs):
        yield "epochs", ", ".join(f"{value:.0f}" for value in dict.fromkeys(epochs))
    yield "device", ", ".join(dict.fromkeys(frame["device"].dropna())) or "none yet"
    seconds = (
        frame.drop_duplicates("base_key")["train_seconds"].sum() + frame[["method_seconds", "eval_seconds"]].sum().sum()
    )
    yield "seconds spent", f"{seconds:,.0f} in training bases, methods and evaluation"


def _machines(store: Store, frame: pd.DataFrame) -> list[str]:
    """Of one finished cell of every base, what it ran on."""
    found: dict[str, None] = {}
    for key in frame[frame["status"] == "done"].drop_duplicates("base_key")["cell_key"]:
        record = store.record(key)
        machine = record.get("machine") if record is not None else None
        if machine:
            found[", ".join(f"{name} {value}" for name, value in machine.items())] = None
    return list(found)


def _versions(frame: pd.DataFrame) -> Iterator[tuple[str, str]]:
    found: dict[str, dict[str, None]] = {}
    for text in frame["versions"].dropna().unique():
        for name, version in json.loads(text).items():
            found.setdefault(name, {})[version] = None
    yield from ((name, ", ".join(values)) for name, values in found.items())


def _failures(store: Store, frame: pd.DataFrame) -> Iterator[dict[str, str]]:
    """Cells that did not end well, with their reasons."""
    for cell in frame[frame["status"].isin(["failed", "diverged", "skipped"])].to_dict("records"):
        record = store.record(cell["cell_key"])
        reason = (record or {}).get("reason") or ""
        yield {**{str(k): str(v) for k, v in cell.items()}, "reason": reason}


def curve_data(frame: pd.DataFrame, history: pd.DataFrame) -> dict[str, Any]:
    """What the page draws: rows, each with its methods' looks and rounded columns of `curve_table`, and the methods to
    draw at first; `thinned` is the number of epochs that longer curves are drawn at."""
    table = curve_table(frame, history)
    names = ["epoch", "n", "seconds", "gradients", *(f"{m}_{part}" for m in METRICS for part in ("mean", "std"))]
    columns = {name: table[name].to_numpy(dtype=np.float64) for name in names}
    rows: dict[Row, list[dict[str, Any]]] = {}
    indices: dict[Any, Any] = table.groupby([*ROW, "method"], sort=False).indices
    most = max(FEWEST, min(POINTS, POINTS_IN_ALL // max(len(indices), 1)))
    for key, places in indices.items():
        model, dataset, optimizer, method = map(str, key)
        looks = look(method)
        kept = places[np.unique(np.linspace(0, len(places) - 1, min(len(places), most)).round().astype(int))]
        values = {name: _rounded(column[kept]) for name, column in columns.items() if np.isfinite(column[kept]).any()}
        drawn = {n: getattr(looks, n) for n in ("label", "family", "colour", "dash", "marker")}
        rows.setdefault((model, dataset, optimizer), []).append({"method": method, **drawn, "values": values})
    for methods in rows.values():
        methods.sort(key=lambda entry: FAMILIES.index(entry["family"]))
    curves = [{"row": list(row), "methods": methods} for row, methods in rows.items()]
    thinned = most if any(len(places) > most for places in indices.values()) else None
    return {"rows": curves, "first": shown_first(table), "thinned": thinned}


def shown_first(table: pd.DataFrame) -> list[str]:
    """The methods whose curves can be told apart together: all where they are few, otherwise the controls, those of
    the reader's own, CMD's, and the best of the others by validation accuracy at the last epoch, over all rows."""
    methods = list(dict.fromkeys(map(str, table["method"])))
    if len(methods) <= FIRST:
        return methods
    last = table.drop_duplicates([*ROW, "method"], keep="last").groupby("method")["val_accuracy_mean"].mean()
    best = sorted(methods, key=lambda method: -last.fillna(-math.inf)[method])
    families = {method: look(method).family for method in methods}
    groups = (
        [method for method in CONTROLS if method in methods],
        [method for method in best if families[method] == OTHERS],
        [method for method in best if families[method] == CMD],
        [method for method in best if families[method] not in (OTHERS, CMD) and method not in (*CONTROLS, BESIDE)],
    )
    return list(dict.fromkeys(chain.from_iterable(groups)))[:FIRST]


def _rounded(values: NDArray[np.float64]) -> list[float | int | None]:
    """Five significant digits, None for what is not known."""
    found: list[float | int | None] = []
    for value in values.tolist():
        if not math.isfinite(value):
            found.append(None)
        else:
            short = float(f"{value:.5g}")
            found.append(int(short) if short.is_integer() else short)
    return found
