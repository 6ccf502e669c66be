"""Figures of an adopted run's dynamics, each drawn from its tables alone; an axis of time shows steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.adopted.dynamics import WALK
from harness.report.figures.modes import grouped
from harness.report.figures.style import COLOURS, LINE, SIZE, WIDE, WIDTH, Labels, entitle, legend_below, legend_of
from harness.report.figures.style import WALK as GREY
from harness.report.figures.ticks import FittingLocator, label_ticks
from harness.report.method_styles import style_of_model

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class OfTime(Labels):
    """Labels with the name of the axis of time."""

    unit: str = "step"


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _unit(labels: Labels) -> str:
    return labels.unit if isinstance(labels, OfTime) else "step"


def draw_distances(tables: Tables, labels: Labels) -> Figure:
    """The distance between every two snapshots, and the cosine of every two successive steps."""
    long, turns = tables["distances"], tables["cosines"]
    square = long.pivot_table(index="at", columns="other", values="distance", aggfunc="mean")
    width = labels.width(WIDE)
    figure = Figure(figsize=(width, 0.42 * width), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
    edges = _edges(square.index.to_numpy(dtype=np.float64))
    mesh = left.pcolormesh(edges, edges, square.to_numpy(), cmap="cividis", rasterized=True)
    left.set_aspect("equal")
    left.invert_yaxis()
    left.set_xlabel(_unit(labels))
    left.set_ylabel(_unit(labels))
    left.xaxis.set_major_locator(FittingLocator(4))
    bar = figure.colorbar(mesh, ax=left, shrink=0.9, pad=0.02)
    bar.set_label("distance between snapshots")
    bar.outline.set_linewidth(0.6)
    for seed, of_seed in turns.groupby("seed"):
        right.plot(
            of_seed["at"], of_seed["cosine"], lw=1.1, marker="o", ms=2, color=_colour(seed, turns), label=f"seed {seed}"
        )
    right.axhline(0, color=GREY, lw=0.9, ls="--", label="random walk")
    right.set_ylim(-1.05, 1.05)
    right.set_xlabel(_unit(labels))
    right.set_ylabel("cosine of successive steps")
    right.xaxis.set_major_locator(FittingLocator(5))
    _plain(right)
    entitle(figure, labels, "Distances and turns")
    legend_below(figure, right)
    return label_ticks(figure)


def _edges(at: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The borders of cells around places that increase."""
    middle = (at[1:] + at[:-1]) / 2
    return np.concatenate([[2 * at[0] - middle[0]], middle, [2 * at[-1] - middle[-1]]])


def _colour(seed: object, table: pd.DataFrame) -> str:
    return COLOURS[list(dict.fromkeys(table["seed"])).index(seed) % len(COLOURS)]


def draw_path(tables: Tables, labels: Labels) -> Figure:
    """The run over its two largest principal components, and the share of its motion that each component has."""
    points, shares = tables["path"], tables["components"]
    width = labels.width(WIDE)
    figure = Figure(figsize=(width, 0.42 * width), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (kind, seed), own in points.groupby(["kind", "seed"], sort=False):
        walks = kind == WALK
        if walks and seed != points["seed"].iloc[0]:
            continue
        colour = GREY if walks else _colour(seed, points)
        left.plot(
            own["first"], own["second"], color=colour, lw=0.8 if walks else 1.2, ls="--" if walks else "-",
            marker="o", ms=2, label="random walk" if walks else f"seed {seed}", zorder=1 if walks else 2,
        )  # fmt: skip
        left.plot(own["first"].iloc[:1], own["second"].iloc[:1], marker="s", ms=4, color=colour, lw=0)
    left.set_xlabel("first principal component (square: first snapshot)")
    left.set_ylabel("second")
    left.xaxis.set_major_locator(FittingLocator(5))
    _plain(left)
    for kind, own in shares.groupby("kind", sort=False):
        mean = own.groupby("component")["share"].mean()
        style = {"color": GREY, "ls": "--"} if kind == WALK else {"color": LINE, "ls": "-"}
        right.plot(mean.index, 100 * mean, marker="o", ms=2.5, lw=1, label=str(kind), **style)
    right.set_yscale("log")
    right.set_xlabel("principal component")
    right.set_ylabel("share of the motion (%)")
    right.xaxis.set_major_locator(FittingLocator(integer=True))
    _plain(right)
    entitle(figure, labels, "Path over principal components")
    handles = [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0][:1]]
    legend_of(figure, handles, [str(handle.get_label()) for handle in handles])
    return label_ticks(figure)


MEASURES = {
    "step": ("relative step", 1.0),
    "moved": ("ever moved (%)", 100.0),
    "changed": ("changes per snapshot (%)", 100.0),
    "below_spacing": ("below one spacing (%)", 100.0),
}


def draw_motion(tables: Tables, labels: Labels) -> Figure:
    """How far the tensors move between two snapshots, and how many of their weights do."""
    table = tables["motion"]
    shown = [name for name in MEASURES if table[name].notna().any()]
    row = table["tensor"].map(grouped(list(dict.fromkeys(table["tensor"]))))
    weighted = {name: table[name] * table["weights"] for name in shown}
    sums = table.assign(row=row, **weighted).groupby("row", sort=False)[["weights", *shown]].sum()
    means = sums[shown].div(sums["weights"].clip(lower=1), axis=0)
    width = labels.width(WIDE)
    figure = Figure(figsize=(width, 0.6 + 0.13 * max(len(means), 6)), layout="constrained")
    grid = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, name in zip(grid, shown, strict=True):
        title, scale = MEASURES[name]
        axes.barh(range(len(means)), scale * means[name], 0.8, color=style_of_model("post-hoc CMD").colour)
        axes.set_xlabel(title)
        axes.xaxis.set_major_locator(FittingLocator(3))
        axes.tick_params(axis="y", length=0)
        _plain(axes)
    grid[0].set_yticks(range(len(means)), [str(name)[-34:] for name in means.index])
    grid[0].set_ylim(len(means) - 0.4, -0.6)
    entitle(figure, labels, "Motion of every layer")
    return label_ticks(figure)


def draw_errors_over_time(tables: Tables, labels: Labels) -> Figure:
    """How far models of the run lie from it after every snapshot: fitted to all of it, and forecasts from its start."""
    table = tables["errors_over_time"]
    kinds = list(dict.fromkeys(table["kind"]))
    width = labels.width(WIDE if len(kinds) > 1 else WIDTH)
    figure = Figure(figsize=(width, 2.2), layout="constrained")
    grid = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axes, kind in zip(grid, kinds, strict=True):
        for model, own in table[table["kind"] == kind].groupby("model", sort=False):
            by = own.groupby("at")["error"]
            mean, std = by.mean(), by.std().fillna(0)
            style = style_of_model(str(model))
            axes.plot(
                mean.index,
                mean,
                color=style.colour,
                ls=style.line,
                lw=1.1,
                marker=style.point,
                ms=2.5,
                label=str(model),
            )
            axes.fill_between(mean.index, mean - std, mean + std, color=style.colour, alpha=0.13, lw=0)
        axes.set_title(kind)
        axes.set_xlabel(_unit(labels))
        axes.xaxis.set_major_locator(FittingLocator(5))
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=SIZE)
        _plain(axes)
    grid[0].set_ylabel("distance from the run, in parts of\nits way from first to last snapshot")
    entitle(figure, labels, "Errors over time")
    return label_ticks(figure)
