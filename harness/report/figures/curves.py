"""Learning curves: validation accuracy and loss by epoch, as means and bands over seeds.

Curves have a panel for each family of methods with plain training in each, so that 20 methods stay readable; few
methods share one.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report.figures.style import WIDE, WIDTH, Labels
from harness.report.figures.ticks import FittingLocator, label_ticks
from harness.report.method_styles import panels_of, style_of
from harness.report.stats.curves import METRICS
from harness.report.stats.means import Row, of_row
from harness.report.stats.summary import Results

CURVES = ("val_accuracy", "val_loss")


def curves_data(found: Results, row: Row) -> pd.DataFrame:
    """The lines of `stats.curves.curve_table` of one row."""
    return of_row(found.over_seeds, row)


def draw_curves(table: pd.DataFrame, labels: Labels) -> Figure:
    """Means over seeds with bands of one standard deviation, by epoch: a column per family, accuracy above loss."""
    panels = panels_of(list(dict.fromkeys(map(str, table["method"]))))
    width = WIDTH if len(panels) == 1 else WIDE
    lines = max(len(methods) for _, methods in panels)
    figure = Figure(figsize=(width, 3.2 + 0.11 * lines), layout="constrained")
    grid = figure.subplots(len(CURVES), len(panels), sharex=True, sharey="row", squeeze=False)
    for column, (family, methods) in enumerate(panels):
        for place, metric in enumerate(CURVES):
            axes = grid[place][column]
            for method in methods:
                _draw_curve(axes, table[table["method"] == method], method, metric)
            _frame_values(axes, table, metric)
            axes.spines[["top", "right"]].set_visible(False)
            axes.xaxis.set_major_locator(FittingLocator(4, integer=True))
        grid[0][column].set_title(family)
        grid[-1][column].set_xlabel("epoch")
        _legend_under(grid[-1][column], -0.32)
    for place, metric in enumerate(CURVES):
        grid[place][0].set_ylabel(METRICS[metric])
    figure.suptitle(labels.title, fontsize=7)
    return label_ticks(figure)


def _legend_under(axes: Axes, height: float) -> None:
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, height), frameon=False, handlelength=2.6, labelspacing=0.25)


def _draw_curve(axes: Axes, curve: pd.DataFrame, method: str, metric: str) -> None:
    """A method's mean and band; a single epoch is a point."""
    style = style_of(method)
    mean, std = curve[f"{metric}_mean"].to_numpy(), curve[f"{metric}_std"].fillna(0).to_numpy()
    epoch = curve["epoch"].to_numpy()
    if len(epoch) == 1:
        axes.errorbar(
            epoch, mean, yerr=std, color=style.colour, marker=style.point, ms=5, lw=0, elinewidth=0.8,
            label=style.label, zorder=4,
        )  # fmt: skip
        return
    mark: dict[str, Any] = {"marker": style.point, "ms": 2.2} if len(epoch) <= 12 else {}
    axes.plot(epoch, mean, color=style.colour, ls=style.line, lw=1.1, label=style.label, zorder=3, **mark)
    axes.fill_between(epoch, mean - std, mean + std, color=style.colour, alpha=0.13, lw=0)


def _frame_values(axes: Axes, table: pd.DataFrame, metric: str) -> None:
    """Leave the first steep epochs out of sight where they would flatten all that follows."""
    values = table[f"{metric}_mean"].dropna()
    late = table.loc[table["epoch"] >= 0.25 * table["epoch"].max(), f"{metric}_mean"].dropna()
    if late.empty or late.max() == late.min():
        return
    pad = 0.08 * (late.max() - late.min())
    if metric.endswith("accuracy"):
        axes.set_ylim(max(values.min(), late.min()) - pad, values.max() + 2 * pad)
    else:
        axes.set_ylim(values.min() - 2 * pad, min(values.max(), late.max()) + pad)
