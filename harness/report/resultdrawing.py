"""The figures of results, drawn from their tables alone; looks are `looks`', so a method has one colour everywhere.

Curves have a panel for each family of methods with plain training in each, so that 20 methods stay readable; few
methods share one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from harness.report.curvedata import METRICS
from harness.report.drawing import LINE, WIDTH, legend_below
from harness.report.looks import LINES, PLAIN, POINTS, by_family, look
from harness.report.ranks import AverageRanks

WIDE = 7.0
"""inches; two columns of a paper"""
CURVES = ("val_accuracy", "val_loss")
TOGETHER = 7
"""most methods whose curves can be told apart in one panel"""
BEYOND = 8
"""an axis of differences holds the methods that reach at most so many times as far as half of them do"""


def draw_curves(table: pd.DataFrame, title: str) -> Figure:
    """Means over seeds with bands of one standard deviation, by epoch: a column per family, accuracy above loss."""
    panels = _panels(table)
    width = WIDTH if len(panels) == 1 else WIDE
    lines = max(len(methods) for _, methods in panels)
    figure = Figure(figsize=(width, 3.2 + 0.11 * lines), layout="constrained")
    grid = figure.subplots(len(CURVES), len(panels), sharex=True, sharey="row", squeeze=False)
    for column, (family, methods) in enumerate(panels):
        for place, metric in enumerate(CURVES):
            axes = grid[place][column]
            for method in methods:
                _draw_curve(axes, table[table["method"] == method], method, metric)
            _frame_values(axes, table, metric)
            axes.spines[["top", "right"]].set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        grid[0][column].set_title(family)
        grid[-1][column].set_xlabel("epoch")
        _legend_under(grid[-1][column], -0.32)
    for place, metric in enumerate(CURVES):
        grid[place][0].set_ylabel(METRICS[metric])
    figure.suptitle(title, fontsize=7)
    return figure


def _panels(table: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Titles and methods of panels: one for all where they are few, otherwise one per family with plain training."""
    families = by_family(list(dict.fromkeys(map(str, table["method"]))))
    if sum(map(len, families.values())) <= TOGETHER:
        return [("", [method for members in families.values() for method in members])]
    plain = families.pop(PLAIN, [])
    return [(family, [*plain, *members]) for family, members in families.items()]


def _legend_under(axes: Axes, height: float) -> None:
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, height), frameon=False, handlelength=2.6, labelspacing=0.25)


def _draw_curve(axes: Axes, curve: pd.DataFrame, method: str, metric: str) -> None:
    """A method's mean and band; a single epoch is a point."""
    looks = look(method)
    mean, std = curve[f"{metric}_mean"].to_numpy(), curve[f"{metric}_std"].fillna(0).to_numpy()
    epoch = curve["epoch"].to_numpy()
    if len(epoch) == 1:
        axes.errorbar(
            epoch, mean, yerr=std, color=looks.colour, marker=POINTS[looks.marker], ms=5, lw=0, elinewidth=0.8,
            label=looks.label, zorder=4,
        )  # fmt: skip
        return
    mark: dict[str, Any] = {"marker": POINTS[looks.marker], "ms": 2.2} if len(epoch) <= 12 else {}
    axes.plot(epoch, mean, color=looks.colour, ls=LINES[looks.dash], lw=1.1, label=looks.label, zorder=3, **mark)
    axes.fill_between(epoch, mean - std, mean + std, color=looks.colour, alpha=0.13, lw=0)


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


def cost_table(cells: pd.DataFrame) -> pd.DataFrame:
    """Means and standard deviations over finished seeds, by method: test accuracy, seconds, gradients.

    Cells of which one of these is not known are left out.
    """
    seconds = cells["train_seconds"] + cells["method_seconds"]
    gradients = cells["gradients_full"] + cells["gradients_subspace"]
    spent = cells[["method", "test_accuracy"]].assign(seconds=seconds, gradients=gradients)
    known = np.isfinite(spent[["test_accuracy", "seconds", "gradients"]]).all(axis=1)
    groups = spent[known].groupby("method", sort=False)
    means, stds = groups.mean().add_suffix("_mean"), groups.std(ddof=1).add_suffix("_std")
    return pd.concat([groups.size().rename("n"), means, stds], axis=1).reset_index()


