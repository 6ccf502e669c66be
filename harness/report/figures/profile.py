"""Performance profiles: on how many bases a method reaches the target within a ratio of the fastest method's cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.report.figures.shown import mark_shown, only_shown
from harness.report.figures.style import PANEL, SIZE, WIDE, WIDTH, Labels, entitle, fitted, legend_of
from harness.report.figures.ticks import label_ticks
from harness.report.method_styles import panels_of, style_of
from harness.report.stats.means import Row
from harness.report.stats.progress import profiles
from harness.report.stats.summary import Results

MEASURE = "epochs"
"""The cost that is compared, one of `stats.progress.MEASURES`"""


def profile_data(found: Results, row: Row) -> pd.DataFrame:
    """The steps of `stats.progress.profiles` over all bases of the suite."""
    return mark_shown(profiles(found.times, MEASURE), found, row)


def draw_profile(table: pd.DataFrame, labels: Labels) -> Figure:
    """Performance profiles as steps, the ratio on a logarithmic axis where it reaches far."""
    table, labels = only_shown(table, replace(labels, title=f"target: {labels.target}"))
    panels = panels_of(list(dict.fromkeys(map(str, table["method"]))))
    width = labels.width(WIDE if len(panels) > 1 else WIDTH)
    columns = min(len(panels), int(width // PANEL))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(width, 0.5 + 1.6 * rows), layout="constrained")
    whole = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    grid = list(whole.ravel())
    for empty in grid[len(panels) :]:
        empty.remove()
    grid = grid[: len(panels)]
    end = max(float(table["ratio"].max()) * 1.08, 1.5)
    drawn = {}
    for axes, (family, methods) in zip(grid, panels, strict=True):
        for method in methods:
            drawn[style_of(method).label] = _draw_steps(axes, table[table["method"] == method], method, end)
        axes.set_title(family)
        axes.spines[["top", "right"]].set_visible(False)
    if end > 8:
        grid[0].set_xscale("log")
    grid[0].set(xlim=(1, end), ylim=(-2, 103))
    figure.supylabel("bases that reach the target (%)", fontsize=SIZE)
    for axes in grid[-columns:]:
        axes.set_xlabel(fitted(f"{MEASURE}, over the fastest method's", width / columns - 0.3))
        axes.xaxis.set_tick_params(labelbottom=True)
    problems = int(table["problems"].max())
    entitle(figure, labels, f"Performance profile: {problems} bases")
    legend_of(figure, list(drawn.values()), list(drawn))
    return label_ticks(figure)


def _draw_steps(axes: Axes, steps: pd.DataFrame, method: str, end: float) -> Line2D:
    """A method's profile as steps up to the end of the axis."""
    style = style_of(method)
    ratio, share = [*steps["ratio"], end], [*steps["share"], steps["share"].iloc[-1]]
    (line,) = axes.plot(
        ratio, np.multiply(share, 100), drawstyle="steps-post", color=style.colour, ls=style.line, lw=1.2,
        label=style.label, marker=style.point, ms=3, markevery=[0], clip_on=False,
    )  # fmt: skip
    return line
