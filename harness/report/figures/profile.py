"""Performance profiles: on how many bases a method reaches the target within a ratio of the fastest method's cost."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.report.figures.style import WIDE, WIDTH, Labels
from harness.report.figures.ticks import label_ticks
from harness.report.method_styles import panels_of, style_of
from harness.report.stats.means import Row
from harness.report.stats.progress import profiles
from harness.report.stats.summary import Results

MEASURE = "epochs"
"""The cost that is compared, one of `stats.progress.MEASURES`"""


def profile_data(found: Results, row: Row) -> pd.DataFrame:
    """The steps of `stats.progress.profiles` over all bases of the suite."""
    return profiles(found.times, MEASURE)


def draw_profile(table: pd.DataFrame, labels: Labels) -> Figure:
    """Performance profiles as steps, the ratio on a logarithmic axis where it reaches far."""
    panels = panels_of(list(dict.fromkeys(map(str, table["method"]))))
    several = len(panels) > 1
    size = (WIDE, 2.6 + 0.12 * (table["method"].nunique() // 5)) if several else (WIDTH, 2.9)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
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
    grid[0].set_ylabel("bases on which the target is reached (%)")
    grid[len(grid) // 2].set_xlabel(f"{MEASURE}, over the fastest method's")
    problems = int(table["problems"].max())
    figure.suptitle(f"Performance profile: {problems} bases\ntarget: {labels.target}", fontsize=7)
    figure.legend(
        list(drawn.values()), list(drawn), loc="outside lower center", ncols=5 if several else 2, frameon=False,
        handlelength=2.6, columnspacing=1.2,
    )  # fmt: skip
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
