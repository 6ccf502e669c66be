"""The tables of a page: heads and lines as the template shows them, with what they sort by and where they lead."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.report.method_styles import style_of
from harness.report.stats.means import CONTROLS
from harness.report.tables.columns import COLUMNS, TableColumn, number
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
    number: bool = True
    """Whether numbers stand below, which are set to the right and sorted from the highest down."""


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


def head(name: str, metric: str) -> Head:
    """The head of a column of `tables.columns.COLUMNS`, with the unit of its numbers."""
    column = COLUMNS[name]
    number = not name.startswith("verdict_")
    return Head(name, column.heading, column.headed(metric), column.control, column.meaning, number)


def told(names: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The names of the columns in which some line has a number or a word."""
    return tuple(name for name in names if any(COLUMNS[name].text(line) != "–" for line in lines))


def body(line: Mapping[str, Any], names: Sequence[str], links: Links) -> Body:
    """A line of `tables.suite.summary_lines` in the named columns."""
    model, dataset, optimizer, method = key = tuple(str(line[name]) for name in ROW_METHOD)
    style = style_of(method)
    cells = [(COLUMNS[name].text(line), _sort_value(COLUMNS[name], line), _class(name, line)) for name in names]
    return Body(model, dataset, optimizer, method, style.label, style.colour, cells, links.get(key, []))


def finding_heads(metric: str) -> list[Head]:
    """The heads of the table of exploratory findings."""
    unit = COLUMNS[f"difference_{CONTROLS[0]}"].headed(metric).removeprefix("Δ ")
    words = "where the unadjusted interval lies"
    return [
        Head("control", "control", "control", "", "what the method is compared with", False),
        Head("difference", "difference", f"difference {unit}", "", "mean over seeds, paired by seed"),
        Head("interval", "95 % interval", f"95 % interval {unit}", "", "of the mean, not adjusted"),
        Head("verdict", "verdict", "verdict", "", words, False),
        Head("pairs", "seeds", "pairs (seeds)", "", "seeds that both have"),
    ]


def finding_bodies(table: pd.DataFrame, metric: str) -> Iterator[Body]:
    """The lines of `stats.headline.findings` below `finding_heads`."""
    digits = METRICS[metric].digits
    for line in table.to_dict("records"):
        mean, low, high = (line[name] for name in ("mean", "low", "high"))
        between = "–" if math.isnan(low) else f"{number(low, digits, '+')} to {number(high, digits, '+')}"
        cells = [
            (line["control"], line["control"], "name"),
            (number(mean, digits, "+"), f"{mean:.10g}", "number"),
            (between, "" if math.isnan(low) else f"{low:.10g}", "number"),
            (line["verdict"], line["verdict"], "name"),
            (str(line["finished"]), str(line["finished"]), "number"),
        ]
        model, dataset, optimizer, method = (str(line[name]) for name in ROW_METHOD)
        style = style_of(method)
        yield Body(model, dataset, optimizer, method, style.label, style.colour, cells, [])


def _sort_value(column: TableColumn, line: Mapping[str, Any]) -> str:
    """What a cell sorts by: empty for what is not known, which goes last whichever way."""
    value = line[column.value]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value if isinstance(value, str) else f"{float(value):.10g}"


def _class(name: str, line: Mapping[str, Any]) -> str:
    """The style class of a cell: of a number, with the verdict of a difference that a test of a primary comparison
    found, or of a word."""
    if name.startswith("verdict_"):
        return "name"
    verdict = line[f"verdict_to_{name.removeprefix('difference_')}"] if name.startswith("difference_") else ""
    return f"number {verdict}" if verdict in ("better", "worse") else "number"


def links_of(frame: pd.DataFrame) -> Links:
    """Where the lines of a frame's rows and methods lead."""
    links: dict[tuple[str, ...], list[tuple[str, str, str]]] = {}
    names = (*ROW_METHOD, "seed", "status", "cell_key")
    for *key, seed, status, cell in zip(*(frame[name] for name in names), strict=True):
        links.setdefault(tuple(map(str, key)), []).append((str(seed), f"cells/{cell}.html", str(status)))
    return links
