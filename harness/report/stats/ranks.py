"""Which method ranks first over many models and data sets: average ranks, where they decide anything.

Average ranks and the Nemenyi critical difference (Demšar, Statistical Comparisons of Classifiers over Multiple Data
Sets, JMLR 2006, section 3.2.2) with Iman and Davenport's form of Friedman's test, from BLOCKS models and data sets on.
Both take blocks to be independent, so the optimizers of one model and data set are averaged to one block; those of one
data set are still not independent of each other, which a reader must weigh. Where Friedman's test finds nothing there
are no ranks: an order of methods that nothing tells apart says nothing.

Shape suffixes: A methods, B blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from harness.report.stats.means import CONTROL
from harness.report.stats.paired import ALPHA, Floats
from harness.results.columns import METRICS, ROW_METHOD

BLOCK = ["model", "dataset"]
"""What makes a block: whatever the optimizer."""
BLOCKS = 5
"""The fewest blocks that have average ranks."""


@dataclass(frozen=True)
class AverageRanks:
    """Average ranks over blocks, the best first, with the difference that two need to be told apart at 5 %."""

    ranks: pd.Series[float]
    blocks: int
    critical_difference: float
    friedman_p: float
    left_out: list[str]
    """The methods that have no mean in some row."""

    @property
    def table(self) -> pd.DataFrame:
        """One line per method: method, rank, critical_difference, blocks, friedman_p."""
        return (
            self.ranks.rename_axis("method")
            .reset_index()
            .assign(critical_difference=self.critical_difference, blocks=self.blocks, friedman_p=self.friedman_p)
        )


def cliques(rank_A: Floats, critical_difference: float) -> list[range]:
    """Largest runs of places in ascending ranks that cannot be told apart, each of at least two."""
    runs: list[range] = []
    last = 0
    for start in range(len(rank_A)):
        stop = int(np.searchsorted(rank_A, rank_A[start] + critical_difference, side="right"))
        if stop - start > 1 and stop > last:
            runs.append(range(start, stop))
        last = max(last, stop)
    return runs


def nemenyi(methods: int, blocks: int) -> float:
    """Critical difference of average ranks at 5 %: q sqrt(k (k + 1) / (6 N)); Demšar 2006, section 3.2.2."""
    from scipy import stats  # a second of import, which most commands do without

    q = float(stats.studentized_range.ppf(1 - ALPHA, methods, math.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * blocks))


def friedman(rank_BA: Floats) -> float:
    """The p value of Iman and Davenport's F form of Friedman's test on ranks (B blocks, A methods)."""
    B, A = rank_BA.shape
    chi2 = 12 * B / (A * (A + 1)) * (float((rank_BA.mean(0) ** 2).sum()) - A * (A + 1) ** 2 / 4)
    most = B * (A - 1)
    if chi2 >= most * (1 - 1e-12):
        return 0.0
    return float(special.fdtrc(A - 1, (A - 1) * (B - 1), (B - 1) * chi2 / (most - chi2)))


def average_ranks(frame: pd.DataFrame, metric: str = "test_accuracy") -> AverageRanks | str:
    """Ranks of means over seeds and optimizers, averaged over blocks, ties sharing the mean rank; or why there are
    none, in words.

    Methods under another BatchNorm policy than the control are left out, and so are those without a mean in some row.
    """
    done = frame[(frame["status"] == "done") & np.isfinite(frame[metric].astype("float64"))]
    policy = done.loc[done["method"] == CONTROL, ["base_key", "batchnorm"]].set_index("base_key")["batchnorm"]
    alike = done[done["batchnorm"] == done["base_key"].map(policy)]
    blocks, rows = (len(frame.groupby(names)) for names in (BLOCK, ROW_METHOD[:-1]))
    if blocks < BLOCKS:
        return f"average ranks need at least {BLOCKS} models or data sets, got {blocks}"
    means = alike.groupby(ROW_METHOD, sort=False)[metric].mean().unstack("method")
    complete = means.reindex(columns=frame["method"].unique()).dropna(axis="columns")
    left_out = [str(method) for method in frame["method"].unique() if method not in complete.columns]
    if len(complete) < rows or len(complete.columns) < 2:
        return "average ranks need at least 2 methods that are done in every row"
    by_block = complete.groupby(level=BLOCK, sort=False).mean()
    better_first = -by_block if METRICS[metric].higher_is_better else by_block
    rank_BA = better_first.astype("float64").round(9).rank(axis="columns").to_numpy()
    p = friedman(rank_BA)
    if p >= ALPHA:
        return f"average ranks are not given, since they decide nothing (Friedman p = {p:.2g})"
    averages = pd.Series(rank_BA.mean(0), index=complete.columns, name="rank").sort_values(kind="stable")
    return AverageRanks(averages, blocks, nemenyi(len(averages), blocks), p, left_out)
