"""The figures of models of the weights' motion: single weights with their models, and the motion left unexplained.

Each is drawn from a table of a method alone, so that whoever gives the table has the figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.report.figures.style import LINE, PANEL, SIZE, WIDTH, Labels, entitle, fitted, height_of, legend_below
from harness.report.figures.ticks import FittingLocator, label_ticks
from harness.report.method_styles import style_of_model

NAMED = ("weight", "tensor", "mode", "rho", "epoch", "base")
"""The columns of the table `trajectories` before those of the models, which are named as they are labelled."""
DASHES = ((0, (3, 1)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (6, 2)))


def draw_trajectories(tables: Mapping[str, pd.DataFrame], labels: Labels) -> Figure:
    """Trajectories of single weights: the base's own, and what models make of it."""
    weights = tables["trajectories"]
    models = [str(name) for name in weights.columns if name not in NAMED]
    if not models:
        raise ValueError("the table trajectories has no model of the weights beside base")
    chosen = list(weights.groupby("weight", sort=False))
    width = labels.width(WIDTH)
    columns = max(1, min(len(chosen), int(width // PANEL)))
    room = width / columns - 0.65  # a title stands above its axes alone, beside which are the labels of their ticks
    rows = -(-len(chosen) // columns)
    titles = [_title(weight, room) for _, weight in chosen]
    height = max(map(height_of, titles), default=0.0)
    figure = Figure(figsize=(width, 0.3 + (1.0 + height) * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for axes, (_, weight), title in zip(grid, chosen, titles, strict=False):
        axes.plot(weight["epoch"], weight["base"], color=LINE, lw=1.0, label="base")
        for model, dash in zip(models, cycle(DASHES), strict=False):
            axes.plot(weight["epoch"], weight[model], color=style_of_model(model).colour, lw=1.2, ls=dash, label=model)
        axes.set_title(title)
        axes.xaxis.set_major_locator(FittingLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(chosen) - columns : len(chosen)]:
        axes.set_xlabel("epoch")
        axes.xaxis.set_tick_params(labelbottom=True)
    for axes in grid[len(chosen) :]:
        axes.set_visible(False)
    figure.supylabel("value of the weight", fontsize=SIZE)
    entitle(figure, labels, "Single weights and their models")
    legend_below(figure, grid[0])
    return label_ticks(figure)


def _title(weight: pd.DataFrame, room: float) -> str:
    """What one weight is, in lines of at most `room` inches."""
    first = weight.iloc[0]
    rho = f"{first['rho']:.2f}".replace("-", "\N{MINUS SIGN}")
    return fitted(f"mode {first['mode']}, ρ = {rho}\n{first['tensor']}", room)


def draw_errors(tables: Mapping[str, pd.DataFrame], labels: Labels) -> Figure:
    """Share of the motion left unexplained by dimension, on a logarithmic axis; a fit of one dimension is a point."""
    figure = Figure(figsize=(labels.width(WIDTH), 2.1), layout="constrained")
    axes = figure.subplots()
    for fit, lines in tables["errors"].groupby("fit", sort=False):
        style = style_of_model(str(fit))
        shown = lines[lines["share"] > 1e-12]
        single = len(lines) == 1
        axes.plot(
            shown["dimension"], 100 * shown["share"], color=style.colour, label=str(fit), marker=style.point,
            ms=(7 if style.marker == "star" else 4) if single else 2, lw=0 if single else 1.0, ls=style.line,
            zorder=3 if single else 2,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FittingLocator(integer=True))
    axes.set_xlabel("dimension (modes, rank or components)")
    axes.set_ylabel("motion unexplained (%)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", lw=0.4)
    entitle(figure, labels, "Reconstruction error, in-sample")
    legend_below(figure, axes)
    return label_ticks(figure)
