"""The figures of modes: correlation of sampled weights, modes of every layer, correlation within the modes.

Each is drawn from tables of a method alone, so that whoever gives the tables has the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.report.figures.style import COLOURS, LINE, SIZE, WALK, WIDTH, Labels, entitle, inches, legend_below
from harness.report.figures.ticks import label_ticks

ROWS = 60
"""The most bars that can still be read in one column."""
OUTLINES = ("solid", "dashed", "dotted")
"""The lines of surrogates, in the order of the table `rho`."""


class ColouredModes(NamedTuple):
    """Modes that share one colour."""

    label: str
    colour: str
    modes: list[int]


def shown_modes(weights_M: pd.Series[int]) -> list[ColouredModes]:
    """A colour for every mode; of more than ten, for the nine with the most weights, and one for all others."""
    ordered = weights_M.sort_values(ascending=False, kind="stable").index
    own = sorted(ordered if len(ordered) <= len(COLOURS) else ordered[: len(COLOURS) - 1])
    shown = [ColouredModes(f"mode {mode}", colour, [mode]) for mode, colour in zip(own, COLOURS, strict=False)]
    rest = sorted(set(ordered) - set(own))
    return [*shown, ColouredModes(f"{len(rest)} other modes", COLOURS[-1], rest)] if rest else shown


def grouped(tensors: list[str]) -> dict[str, str]:
    """The row of each tensor: its module, or as much of its path as leaves at most ROWS rows, but at least one name."""
    paths = [(tensor.rpartition(".")[0] or tensor).split(".") for tensor in tensors]
    for depth in range(max(map(len, paths)), 0, -1):
        rows = [".".join(path[:depth]) for path in paths]
        if len(set(rows)) <= ROWS:
            break
    return dict(zip(tensors, rows, strict=True))


def draw_correlation(tables: Mapping[str, pd.DataFrame], labels: Labels) -> Figure:
    """Heat map of |correlation| between the sampled weights, ordered by mode, with the modes' borders.

    A position of the table `correlation` stands for the weights of `sample` from there to the next position.
    """
    correlation, sample = tables["correlation"].set_index("position"), tables["sample"]
    width = labels.width(WIDTH)
    figure = Figure(figsize=(width, 0.86 * width), layout="constrained")
    axes = figure.subplots()
    K = len(sample)
    first = correlation.index.to_numpy()
    missing = [str(position) for position in first if str(position) not in correlation]
    if missing:
        raise ValueError(f"the table correlation has no column {', '.join(missing)}")
    end = len(first) * (first[1] - first[0] if len(first) > 1 else K)
    square = correlation[[str(position) for position in first]].to_numpy(dtype=np.float64)
    image = axes.imshow(square, cmap="cividis", vmin=0, vmax=1, extent=(0, end, end, 0))
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
    entitle(figure, labels, "Correlation of sampled weights")
    bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)
    bar.set_label("|correlation| of trajectories")
    bar.outline.set_linewidth(0.6)
    return label_ticks(figure)


def draw_layers(tables: Mapping[str, pd.DataFrame], labels: Labels) -> Figure:
    """Share of every mode in every layer, as stacked bars from the first layer down, with the weights that moved."""
    layers = tables["layers"]
    tensors = list(dict.fromkeys(layers["tensor"]))
    row = layers["tensor"].map(grouped(tensors))
    table = layers.assign(row=row).pivot_table(index="row", columns="mode", values="weights", aggfunc="sum", sort=False)
    total = table.sum(axis=1)
    share = 100 * table.div(total.clip(lower=1), axis=0)
    whole = labels.width(WIDTH)
    names = [_tail(str(name), 0.4 * whole) for name in table.index]
    figure = Figure(figsize=(whole, 0.6 + 0.13 * max(len(table), 6)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(table))
    for label, colour, modes in shown_modes(table.sum()):
        width = share[modes].sum(axis=1).to_numpy()
        axes.barh(range(len(table)), width, 0.86, left=left, color=colour, edgecolor="white", lw=0.25, label=label)
        left += width
    axes.set_yticks(range(len(table)), names)
    axes.tick_params(axis="y", length=0)
    for place, count in enumerate(total):
        axes.text(101.5, place, f"{count:,}", va="center")
    axes.set_xlim(0, 100)
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.text(101.5, -0.9, "weights", va="bottom")
    axes.set_xlabel("share of the weights that moved (%)")
    entitle(figure, labels, "Modes of every layer")
    legend_below(figure, axes)
    return label_ticks(figure)


def _tail(name: str, room: float) -> str:
    """A layer's name, of a long one as much of its end as `room` inches take, behind an ellipsis."""
    if inches(name) <= room:
        return name
    return next(text for cut in range(1, len(name) + 1) if inches(text := f"…{name[cut:]}") <= room)


def draw_rho(tables: Mapping[str, pd.DataFrame], labels: Labels) -> Figure:
    """Histograms of |rho| one above the other, each mode below the outlines of what surrogates give, where given."""
    rho = tables["rho"].astype({"mode": "str"})
    counts = rho.pivot_table(index="mode", columns="low", values="weights", aggfunc="sum", sort=False)
    mean = rho.groupby("mode", sort=False)["mean_abs_rho"].first()
    surrogates = [mode for mode in counts.index if not mode.isdecimal()]
    outlines = {name: counts.loc[name] / max(counts.loc[name].sum(), 1) for name in surrogates}
    counts = counts.drop(index=surrogates).rename(index=int)
    if counts.empty:
        raise ValueError("the table rho has no mode that is a number")
    total = counts.sum(axis=1)
    rows = [ColouredModes("all modes", LINE, list(counts.index)), *shown_modes(total)]
    edges = np.append(counts.columns.to_numpy(), rho["high"].max())
    figure = Figure(figsize=(labels.width(WIDTH), 0.4 + 0.56 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (label, colour, modes) in zip(grid, rows, strict=True):
        weights = max(int(total[modes].sum()), 1)
        average = sum(total[mode] * mean[str(mode)] for mode in modes) / weights
        axes.stairs(counts.loc[modes].sum() / weights, edges, fill=True, color=colour)
        for style, (name, outline) in zip(cycle(OUTLINES), outlines.items(), strict=False):
            of = f"{name}: mean |ρ| {mean[name]:.2f}"
            axes.stairs(outline, edges, color=WALK, lw=0.9, ls=style, label=of)
        axes.set_title(f"{label}: {weights:,} weights, mean |ρ| {average:.2f}", loc="left", pad=1)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    grid[-1].set_xlim(0, 1)
    grid[-1].set_xlabel("|ρ|, correlation of a weight with its mode's reference")
    figure.supylabel("share of the mode's weights", fontsize=SIZE)
    entitle(figure, labels, "Correlation within the modes")
    legend_below(figure, grid[-1])
    return label_ticks(figure)
