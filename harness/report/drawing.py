"""The figures of CMD, drawn from their tables alone (`decomposition.Tables`).

For one column of a paper, 86 mm wide. Colours are Paul Tol's muted scheme, which colour-blind readers can tell apart,
ordered so that neighbours differ in lightness too and survive a grey print.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from harness.report.decomposition import SURROGATE
from harness.report.looks import look
from harness.report.unexplained import CMD, DMD, PRINCIPAL, TIME_MEAN

WIDTH = 3.4
"""inches"""
STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
}
"""matplotlib's settings while a figure is made and saved; fonts are embedded as text"""

COLOURS = (
    "#332288", "#88CCEE", "#117733", "#DDCC77", "#882255", "#44AA99", "#AA4499", "#999933", "#CC6677", "#BBBBBB"
)  # fmt: skip
LINE = "#222222"
WALK = "#666666"
MARK = look("cmd_posthoc").colour
ERROR_COLOURS = {
    TIME_MEAN: look("time_mean").colour,
    CMD: MARK,
    DMD: look("dmd").colour,
    PRINCIPAL: LINE,
}
ERROR_LOOKS: dict[str, dict[str, Any]] = {
    TIME_MEAN: {"marker": "D", "ms": 4, "lw": 0},
    CMD: {"marker": "*", "ms": 7, "lw": 0, "zorder": 3},
    DMD: {"marker": "o", "ms": 2.5, "lw": 1.0},
    PRINCIPAL: {"ls": (0, (3, 1)), "lw": 0.9},
}
ROWS = 60
"""bars that can still be read in one column"""


class Shown(NamedTuple):
    """Modes that share one colour."""

    label: str
    colour: str
    modes: list[int]


def shown_modes(weights_M: pd.Series[int]) -> list[Shown]:
    """A colour for every mode; of more than ten, for the nine with the most weights, and one for all others."""
    ordered = weights_M.sort_values(ascending=False, kind="stable").index
    own = sorted(ordered if len(ordered) <= len(COLOURS) else ordered[: len(COLOURS) - 1])
    shown = [Shown(f"mode {mode}", colour, [mode]) for mode, colour in zip(own, COLOURS, strict=False)]
    rest = sorted(set(ordered) - set(own))
    return [*shown, Shown(f"{len(rest)} other modes", COLOURS[-1], rest)] if rest else shown


def grouped(tensors: list[str]) -> dict[str, str]:
    """The row of each tensor: its module, or as much of its path as leaves at most ROWS rows, but at least one name."""
    paths = [(tensor.rpartition(".")[0] or tensor).split(".") for tensor in tensors]
    for depth in range(max(map(len, paths)), 0, -1):
        rows = [".".join(path[:depth]) for path in paths]
        if len(set(rows)) <= ROWS:
            break
    return dict(zip(tensors, rows, strict=True))


def draw_correlation(correlation: pd.DataFrame, sample: pd.DataFrame, title: str) -> Figure:
    """Heat map of |correlation| between the sampled weights, ordered by mode, with the modes' borders."""
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    axes = figure.subplots()
    K = len(sample)
    end = len(correlation) * -(-K // len(correlation))
    image = axes.imshow(correlation.to_numpy(), cmap="cividis", vmin=0, vmax=1, extent=(0, end, end, 0))
    axes.set(xlim=(0, K), ylim=(K, 0))
    sizes = sample.groupby("mode").size()
    ends = sizes.cumsum()
    starts = ends - sizes
    for start, end in zip(starts, ends, strict=True):
        axes.plot([start, end, end, start, start], [start, start, end, end, start], color="white", lw=0.8)
    for end in ends[:-1]:
        axes.axhline(end, color="white", lw=0.25)
        axes.axvline(end, color="white", lw=0.25)
    named = [mode for mode in sizes.index if sizes[mode] >= 0.03 * K]
    centres = [(starts[mode] + ends[mode]) / 2 for mode in named]
    axes.set_xticks(centres, [str(mode) for mode in named])
    axes.set_yticks(centres, [str(mode) for mode in named])
    axes.set_xlabel(f"mode ({K:,} sampled weights, ordered by mode)")
    axes.set_ylabel("mode")
    axes.set_title(f"Correlation of sampled weights\n{title}")
    bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)
    bar.set_label("|correlation| of two weights' trajectories")
    bar.outline.set_linewidth(0.6)
    return figure


