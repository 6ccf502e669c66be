"""The figures of a search, drawn from its trials: history, importances, and the map over two parameters.

For one column of a paper; style and colours are those of the report's.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.distributions import FloatDistribution, IntDistribution

from harness.report.figures.style import LINE, MARK, STYLE, WALK, WIDE, WIDTH, Labels, entitle, legend_below
from harness.report.figures.ticks import FittingLocator, label_ticks, number_texts, rounded_apart
from harness.storage.files import csv_text, read_json, write_bytes, write_json
from harness.storage.inside import is_file
from harness.tune.results import importances, trials_frame
from harness.tune.study import Search

DRAWN = "drawn.json"
"""beside the figures: what they were drawn from"""
NAMES = ("history", "importances", "map")
MAP = ("modes", "warmup")
"""the parameters of the map where both are searched: M and F"""
BINS = 6
"""of a parameter in the map, at most"""


def draw_search(search: Search) -> list[Path]:
    """Write the figures of a search, as PDF and PNG, with the importances as a table; the paths of the PDFs.

    Those of the same trials are left as they are: importances of some hundred trials take most of a minute.
    """
    trials, folder = trials_frame(search), search.folder / "figures"
    digest = _digest(trials, search)
    if (found := _drawn(folder, digest)) is not None:
        return found
    weights = importances(search)
    with matplotlib.rc_context(STYLE):
        figures = {"history": draw_history(trials, search)}
        if weights is not None:
            figures["importances"] = draw_importances(weights, search)
        pair = map_axes(search, weights)
        complete = trials[trials["state"] == "complete"]
        if pair is not None and len(complete) > 0:
            figures["map"] = draw_map(complete, pair, search)
        for name, figure in figures.items():
            for kind in ("pdf", "png"):
                buffer = io.BytesIO()
                figure.savefig(buffer, format=kind)
                write_bytes(folder / f"{name}.{kind}", buffer.getvalue())
    if weights is not None:
        write_bytes(folder / "importances.csv", csv_text(weights).encode())
    write_json(folder / DRAWN, {"digest": digest, "figures": list(figures)})
    return [folder / f"{name}.pdf" for name in figures]


def _digest(trials: pd.DataFrame, search: Search) -> str:
    """Of all that determines the figures: the trials, the search, and the code."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    settings = f"{search.label} {search.config!r} {search.space.distributions!r}"
    return hashlib.sha256(code + settings.encode() + trials.to_csv().encode()).hexdigest()


