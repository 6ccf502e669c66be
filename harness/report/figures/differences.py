"""Differences by seed: every method's pairs with its controls, their mean and interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from harness.report.figures.style import WIDE, WIDTH, Labels, entitle, fitted, height_of
from harness.report.figures.ticks import label_ticks
from harness.report.method_styles import style_of
from harness.report.stats.comparisons import pairs
from harness.report.stats.headline import unit_of_difference
from harness.report.stats.means import ALL, CONTROLS, Row, bare, of_row
from harness.report.stats.summary import Results, own_controls
from harness.results.columns import ROW, ROW_METHOD

BEYOND = 8
"""An axis of differences holds the methods that reach at most so many times as far as half of them do."""


OWN = "its own control"
"""The panel of methods and the controls that their presets name."""


def differences_data(found: Results, row: Row) -> pd.DataFrame:
    """Every pair of a row, or of all rows where there are several, with mean, interval and verdict of its comparison.

    Columns: model, dataset, optimizer, seed, method, base_key, difference, alike, control, mean, low, high, p_holm,
    verdict, panel: a control that all methods are compared with, or OWN.
    """
    compared, frame = of_row(found.compared, row), bare(found.frame)
    if row[0] != ALL:
        frame = of_row(frame, row)
    own = own_controls(found.frame)
    named = own.reindex(pd.MultiIndex.from_frame(compared[ROW_METHOD].astype("str"))).to_numpy()
    parts = [(control, compared[compared["control"] == control]) for control in dict.fromkeys((found.plain, *CONTROLS))]
    parts.append((OWN, compared[compared["control"] == named]))
    names = ["method", "control", "mean", "low", "high", "p_holm", "verdict"]
    tables = []
    for panel, lines in parts:
        for control, of_control in lines.groupby("control", sort=False):
            seeds = pairs(frame, found.metric, str(control), of_control["method"].tolist())
            seeds = seeds.drop(columns=["cell_key", "control_cell"])
            tables.append(seeds.assign(control=control).merge(of_control[names], on=["method", "control"]))
            tables[-1]["panel"] = panel
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*ROW, "seed", *names, "panel"])


def draw_differences(table: pd.DataFrame, labels: Labels) -> Figure:
    """Differences of every seed to each control, with mean and interval; filled where a primary comparison finds one.

    `table` has one line per pair, see `differences_data`. In one column the panels stand below each other.
    """
    compared = table.drop_duplicates(["method", "panel"])
    panels = list(dict.fromkeys(compared["panel"]))
    width = labels.width(WIDE)
    beside = width > WIDTH or len(panels) == 1
    methods = _ordered(compared, panels)
    shown = [methods if beside else [m for m in methods if m in _methods(compared, panel)] for panel in panels]
    names = {method: fitted(style_of(method).label, 1.3) for method in methods}
    heights = [0.45 + sum(_height(names[method]) for method in own) for own in shown]
    figure = Figure(figsize=(width, max(heights) if beside else sum(heights)), layout="constrained")
    if beside:
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    else:
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, panel, own in zip(grid, panels, shown, strict=True):
        rows = np.array([_height(names[method]) for method in own])
        place = dict(zip(own, (rows / 2 - rows.cumsum()).tolist(), strict=True))
        _draw_panel(axes, table[table["panel"] == panel], place, panel, labels.metric)
        axes.set_yticks([*place.values()], [names[method] for method in place])
        axes.set_ylim(-rows.sum() - 0.06, 0.04)
    title = "Differences paired by seed: mean, 95 % interval, each pair below; filled: found by a primary comparison"
    entitle(figure, labels, title)
    return label_ticks(figure)


def _height(name: str) -> float:
    """The height of a method's row in inches, which are the units of the vertical axis."""
    return max(0.19, 0.06 + height_of(name))


def _methods(compared: pd.DataFrame, panel: str) -> set[str]:
    return set(compared.loc[compared["panel"] == panel, "method"])


