"""The tables of a page: heads and lines as the template shows them, with what they sort by and where they lead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.report.method_styles import style_of
from harness.report.tables.columns import COLUMNS, TableColumn
from harness.results.columns import METRICS, ROW, ROW_METHOD

Links = Mapping[tuple[str, ...], list[tuple[str, str, str]]]
"""The seed, address and status of the cells of every line, by its names."""


@dataclass(frozen=True)
class Head:
    """A column of a table on the page."""

    name: str
    heading: str
    short: str
    """The heading below that of its group."""
    group: str
    """The control that it compares with, if any."""
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
    """The text, sort value and style class by column."""
    links: list[tuple[str, str, str]]
    """The seed, address and status of every cell."""


def best_first(lines: list[dict[str, Any]], metric: str, name: str) -> list[dict[str, Any]]:
    """Rows in the plan's order, the methods of each by a column that goes with the metric; the unknown come last.

    The control differs from itself by 0.
    """
    rows = {tuple(line[part] for part in ROW): place for place, line in reversed(list(enumerate(lines)))}
    sign = -1 if METRICS[metric].higher_is_better else 1

    def place(line: dict[str, Any]) -> tuple[int, bool, float]:
        value = 0.0 if name == f"mean_to_{line['method']}" else float(line[name])
        return rows[tuple(line[part] for part in ROW)], math.isnan(value), 0.0 if math.isnan(value) else sign * value

    return sorted(lines, key=place)


def head(name: str) -> Head:
    """The head of a column of `tables.columns.COLUMNS`."""
    column = COLUMNS[name]
    return Head(name, column.heading, column.short, column.control, column.meaning)


def body(line: Mapping[str, Any], names: Sequence[str], links: Links) -> Body:
    """A line of `tables.suite.summary_lines` in the named columns."""
    model, dataset, optimizer, method = key = tuple(str(line[name]) for name in ROW_METHOD)
    style = style_of(method)
    cells = [(COLUMNS[name].text(line), _sort_value(COLUMNS[name], line), _class(name, line)) for name in names]
    return Body(model, dataset, optimizer, method, style.label, style.colour, cells, links.get(key, []))


def _sort_value(column: TableColumn, line: Mapping[str, Any]) -> str:
    """What a cell sorts by: empty for what is not known, which goes last whichever way."""
    value = line[column.value]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value if isinstance(value, str) else f"{float(value):.10g}"


def _class(name: str, line: Mapping[str, Any]) -> str:
    """The style class of a cell: the verdict of a difference that a test of a primary comparison found."""
    if not name.startswith("difference_"):
        return ""
    verdict = line[f"verdict_to_{name.removeprefix('difference_')}"]
    return verdict if verdict in ("better", "worse") else ""


def links_of(frame: pd.DataFrame) -> Links:
    """Where the lines of a frame's rows and methods lead."""
    links: dict[tuple[str, ...], list[tuple[str, str, str]]] = {}
    names = (*ROW_METHOD, "seed", "status", "cell_key")
    for *key, seed, status, cell in zip(*(frame[name] for name in names), strict=True):
        links.setdefault(tuple(map(str, key)), []).append((str(seed), f"cells/{cell}.html", str(status)))
    return links
