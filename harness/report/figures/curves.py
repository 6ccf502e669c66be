"""Learning curves: validation accuracy and loss by epoch, as means and bands over seeds.

Curves have a panel for each family of methods with plain training in each, so that 20 methods stay readable; few
methods share one.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report.figures.shown import mark_shown, only_shown
from harness.report.figures.style import PANEL, WIDE, WIDTH, Labels, entitle, legend_height, panel_legend
from harness.report.figures.ticks import FittingLocator, label_ticks
from harness.report.method_styles import panels_of, style_of
from harness.report.stats.curves import METRICS
from harness.report.stats.means import Row, of_row
from harness.report.stats.summary import Results

CURVES = ("val_accuracy", "val_loss")


def curves_data(found: Results, row: Row) -> pd.DataFrame:
    """The lines of `stats.curves.curve_table` of one row."""
    return mark_shown(of_row(found.over_seeds, row), found, row)


def draw_curves(table: pd.DataFrame, labels: Labels) -> Figure:
    """Means over seeds with bands of one standard deviation, by epoch: a column per family, accuracy above loss."""
    table, labels = only_shown(table, labels)
    panels = panels_of(list(dict.fromkeys(map(str, table["method"]))))
    width = labels.width(WIDTH if len(panels) == 1 else WIDE)
    columns = min(len(panels), int(width // PANEL))
    room = width / columns - 0.2
    blocks = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    legends = [
        max(legend_height([style_of(method).label for method in methods], room) for _, methods in block)
        for block in blocks
    ]
    each = 1.9 if len(blocks) == 1 else 1.35
    figure = Figure(figsize=(width, sum(2 * each + high for high in legends)), layout="constrained")
    parts = figure.subfigures(len(blocks), 1, height_ratios=[2 * each + high for high in legends], squeeze=False)[:, 0]
    first: dict[str, Axes] = {}
    for part, block in zip(parts, blocks, strict=True):
        grid = part.subplots(len(CURVES), columns, squeeze=False)
        for column, panel in enumerate(block):
            _draw_panel([axes[column] for axes in grid], table, panel, first, room)
        for axes in grid[:, len(block) :].ravel():
            axes.remove()
        for axes in grid[:, 1 : len(block)].ravel():
            axes.yaxis.set_tick_params(labelleft=False)
        for axes, metric in zip(grid[:, 0], CURVES, strict=True):
            axes.set_ylabel(METRICS[metric])
    entitle(figure, labels, "")
    return label_ticks(figure)


def _draw_panel(
    column: list[Axes], table: pd.DataFrame, panel: tuple[str, list[str]], first: dict[str, Axes], room: float
) -> None:
    """The curves of one family, accuracy above loss, on the axes that the first panel has."""
    family, methods = panel
    for axes, metric in zip(column, CURVES, strict=True):
        for method in methods:
            _draw_curve(axes, table[table["method"] == method], method, metric)
        if metric in first:
            axes.sharey(first[metric])
        else:
            _frame_values(axes, table, metric)
        first.setdefault(metric, axes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(FittingLocator(4, integer=True))
    column[0].sharex(column[1])
    column[0].xaxis.set_tick_params(labelbottom=False)
    column[0].set_title(family)
    column[1].set_xlabel("epoch")
    panel_legend(column[1], room)


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
