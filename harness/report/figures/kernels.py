"""The kernels of all linear methods of a base, a panel each: which snapshots their weights are made of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.kernel import by_epoch, checked, numbers, shares
from harness.report.figures.style import LINE, PANEL, SIZE, WIDE, Labels, entitle, fitted, height_of
from harness.report.figures.ticks import FittingLocator, label_ticks
from harness.report.method_styles import style_of


def draw_kernels(tables: Mapping[str, pd.DataFrame], labels: Labels) -> Figure:
    """Coefficients by epoch, those of an epoch's steps added, methods by age: their mean over modes, and each mode."""
    table = tables["kernel"]
    # what one method's table has beside the needed columns, another's may lack
    groups = table.groupby("method", sort=False)
    own = {str(method): checked(lines.dropna(axis=1, how="all")) for method, lines in groups}
    last = int(np.ceil(round(float(table["epoch"].max()), 9)))
    found = {method: numbers(kernel, last) for method, kernel in own.items()}
    methods = sorted(own, key=lambda method: found[method]["age"])
    width = labels.width(WIDE)
    columns = min(len(methods), max(1, int(width // PANEL)))
    rows = -(-len(methods) // columns)
    titles = [
        fitted(f"{style_of(method).label}\nage {_short(found[method]['age'])}, n_eff {_short(found[method]['n_eff'])}",
               (width - 0.4) / columns - 0.35)
        for method in methods
    ]  # fmt: skip
    above = [max(map(height_of, titles[start : start + columns])) for start in range(0, len(titles), columns)]
    figure = Figure(figsize=(width, 0.4 + 0.75 * rows + sum(above)), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for axes, method, title in zip(grid, methods, titles, strict=False):
        _draw_panel(axes, own[method], method)
        axes.set_title(title, pad=2)
        axes.set_xlim(-0.5, last + 1)
        axes.yaxis.set_major_locator(FittingLocator(3))
    for axes in grid[len(methods) :]:
        axes.remove()
    for axes in grid[max(0, len(methods) - columns) : len(methods)]:
        axes.xaxis.set_tick_params(labelbottom=True)
    figure.supxlabel("epoch", fontsize=SIZE)
    figure.supylabel("coefficient", fontsize=SIZE)
    entitle(figure, labels, "Kernels of linear methods")
    return label_ticks(figure)


def _short(value: float) -> str:
    """A number with one decimal, and no minus before a zero."""
    return f"{round(value, 1) + 0.0:.1f}"


def _draw_panel(axes: Axes, kernel: pd.DataFrame, method: str) -> None:
    coefficients = by_epoch(kernel).sort_index(axis=1)
    epochs = np.asarray(coefficients.columns, dtype=np.float64)
    colour = style_of(method).colour
    mean = (shares(kernel)[coefficients.index].to_numpy() @ coefficients.to_numpy()) if len(coefficients) else []
    axes.axhline(0, color=LINE, lw=0.4)
    axes.bar(epochs, mean, 0.9, color=colour, lw=0)
    if len(coefficients) > 1:
        for _, mode in coefficients.iterrows():
            axes.plot(epochs, mode.to_numpy(), color=LINE, lw=0.35, alpha=0.7)
    axes.spines[["top", "right"]].set_visible(False)