def _drawn(folder: Path, digest: str) -> list[Path] | None:
    """The figures that were drawn of that digest, None where they are others or one is gone."""
    try:
        said = read_json(folder / DRAWN)
        if said["digest"] != digest:
            return None
        names = [name for name in NAMES if name in said["figures"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = all(is_file(folder / f"{name}.{kind}") for name in names for kind in ("pdf", "png"))
    return [folder / f"{name}.pdf" for name in names] if whole else None


def _unit(search: Search) -> str:
    return "validation accuracy (%)" if search.config.metric == "accuracy" else "validation loss"


def draw_history(trials: pd.DataFrame, search: Search) -> Figure:
    """Every trial with its spread over seeds, the best so far, and the default."""
    column = f"val_{search.config.metric}"
    figure = Figure(figsize=(WIDTH, 2.3), layout="constrained")
    axes = figure.subplots()
    complete = trials[trials["state"] == "complete"]
    best = complete[column].cummax() if search.config.metric == "accuracy" else complete[column].cummin()
    axes.errorbar(
        complete["trial"], complete[column], complete[f"{column}_std"].fillna(0), fmt="o", ms=2.2, lw=0.5, color=WALK,
        label="trial, ± deviation over seeds",
    )  # fmt: skip
    axes.step(complete["trial"], best, where="post", color=MARK, lw=1.1, label="best so far")
    default = trials.loc[trials["state"] == "default", column]
    if len(default) and not default.isna().all():
        axes.axhline(default.iloc[0], color=LINE, lw=0.8, ls=(0, (3, 2)), label="default")
    others = trials[trials["state"].isin(["pruned", "diverged", "failed", "refused"])]
    if len(others):
        low = axes.get_ylim()[0]
        axes.plot(others["trial"], [low] * len(others), "x", ms=3, color=WALK, clip_on=False, label="no value")
        axes.set_ylim(bottom=low)
    axes.xaxis.set_major_locator(FittingLocator(6, integer=True))
    axes.set_xlabel("trial")
    axes.set_ylabel(_unit(search))
    axes.spines[["top", "right"]].set_visible(False)
    entitle(figure, Labels(search.label), "History")
    legend_below(figure, axes)
    return label_ticks(figure)


def draw_importances(weights: pd.DataFrame, search: Search) -> Figure:
    """Bars with the central 90 % of the bootstrap resamples."""
    figure = Figure(figsize=(WIDTH, 0.8 + 0.28 * len(weights)), layout="constrained")
    axes = figure.subplots()
    share = 100 * weights["importance"]
    below, above = share - 100 * weights["low"], 100 * weights["high"] - share
    axes.barh(weights["parameter"], share, 0.6, color="#88CCEE")
    axes.errorbar(share, weights["parameter"], xerr=[below, above], fmt="none", ecolor=LINE, elinewidth=0.8, capsize=2)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the variance (%), with its 90 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    entitle(
        figure,
        Labels(search.label),
        f"Importance of parameters (fANOVA, {int(weights['resamples'].iloc[0])} resamples)",
    )
    return label_ticks(figure)


def map_axes(search: Search, weights: pd.DataFrame | None) -> tuple[str, str] | None:
    """The two parameters of the map: M and F, otherwise the two numbers that matter most; None for fewer than two."""
    numeric = [n for n, d in search.space.distributions.items() if isinstance(d, IntDistribution | FloatDistribution)]
    if set(MAP) <= set(numeric):
        return MAP
    order = [*weights["parameter"]] if weights is not None else numeric
    chosen = [name for name in order if name in numeric][:2]
    return (chosen[0], chosen[1]) if len(chosen) == 2 else None


def edges(distribution: IntDistribution | FloatDistribution) -> np.ndarray[Any, Any]:
    """Borders of at most BINS bins, even on the parameter's scale but for rounding; whole numbers' lie between them."""
    whole = isinstance(distribution, IntDistribution)
    low, high = (distribution.low - 0.5, distribution.high + 0.5) if whole else (distribution.low, distribution.high)
    count = min(BINS, distribution.high - distribution.low + 1) if whole else BINS
    spaced = np.geomspace(low, high, int(count) + 1) if distribution.log else np.linspace(low, high, int(count) + 1)
    if not whole:
        return rounded_apart(spaced)
    spaced[1:-1] = np.floor(spaced[1:-1]) + 0.5
    return np.unique(spaced)


def binned(trials: pd.DataFrame, pair: tuple[str, str], column: str, search: Search) -> pd.DataFrame:
    """Per bin of both parameters, x and y: the mean over its trials of value and of spread over seeds, and how many."""
    place = {}
    for axis, name in zip("xy", pair, strict=True):
        distribution = search.space.distributions[name]
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        borders = edges(distribution)
        place[axis] = np.clip(np.digitize(trials[f"params_{name}"].astype(float), borders) - 1, 0, len(borders) - 2)
    table = trials.assign(**place).groupby(["x", "y"])
    return table.agg(value=(column, "mean"), spread=(f"{column}_std", "mean"), trials=(column, "size")).reset_index()


def draw_map(trials: pd.DataFrame, pair: tuple[str, str], search: Search) -> Figure:
    """Heat maps over two parameters: the metric, and where there are several seeds its standard deviation over these;
    numbers count trials."""
    table = binned(trials, pair, f"val_{search.config.metric}", search)
    panels = [("value", _unit(search)), ("spread", "standard deviation over seeds")]
    panels = [(column, label) for column, label in panels if table[column].notna().any()]
    figure = Figure(figsize=(WIDTH if len(panels) == 1 else WIDE, 2.5), layout="constrained")
    for axes, (column, label) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_panel(figure, axes, table, column, label, pair, search)
    entitle(figure, Labels(search.label), f"{pair[0]} x {pair[1]}; numbers count trials")
    return label_ticks(figure)


def _draw_panel(
    figure: Figure, axes: Axes, table: pd.DataFrame, column: str, label: str, pair: tuple[str, str], search: Search
) -> None:
    borders = []
    for name in pair:
        distribution = search.space.distributions[name]
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        borders.append(edges(distribution))
    grid = np.full((len(borders[1]) - 1, len(borders[0]) - 1), np.nan)
    grid[table["y"], table["x"]] = table[column]
    image = axes.pcolormesh(np.arange(grid.shape[1] + 1), np.arange(grid.shape[0] + 1), grid, cmap="cividis")
    low, high = np.nanmin(grid), np.nanmax(grid)
    for x, y, count in zip(table["x"], table["y"], table["trials"], strict=True):
        colour = "white" if grid[y, x] < (low + high) / 2 else "black"
        axes.text(x + 0.5, y + 0.5, str(count), ha="center", va="center", color=colour)
    for axis, name, edge in ((axes.xaxis, pair[0], borders[0]), (axes.yaxis, pair[1], borders[1])):
        whole = isinstance(search.space.distributions[name], IntDistribution)
        ends = _bin_labels(edge, whole)
        axis.set_ticks(np.arange(len(ends)) + 0.5, ends)
        axis.set_label_text(name)
        if axis is axes.xaxis and max(map(len, ends)) > 5:
            axis.set_tick_params(rotation=45)
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label(label)
    bar.outline.set_linewidth(0.6)


def _bin_labels(borders: np.ndarray[Any, Any], whole: bool) -> list[str]:
    """What lies in each bin: a whole number, or the first and the last."""
    shift = 0.5 if whole else 0.0
    firsts, lasts = number_texts(borders[:-1] + shift), number_texts(borders[1:] - shift)
    return [first if first == last else f"{first}–{last}" for first, last in zip(firsts, lasts, strict=True)]
