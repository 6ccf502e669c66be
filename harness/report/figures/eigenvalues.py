"""The eigenvalues of fitted dynamics in the unit circle, of all methods and seeds of a row together.

A point on the circle goes on for ever, one inside dies out, one outside grows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from harness.report.figures.style import LINE, WIDTH, Labels, entitle, legend_below
from harness.report.figures.ticks import label_ticks
from harness.report.method_styles import style_of

EDGE = 1.25
"""Eigenvalues of a larger modulus are drawn at this one, on their own ray."""


def draw_eigenvalues(tables: Mapping[str, pd.DataFrame], labels: Labels) -> Figure:
    """Eigenvalues by method in the complex plane: the whole circle, and beside it where it meets the real axis at 1."""
    table = tables["eigenvalues"]
    width = labels.width(WIDTH)
    figure = Figure(figsize=(width, 0.5 + 0.42 * width), layout="constrained")
    whole, close = figure.subplots(1, 2)
    lowest = _close_up(table)
    for axes in (whole, close):
        _draw_points(axes, table)
    whole.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3))
    half = (1.02 - lowest) / 2 * 1.05
    close.set(xlim=(1.02 - 2 * half, 1.02), ylim=(-half, half))
    whole.set_title("all", pad=3)
    close.set_title("close to 1", pad=3)
    whole.set_xlabel("real part")
    close.set_xlabel("real part")
    whole.set_ylabel("imaginary part")
    entitle(figure, labels, "Eigenvalues per epoch")
    legend_below(figure, whole)
    return label_ticks(figure)


def _close_up(table: pd.DataFrame) -> float:
    """Left edge of the close-up: the quarter of all eigenvalues that is nearest to 1 lies right of it."""
    distance = np.hypot(table["real"] - 1, table["imaginary"])
    return float(1 - np.clip(np.quantile(distance, 0.25), 0.05, 0.5))


def _draw_points(axes: Axes, table: pd.DataFrame) -> None:
    axes.add_patch(Circle((0, 0), 1, fill=False, color=LINE, lw=0.7))
    axes.axhline(0, color=LINE, lw=0.3)
    axes.axvline(0, color=LINE, lw=0.3)
    modulus = np.hypot(table["real"], table["imaginary"])
    inward = np.minimum(1, EDGE / np.maximum(modulus, EDGE))
    for method, rows in table.groupby("method", sort=False):
        style = style_of(str(method))
        shrunk = inward[rows.index]
        outside = int((shrunk < 1).sum())
        label = f"{style.label} ({len(rows)}{f', {outside} beyond the edge' if outside else ''})"
        x, y = rows["real"] * shrunk, rows["imaginary"] * shrunk
        axes.scatter(
            x,
            y,
            s=12,
            marker=style.point,
            facecolors=style.colour,
            edgecolors=LINE,
            lw=0.4,
            label=label,
            zorder=2,
        )
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(False)
