"""The figures of federations: accuracy against bytes, what of the weights is moved in each round, and the clients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.report.figures.shown import mark_shown, only_shown
from harness.report.figures.style import COLOURS, WIDE, WIDTH, Labels, entitle, fitted, height_of, legend_below
from harness.report.figures.ticks import FittingLocator, label_ticks
from harness.report.method_styles import style_of
from harness.report.stats.means import Row, of_row
from harness.report.stats.summary import Results

CLIENTS = ("client", "images", "accuracy")
"""the columns of the table `clients` before those of classes"""
CLASS = "class_"
"""what the names of these begin with"""


def _means(found: Results, row: Row, column: str) -> pd.DataFrame:
    """Means over seeds by method and round: method, epoch, value, and bytes (up and down, in MB so far)."""
    cells = of_row(found.frame[found.frame["status"] == "done"], row)
    cells = cells[cells["federation"] != "none"][["cell_key", "method"]]
    if cells.empty or not {column, "upload_bytes", "download_bytes"} <= set(found.history.columns):
        return pd.DataFrame(columns=["method", "epoch", "value", "bytes"])
    rows = found.history[["cell_key", "epoch", column, "upload_bytes", "download_bytes"]].merge(
        cells.astype("str"), on="cell_key"
    )
    rows = rows[rows[column].notna()]
    rows = rows.assign(value=rows[column], bytes=(rows["upload_bytes"] + rows["download_bytes"]) / 1e6)
    return rows.groupby(["method", "epoch"], sort=False)[["value", "bytes"]].mean().reset_index()


def bytes_data(found: Results, row: Row) -> pd.DataFrame:
    """Validation accuracy and bytes by method and round, means over seeds; empty without a federation."""
    table = _means(found, row, "val_accuracy")
    return mark_shown(table, found, row) if len(table) else table


def transmitted_data(found: Results, row: Row) -> pd.DataFrame:
    """What of federated averaging's bytes is moved, by method and round; empty without a federation."""
    table = _means(found, row, "transmitted_fraction")
    return mark_shown(table, found, row) if len(table) else table


def draw_bytes(table: pd.DataFrame, labels: Labels) -> Figure:
    """Validation accuracy against the bytes of all clients so far, on a logarithmic axis."""
    names = "MB of all clients, up and down", "validation accuracy (%)"
    return _lines(table, labels, "bytes", *names, "Accuracy against bytes", log=True)


def draw_transmitted(table: pd.DataFrame, labels: Labels) -> Figure:
    """The share of federated averaging's bytes that a round moves."""
    return _lines(table, labels, "epoch", "round", "of federated averaging's bytes", "Bytes of a round")


def _lines(
    table: pd.DataFrame, labels: Labels, x: str, x_label: str, y_label: str, what: str, log: bool = False
) -> Figure:
    table, labels = only_shown(table, labels)
    figure = Figure(figsize=(labels.width(WIDTH), 2.6), layout="constrained")
    axes = figure.subplots()
    for method, own in table.groupby("method", sort=False):
        style = style_of(str(method))
        axes.plot(own[x], own["value"], color=style.colour, ls=style.line, lw=1.1, label=style.label)
    if log:
        axes.set_xscale("log")
        late = table.loc[table["epoch"] >= 0.25 * table["epoch"].max(), "value"]
        pad = 0.08 * float(np.ptp(late)) + 0.5
        axes.set_ylim(late.min() - pad, table["value"].max() + pad)
    else:
        axes.set_ylim(0, 1.05 * max(1.0, table["value"].max()))
        axes.xaxis.set_major_locator(FittingLocator(5, integer=True))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", lw=0.4)
    entitle(figure, labels, what)
    legend_below(figure, axes)
    return label_ticks(figure)


def draw_clients(tables: Mapping[str, pd.DataFrame], labels: Labels) -> Figure:
    """How right every client is by method, one point each, and the classes of every client's images as stacked bars."""
    table = tables["clients"]
    classes = [str(name) for name in table.columns if str(name).startswith(CLASS)]
    if not classes:
        raise ValueError(f"the table clients has no column that begins with {CLASS}")
    methods, width = list(dict.fromkeys(map(str, table["method"]))), labels.width(WIDE)
    names = [fitted(style_of(method).label, 0.34 * width) for method in methods]
    high = 0.6 + len(names) * max(0.16, *map(height_of, names))
    figure = Figure(figsize=(width, high + 2.4), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[high, 2.0])
    for place, method in enumerate(methods):
        style, own = style_of(method), table.loc[table["method"] == method, "accuracy"]
        above.plot(own, [place] * len(own), color=style.colour, marker=style.point, ms=3, lw=0, alpha=0.7)
        above.plot([own.mean()] * 2, [place - 0.35, place + 0.35], color=style.colour, lw=1.2)
    above.set_yticks(range(len(methods)), names)
    above.invert_yaxis()
    above.set_xlabel("accuracy of clients (%)")
    dealt = table[table["method"] == methods[0]]
    base, shades = np.zeros(len(dealt)), np.linspace(0.15, 0.9, len(classes))
    colours = COLOURS if len(classes) <= len(COLOURS) else [(shade, 0.55, 1 - shade) for shade in shades]
    for colour, name in zip(colours, classes, strict=False):
        label = name.removeprefix(CLASS)
        below.bar(dealt["client"], dealt[name], bottom=base, width=0.9, color=colour, lw=0, label=label)
        base += dealt[name].to_numpy(dtype=np.float64)
    below.set_xlabel("client")
    below.set_ylabel("images by class")
    below.xaxis.set_major_locator(FittingLocator(integer=True))
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    entitle(figure, labels, "Clients: accuracy and images")
    if len(classes) <= 20:
        legend_below(figure, below)
    return label_ticks(figure)