def _draw_panel(axes: Axes, own: pd.DataFrame, place: dict[str, float], panel: str, metric: str) -> None:
    """The differences to one control, or to everyone's own, which is named at the right."""
    compared = own.drop_duplicates("method")
    plain = style_of(CONTROLS[0] if panel == OWN else panel)
    axes.axvline(0, color=plain.colour, lw=0.9, ls=plain.line)
    height = own["method"].map(place).to_numpy(dtype=np.float64) - 0.055 + _spread_out(own)
    axes.set_xlim(_limits(own, compared))
    for given in compared.to_dict("records"):
        line = {str(name): value for name, value in given.items()}
        _draw_difference(axes, line, place[line["method"]])
        if panel == OWN:
            axes.text(
                1.02, place[line["method"]], fitted(style_of(str(line["control"])).label, 1.0), va="center",
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip
    inside = own["difference"].between(*axes.get_xlim()).to_numpy()
    colours = [style_of(m).colour for m in own.loc[inside, "method"]]
    axes.scatter(own.loc[inside, "difference"], height[inside], s=5, color=colours, lw=0, alpha=0.75)
    axes.set_xlabel(f"{unit_of_difference(metric)} above {OWN if panel == OWN else plain.label}")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e6e6e6", lw=0.4)
    axes.set_axisbelow(True)


def _ordered(compared: pd.DataFrame, panels: list[str]) -> list[str]:
    """Methods by their mean difference to the first control, the highest first; a control's own is 0."""
    means = compared.pivot(index="method", columns="panel", values="mean")[panels[0]]
    means.loc[[method for method in means.index if method == panels[0]]] = 0.0
    return [str(method) for method in means.sort_values(ascending=False, kind="stable").index]


def _limits(own: pd.DataFrame, compared: pd.DataFrame) -> tuple[float, float]:
    """Ends of an axis that holds 0 and all pairs and intervals but those of methods far beyond the others."""
    differences = own.groupby("method")["difference"]
    spans = compared.set_index("method")[["mean", "low", "high"]].assign(
        least=differences.min(), most=differences.max()
    )
    far = spans.abs().max(axis=1)
    inside = spans[far <= BEYOND * far.median()].to_numpy(dtype=np.float64)
    low, high = min(float(np.nanmin(inside, initial=0.0)), 0.0), max(float(np.nanmax(inside, initial=0.0)), 0.0)
    pad = 0.06 * (high - low) or 1.0
    return low - pad, high + pad


def _spread_out(own: pd.DataFrame) -> NDArray[np.float64]:
    """A little height by seed in inches, so that points do not cover each other."""
    order = own["seed"].rank(method="dense").to_numpy(dtype=np.float64)
    most = float(order.max(initial=1.0))
    return np.asarray(0.024 * (order / most - 0.5), dtype=np.float64)


def _draw_difference(axes: Axes, line: dict[str, Any], height: float) -> None:
    """A mean with its interval; where they go beyond the axis, they are written at its end."""
    style = style_of(str(line["method"]))
    significant = line["verdict"] in ("better", "worse")
    left, right = axes.get_xlim()
    known = np.isfinite(line["low"])
    if min(line["mean"], line["low"] if known else line["mean"]) < left:
        _write_beyond(axes, line, left, height)
    elif max(line["mean"], line["high"] if known else line["mean"]) > right:
        _write_beyond(axes, line, right, height)
    if known:
        axes.plot([line["low"], line["high"]], [height, height], color=style.colour, lw=1.6, solid_capstyle="butt")
    axes.plot(
        line["mean"], height, marker=style.point, ms=4.5, color=style.colour,
        markerfacecolor=style.colour if significant else "white", markeredgewidth=0.9, lw=0,
    )  # fmt: skip


def _write_beyond(axes: Axes, line: dict[str, Any], edge: float, height: float) -> None:
    """An arrow at an end of the axis, with the mean and the interval that lie beyond."""
    colour, inwards = style_of(str(line["method"])).colour, -float(np.copysign(1, edge))
    numbers = [line[name] for name in ("mean", "low", "high") if np.isfinite(line[name])]
    decimals = max(1, 1 - int(np.floor(np.log10(np.abs(numbers).max()))))  # two digits of the largest
    mean, *interval = (f"{value:+.{decimals}f}".replace("-", "\N{MINUS SIGN}") for value in numbers)
    text = f"{mean} [{', '.join(interval)}]" if interval else mean
    axes.annotate(
        text, (edge, height), color=colour,
        xytext=(8 * inwards, 0), textcoords="offset points", va="center", ha="left" if inwards > 0 else "right",
        zorder=5, bbox={"fc": "white", "ec": "none", "pad": 0.6},
    )  # fmt: skip
    axes.plot(edge, height, marker="<" if inwards > 0 else ">", ms=4, color=colour, lw=0, clip_on=False)
