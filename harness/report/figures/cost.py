"""Accuracy against cost: what methods reach, and the seconds and gradients that it took."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.report.figures.shown import mark_shown, only_shown
from harness.report.figures.style import WIDE, WIDTH, Labels, entitle, legend_below
from harness.report.figures.ticks import FittingLocator, label_ticks
from harness.report.method_styles import style_of
from harness.report.stats.cost import accuracy_and_cost
from harness.report.stats.curves import COSTS
from harness.report.stats.means import Row, of_row
from harness.report.stats.summary import Results
from harness.report.warnings import BUSY_MARK
from harness.results.columns import COLUMNS


def cost_data(found: Results, row: Row) -> pd.DataFrame:
    """Means and standard deviations of accuracy, seconds and gradients by method, over finished cells of one row."""
    table = accuracy_and_cost(of_row(found.frame[found.frame["status"] == "done"], row))
    return mark_shown(table, found, row)


def draw_cost(table: pd.DataFrame, labels: Labels) -> Figure:
    """Test accuracy against seconds of training and method, and against gradient evaluations; all means are in sight,
    bars of one standard deviation may go beyond."""
    table, labels = only_shown(table, labels)
    width = labels.width(WIDE)
    beside = width > WIDTH
    figure = Figure(figsize=(width, 2.1 if beside else 3.8), layout="constrained")
    grid = figure.subplots(1, 2, sharey=True) if beside else figure.subplots(2, 1, sharey=True)
    for axes, cost in zip(grid, ("seconds", "gradients"), strict=True):
        for line in table.to_dict("records"):
            style = style_of(line["method"])
            x, y = line[f"{cost}_mean"], line["test_accuracy_mean"]
            mark = f" {BUSY_MARK}" if line["busy"] else ""
            axes.errorbar(
                x, y, xerr=np.nan_to_num(line[f"{cost}_std"]), yerr=np.nan_to_num(line["test_accuracy_std"]),
                color=style.colour, elinewidth=0.6, lw=0, alpha=0.7, zorder=2,
            )  # fmt: skip
            axes.plot(
                x, y, color=style.colour, marker=style.point, ms=7 if style.marker == "star" else 4.5, lw=0,
                label=style.label + mark, markeredgecolor="white", markeredgewidth=0.4, zorder=3,
            )  # fmt: skip
        axes.set_xlabel(COSTS[cost])
        axes.set_xlim(left=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e6e6", lw=0.4)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(FittingLocator(5))
    means = table["test_accuracy_mean"]
    pad = 0.08 * float(np.ptp(means)) + 0.5
    grid[0].set_ylim(means.min() - pad, means.max() + pad)
    for axes in grid[: 1 if beside else 2]:
        axes.set_ylabel(COLUMNS["test_accuracy"].label)
    note = f"; {BUSY_MARK}: seconds measured while other work ran" if table["busy"].any() else ""
    entitle(figure, labels, f"Accuracy against cost{note}")
    legend_below(figure, grid[0])
    return label_ticks(figure)
