"""Average ranks over models and data sets, as a critical-difference diagram."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.report.figures.style import LINE, WIDE, Labels, entitle, fitted, height_of
from harness.report.method_styles import style_of
from harness.report.stats.means import Row
from harness.report.stats.ranks import average_ranks, cliques
from harness.report.stats.summary import Results
from harness.results.columns import METRICS


def ranks_data(found: Results, row: Row) -> pd.DataFrame | str:
    """The table of `stats.ranks.average_ranks`, or why there is none of several rows, in words."""
    ranks = average_ranks(found.frame, found.metric)
    if isinstance(ranks, str):
        return ranks if found.several else pd.DataFrame()
    return ranks.table


def draw_ranks(table: pd.DataFrame, labels: Labels) -> Figure:
    """Critical-difference diagram (Demšar 2006, figure 1): average ranks on a line, bars join what ties."""
    names, ranks = [*map(str, table["method"])], table["rank"].to_numpy(dtype=np.float64)
    difference, blocks, p = table[["critical_difference", "blocks", "friedman_p"]].iloc[0]
    count, half = len(names), -(-len(names) // 2)
    tied = cliques(ranks, difference)
    width = labels.width(WIDE)
    texts = [
        fitted(f"{style_of(name).label}  {rank:.2f}", 0.28 * width) for name, rank in zip(names, ranks, strict=True)
    ]
    depth = 0.12 + 0.07 * len(tied)
    below, lowest = {}, depth
    for side in (range(half), range(count - 1, half - 1, -1)):
        reached = depth
        for place in side:
            high = height_of(texts[place]) + 0.03
            below[place] = reached + high / 2
            reached += high
        lowest = max(lowest, reached)
    above = 0.5
    figure = Figure(figsize=(width, above + lowest + 0.05), layout="constrained")
    axes = figure.subplots()
    # heights are in inches
    axes.set(xlim=(0.6, count + 0.4), ylim=(-lowest, above))
    axes.axis("off")
    axes.plot([1, count], [0, 0], color=LINE, lw=0.8)
    every = max(1, round(0.3 * count / (0.4 * width)))
    for tick in range(1, count + 1):
        axes.plot([tick, tick], [0, 0.04], color=LINE, lw=0.6)
        if (tick - 1) % every == 0:
            axes.text(tick, 0.06, str(tick), ha="center", va="bottom")
    for place, (name, text) in enumerate(zip(names, texts, strict=True)):
        rank, style = float(ranks[place]), style_of(name)
        left = place < half
        height = -below[place]
        edge = 0.6 if left else count + 0.4
        axes.plot([rank, rank, edge], [0, height, height], color=style.colour, lw=0.9, ls=style.line)
        axes.plot(rank, 0, marker=style.point, color=style.colour, ms=3.5, lw=0, clip_on=False)
        axes.annotate(
            text, (edge, height), (-3 if left else 3, 0), textcoords="offset points", va="center",
            ha="right" if left else "left", multialignment="right" if left else "left",
        )  # fmt: skip
    for place, clique in enumerate(tied):
        height = -0.07 - 0.07 * place
        ends = [ranks[clique[0]] - 0.06, ranks[clique[-1]] + 0.06]
        axes.plot(ends, [height, height], color=LINE, lw=2.6, solid_capstyle="butt")
    axes.plot([1, 1 + difference], [0.26, 0.26], color=LINE, lw=1.2, marker="|", ms=4, clip_on=False)
    axes.text(1, 0.31, f"critical difference {difference:.2f}", ha="left", va="bottom")
    metric = METRICS[labels.metric].title
    title = f"Average ranks over {blocks:.0f} models and data sets (Friedman p = {p:.2g})"
    entitle(figure, replace(labels, title=metric), title)
    return figure
