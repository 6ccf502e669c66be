"""Average ranks over models and data sets, as a critical-difference diagram."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.report.figures.style import LINE, WIDE, Labels
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
    half = -(-len(names) // 2)
    tied = cliques(ranks, difference)
    depth = 0.35 + 0.22 * len(tied)
    figure = Figure(figsize=(WIDE, 0.9 + 0.16 * half + 0.1 * len(tied)), layout="constrained")
    axes = figure.subplots()
    count = len(names)
    axes.set(xlim=(0.2 - 0.35 * count, count + 0.8 + 0.35 * count), ylim=(-depth - 0.42 * half, 1.1))
    axes.axis("off")
    axes.plot([1, count], [0, 0], color=LINE, lw=0.8)
    for tick in range(1, count + 1):
        axes.plot([tick, tick], [0, 0.12], color=LINE, lw=0.6)
        axes.text(tick, 0.2, str(tick), ha="center", va="bottom", fontsize=6)
    for place, name in enumerate(names):
        rank, style = float(ranks[place]), style_of(name)
        left = place < half
        row = place if left else count - 1 - place
        height = -depth - 0.42 * row
        edge = 0.6 - 0.02 * count if left else count + 0.4 + 0.02 * count
        axes.plot([rank, rank, edge], [0, height, height], color=style.colour, lw=0.9, ls=style.line)
        axes.plot(rank, 0, marker=style.point, color=style.colour, ms=3.5, lw=0, clip_on=False)
        text = f"{style.label}  {rank:.2f}" if left else f"{rank:.2f}  {style.label}"
        shift = -0.05 if left else 0.05
        axes.text(edge + shift, height, text, ha="right" if left else "left", va="center", fontsize=6)
    for place, clique in enumerate(tied):
        height = -0.2 - 0.2 * place
        ends = [ranks[clique[0]] - 0.06, ranks[clique[-1]] + 0.06]
        axes.plot(ends, [height, height], color=LINE, lw=2.6, solid_capstyle="butt")
    axes.plot([1, 1 + difference], [0.8, 0.8], color=LINE, lw=1.2, marker="|", ms=4)
    wide = f"critical difference {difference:.2f}"
    axes.text(1 + difference / 2, 0.88, wide, ha="center", va="bottom", fontsize=6)
    metric = METRICS[labels.metric].title
    figure.suptitle(
        f"Average ranks over {blocks:.0f} models and data sets (Friedman p = {p:.2g})\n{metric}", fontsize=7
    )
    return figure