def draw_layers(layers: pd.DataFrame, title: str) -> Figure:
    """Share of every mode in every layer, as stacked bars from the first layer down, with the weights that moved."""
    tensors = list(dict.fromkeys(layers["tensor"]))
    row = layers["tensor"].map(grouped(tensors))
    table = layers.assign(row=row).pivot_table(index="row", columns="mode", values="weights", aggfunc="sum", sort=False)
    total = table.sum(axis=1)
    share = 100 * table.div(total.clip(lower=1), axis=0)
    figure = Figure(figsize=(WIDTH, 0.9 + 0.115 * max(len(table), 6)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(table))
    for label, colour, modes in shown_modes(table.sum()):
        width = share[modes].sum(axis=1).to_numpy()
        axes.barh(range(len(table)), width, 0.86, left=left, color=colour, edgecolor="white", lw=0.25, label=label)
        left += width
    axes.set_yticks(range(len(table)), list(table.index), fontsize=5.5)
    axes.tick_params(axis="y", length=0)
    for place, count in enumerate(total):
        axes.text(101.5, place, f"{count:,}", va="center", fontsize=5.5)
    axes.set_xlim(0, 100)
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.text(101.5, -0.9, "weights", va="bottom", fontsize=5.5)
    axes.set_xlabel("share of the weights that moved (%)")
    figure.suptitle(f"Modes of every layer\n{title}", fontsize=7)
    legend_below(figure, axes, columns=5)
    return figure


def draw_rho(rho: pd.DataFrame, title: str) -> Figure:
    """Histograms of |rho| one above the other, each mode over the outline of what random walks give."""
    counts = rho.pivot_table(index="mode", columns="low", values="weights", aggfunc="sum", sort=False)
    mean = rho.groupby("mode", sort=False)["mean_abs_rho"].first()
    walks = counts.loc[SURROGATE] / counts.loc[SURROGATE].sum()
    counts = counts.drop(index=SURROGATE).rename(index=int)
    total = counts.sum(axis=1)
    rows = [Shown("all modes", LINE, list(counts.index)), *shown_modes(total)]
    edges = np.append(counts.columns.to_numpy(), 1.0)
    figure = Figure(figsize=(WIDTH, 0.9 + 0.44 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (label, colour, modes) in zip(grid, rows, strict=True):
        weights = max(int(total[modes].sum()), 1)
        average = sum(total[mode] * mean[str(mode)] for mode in modes) / weights
        axes.stairs(counts.loc[modes].sum() / weights, edges, fill=True, color=colour)
        name = f"random walks assigned in the same way, mean |ρ| {mean[SURROGATE]:.2f}"
        axes.stairs(walks, edges, color=WALK, lw=0.9, label=name)
        axes.set_title(f"{label}: {weights:,} weights, mean |ρ| {average:.2f}", loc="left", pad=1, fontsize=6)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    grid[-1].set_xlim(0, 1)
    grid[-1].set_xlabel("|ρ|, correlation of a weight with its mode's reference")
    figure.supylabel("share of the mode's weights", fontsize=7)
    figure.suptitle(f"Correlation within the modes\n{title}", fontsize=7)
    legend_below(figure, grid[-1], columns=1)
    return figure


def draw_weights(weights: pd.DataFrame, optimizer: str, title: str) -> Figure:
    """Trajectories of single weights: the base's, and what CMD and DMD of the same dimension make of it."""
    chosen = list(weights.groupby("weight", sort=False))
    rows = -(-len(chosen) // 2)
    figure = Figure(figsize=(WIDTH, 0.6 + 1.15 * rows), layout="constrained")
    grid = figure.subplots(rows, 2, sharex=True, squeeze=False).ravel()
    for axes, (_, weight) in zip(grid, chosen, strict=False):
        axes.plot(weight["epoch"], weight["base"], color=LINE, lw=1.0, label=f"base ({optimizer})")
        axes.plot(weight["epoch"], weight["dmd"], color=look("dmd").colour, lw=1.2, ls=(0, (1, 1)), label="DMD")
        axes.plot(weight["epoch"], weight["cmd"], color=MARK, lw=1.2, ls=(0, (3, 1)), label="post-hoc CMD")
        first = weight.iloc[0]
        rho = f"{first['rho']:.2f}".replace("-", "\N{MINUS SIGN}")
        axes.set_title(f"mode {first['mode']}, ρ = {rho}\n{first['tensor']}", fontsize=6)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[-2:]:
        axes.set_xlabel("epoch")
    for axes in grid[len(chosen) :]:
        axes.set_visible(False)
    figure.supylabel("value of the weight", fontsize=7)
    figure.suptitle(f"Single weights and their models\n{title}", fontsize=7)
    legend_below(figure, grid[0], columns=3)
    return figure


def draw_errors(errors: pd.DataFrame, title: str) -> Figure:
    """Share of the motion left unexplained by dimension, on a logarithmic axis: bounds, DMD, and CMD as one point."""
    figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
    axes = figure.subplots()
    for fit, lines in errors.groupby("fit", sort=False):
        shape, colour = ERROR_LOOKS[str(fit)], ERROR_COLOURS[str(fit)]
        shown = lines[lines["share"] > 1e-12]
        axes.plot(shown["dimension"], 100 * shown["share"], color=colour, label=str(fit), **shape)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("dimension (modes, rank or components)")
    axes.set_ylabel("motion unexplained (%)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", lw=0.4)
    figure.suptitle(f"Reconstruction error, in-sample\n{title}", fontsize=7)
    legend_below(figure, axes, columns=2)
    return figure


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """What the labels of one pair of axes mean, for the whole figure."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, handlelength=1.6, columnspacing=1.2
    )