def draw_cost(table: pd.DataFrame, title: str) -> Figure:
    """Test accuracy against seconds of training and method, and against gradient evaluations; all means are in sight,
    bars of one standard deviation may go beyond."""
    figure = Figure(figsize=(WIDE, 2.6 + 0.1 * (len(table) // 5)), layout="constrained")
    grid = figure.subplots(1, 2, sharey=True)
    for axes, cost, label in zip(
        grid, ("seconds", "gradients"), ("seconds of training and method", "gradient evaluations (images)"), strict=True
    ):
        for line in table.to_dict("records"):
            looks = look(line["method"])
            x, y = line[f"{cost}_mean"], line["test_accuracy_mean"]
            axes.errorbar(
                x, y, xerr=np.nan_to_num(line[f"{cost}_std"]), yerr=np.nan_to_num(line["test_accuracy_std"]),
                color=looks.colour, elinewidth=0.6, lw=0, alpha=0.7, zorder=2,
            )  # fmt: skip
            axes.plot(
                x, y, color=looks.colour, marker=POINTS[looks.marker], ms=7 if looks.marker == "star" else 4.5, lw=0,
                label=looks.label, markeredgecolor="white", markeredgewidth=0.4, zorder=3,
            )  # fmt: skip
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e6e6", lw=0.4)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_major_locator(MaxNLocator(5))
    means = table["test_accuracy_mean"]
    pad = 0.08 * float(np.ptp(means)) + 0.5
    grid[0].set_ylim(means.min() - pad, means.max() + pad)
    grid[0].set_ylabel("test accuracy (%)")
    figure.suptitle(f"Accuracy against cost\n{title}", fontsize=7)
    legend_below(figure, grid[0], columns=5)
    return figure


def draw_differences(pairs: pd.DataFrame, compared: pd.DataFrame, unit: str, title: str) -> Figure:
    """Differences of every seed to each control, with their mean and interval; filled where a test finds a difference.

    `pairs` has method, control, seed and difference, `compared` the lines of `stats.comparisons` for them.
    """
    controls = list(dict.fromkeys(compared["control"]))
    methods = _ordered(compared, controls)
    figure = Figure(figsize=(WIDE, 0.9 + 0.17 * len(methods)), layout="constrained")
    grid = figure.subplots(1, len(controls), sharey=True, squeeze=False)[0]
    place = {method: -index for index, method in enumerate(methods)}
    for axes, control in zip(grid, controls, strict=True):
        axes.axvline(0, color=look(control).colour, lw=0.9, ls=LINES[look(control).dash])
        own = pairs[pairs["control"] == control]
        height = own["method"].map(place).to_numpy(dtype=np.float64) - 0.28 + _spread_out(own)
        axes.set_xlim(_limits(own, compared[compared["control"] == control]))
        for line in compared[compared["control"] == control].to_dict("records"):
            _draw_difference(axes, line, place[line["method"]])
        inside = own["difference"].between(*axes.get_xlim()).to_numpy()
        colours = [look(m).colour for m in own.loc[inside, "method"]]
        axes.scatter(own.loc[inside, "difference"], height[inside], s=5, color=colours, lw=0, alpha=0.75)
        axes.set_xlabel(f"{unit} above {control}")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#e6e6e6", lw=0.4)
        axes.set_axisbelow(True)
    grid[0].set_yticks([place[m] for m in methods], [look(m).label for m in methods])
    grid[0].set_ylim(min(place.values()) - 0.7, 0.6)
    figure.suptitle(
        f"Differences paired by seed: mean, 95 % interval, each pair below; filled: significant\n{title}", fontsize=7
    )
    return figure


def _ordered(compared: pd.DataFrame, controls: list[str]) -> list[str]:
    """Methods by their mean difference to the first control, the highest first; a control's own is 0."""
    means = compared.pivot(index="method", columns="control", values="mean")[controls[0]]
    means.loc[[method for method in means.index if method == controls[0]]] = 0.0
    return [str(method) for method in means.sort_values(ascending=False, kind="stable").index]


def _limits(own: pd.DataFrame, compared: pd.DataFrame) -> tuple[float, float]:
    """Ends of an axis that holds 0 and all pairs and intervals but those of methods far beyond the others."""
    differences = own.groupby("method")["difference"]
    spans = compared.set_index("method")[["mean", "low", "high"]].assign(
        least=differences.min(), most=differences.max()
    )
    far = spans.abs().max(axis=1)
    inside = spans[far <= BEYOND * far.median()].to_numpy(dtype=np.float64)
    low, high = min(float(np.nanmin(inside, initial=0.0)), 0.0), max(float(np.nanmax(inside, initial=0.0)), 0.0)
    pad = 0.06 * (high - low) or 1.0
    return low - pad, high + pad


def _spread_out(own: pd.DataFrame) -> NDArray[np.float64]:
    """A little height by seed, so that points do not cover each other."""
    order = own["seed"].rank(method="dense").to_numpy(dtype=np.float64)
    most = float(order.max(initial=1.0))
    return np.asarray(0.12 * (order / most - 0.5), dtype=np.float64)


def _draw_difference(axes: Axes, line: dict[str, Any], height: float) -> None:
    """A mean with its interval; where they go beyond the axis, they are written at its end."""
    looks = look(str(line["method"]))
    significant = line["verdict"] in ("better", "worse")
    left, right = axes.get_xlim()
    known = np.isfinite(line["low"])
    if min(line["mean"], line["low"] if known else line["mean"]) < left:
        _write_beyond(axes, line, left, height)
    elif max(line["mean"], line["high"] if known else line["mean"]) > right:
        _write_beyond(axes, line, right, height)
    if known:
        axes.plot([line["low"], line["high"]], [height, height], color=looks.colour, lw=1.6, solid_capstyle="butt")
    axes.plot(
        line["mean"], height, marker=POINTS[looks.marker], ms=4.5, color=looks.colour,
        markerfacecolor=looks.colour if significant else "white", markeredgewidth=0.9, lw=0,
    )  # fmt: skip


def _write_beyond(axes: Axes, line: dict[str, Any], edge: float, height: float) -> None:
    """An arrow at an end of the axis, with the mean and the interval that lie beyond."""
    colour, inwards = look(str(line["method"])).colour, -float(np.copysign(1, edge))
    interval = f" [{line['low']:+.1f}, {line['high']:+.1f}]" if np.isfinite(line["low"]) else ""
    axes.annotate(
        f"{line['mean']:+.1f}{interval}".replace("-", "\N{MINUS SIGN}"), (edge, height), fontsize=5.5, color=colour,
        xytext=(8 * inwards, 0), textcoords="offset points", va="center", ha="left" if inwards > 0 else "right",
        zorder=5, bbox={"fc": "white", "ec": "none", "pad": 0.6},
    )  # fmt: skip
    axes.plot(edge, height, marker="<" if inwards > 0 else ">", ms=4, color=colour, lw=0, clip_on=False)


def draw_profile(table: pd.DataFrame, target: str, measure: str) -> Figure:
    """Performance profiles as steps, the ratio on a logarithmic axis where it reaches far."""
    panels = _panels(table)
    several = len(panels) > 1
    size = (WIDE, 2.6 + 0.12 * (table["method"].nunique() // 5)) if several else (WIDTH, 2.9)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    end = max(float(table["ratio"].max()) * 1.08, 1.5)
    drawn = {}
    for axes, (family, methods) in zip(grid, panels, strict=True):
        for method in methods:
            drawn[look(method).label] = _draw_steps(axes, table[table["method"] == method], method, end)
        axes.set_title(family)
        axes.spines[["top", "right"]].set_visible(False)
    if end > 8:
        grid[0].set_xscale("log")
    grid[0].set(xlim=(1, end), ylim=(-2, 103))
    grid[0].set_ylabel("bases on which the target is reached (%)")
    grid[len(grid) // 2].set_xlabel(f"{measure}, over the fastest method's")
    problems = int(table["problems"].max())
    figure.suptitle(f"Performance profile: {problems} bases\ntarget: {target}", fontsize=7)
    figure.legend(
        list(drawn.values()), list(drawn), loc="outside lower center", ncols=5 if several else 2, frameon=False,
        handlelength=2.6, columnspacing=1.2,
    )  # fmt: skip
    return figure


def _draw_steps(axes: Axes, steps: pd.DataFrame, method: str, end: float) -> Line2D:
    """A method's profile as steps up to the end of the axis."""
    looks = look(method)
    ratio, share = [*steps["ratio"], end], [*steps["share"], steps["share"].iloc[-1]]
    (line,) = axes.plot(
        ratio, np.multiply(share, 100), drawstyle="steps-post", color=looks.colour, ls=LINES[looks.dash], lw=1.2,
        label=looks.label, marker=POINTS[looks.marker], ms=3, markevery=[0], clip_on=False,
    )  # fmt: skip
    return line


def draw_ranks(average: AverageRanks, title: str) -> Figure:
    """Critical-difference diagram (Demšar 2006, figure 1): average ranks on a line, bars join what ties."""
    names = list(average.ranks.index)
    half = -(-len(names) // 2)
    cliques = average.cliques
    depth = 0.35 + 0.22 * len(cliques)
    figure = Figure(figsize=(WIDE, 0.9 + 0.16 * half + 0.1 * len(cliques)), layout="constrained")
    axes = figure.subplots()
    count = len(names)
    axes.set(xlim=(0.2 - 0.35 * count, count + 0.8 + 0.35 * count), ylim=(-depth - 0.42 * half, 1.1))
    axes.axis("off")
    axes.plot([1, count], [0, 0], color=LINE, lw=0.8)
    for tick in range(1, count + 1):
        axes.plot([tick, tick], [0, 0.12], color=LINE, lw=0.6)
        axes.text(tick, 0.2, str(tick), ha="center", va="bottom", fontsize=6)
    for place, name in enumerate(names):
        rank, looks = float(average.ranks[name]), look(name)
        left = place < half
        row = place if left else count - 1 - place
        height = -depth - 0.42 * row
        edge = 0.6 - 0.02 * count if left else count + 0.4 + 0.02 * count
        axes.plot([rank, rank, edge], [0, height, height], color=looks.colour, lw=0.9, ls=LINES[looks.dash])
        axes.plot(rank, 0, marker=POINTS[looks.marker], color=looks.colour, ms=3.5, lw=0, clip_on=False)
        text = f"{looks.label}  {rank:.2f}" if left else f"{rank:.2f}  {looks.label}"
        shift = -0.05 if left else 0.05
        axes.text(edge + shift, height, text, ha="right" if left else "left", va="center", fontsize=6)
    for place, clique in enumerate(cliques):
        height = -0.2 - 0.2 * place
        ends = [float(average.ranks[clique[0]]) - 0.06, float(average.ranks[clique[-1]]) + 0.06]
        axes.plot(ends, [height, height], color=LINE, lw=2.6, solid_capstyle="butt")
    axes.plot([1, 1 + average.critical_difference], [0.8, 0.8], color=LINE, lw=1.2, marker="|", ms=4)
    wide = f"critical difference {average.critical_difference:.2f}"
    axes.text(1 + average.critical_difference / 2, 0.88, wide, ha="center", va="bottom", fontsize=6)
    tested = f"Friedman p = {average.friedman_p:.2g}"
    figure.suptitle(f"Average ranks over {average.blocks} rows ({tested})\n{title}", fontsize=7)
    return figure
