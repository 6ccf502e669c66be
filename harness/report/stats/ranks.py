"""Which methods can be told apart: shared ranks within a model, dataset and optimizer, average ranks over several.

Within a row every two methods are compared by a paired t test over the same seeds, adjusted by Holm over all pairs.
Methods are taken in the order of their means; one joins the rank before it as long as it cannot be told apart from any
method of that rank. So methods of one rank are tied, all of them with each other, and a method that is found better
always has the better rank.

Over rows: average ranks and the Nemenyi critical difference (Demšar, Statistical Comparisons of Classifiers over
Multiple Data Sets, JMLR 2006, section 3.2.2) with Iman and Davenport's form of Friedman's test, from BLOCKS rows on.
Rows of one data set are not independent of each other, as both tests assume: a reader must weigh that.

Shape suffixes: A methods, P pairs (seeds).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from harness.report.stats.means import ALL, CONTROL, Row
from harness.report.stats.paired import ALPHA, SEEDS, holm, paired_t, spread
from harness.results.columns import METRICS, ROW, ROW_METHOD

BLOCKS = 5
"""The fewest rows that have average ranks."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """Methods of one row, the best first, in ranks that tied methods share; what is not ranked, and why."""

    ranks: dict[str, int]
    unranked: dict[str, str]

    @property
    def groups(self) -> list[list[str]]:
        """The methods of every rank."""
        return [[m for m, rank in self.ranks.items() if rank == place] for place in dict.fromkeys(self.ranks.values())]

    @property
    def tied_with_best(self) -> set[str]:
        """The methods of the first rank where it has several."""
        first = self.groups[0] if self.ranks else []
        return set(first) if len(first) > 1 else set()


def pairwise(value_AP: Floats) -> Floats:
    """Holm-adjusted p values of paired t tests between all rows, (A, A), 1 on the diagonal."""
    A, P = value_AP.shape
    first, second = np.triu_indices(A, 1)
    differences = (value_AP[first] - value_AP[second]).round(9)
    p = [paired_t(float(row.mean()), spread(row), P) for row in differences]
    p_AA = np.ones((A, A))
    p_AA[first, second] = p_AA[second, first] = holm(np.array(p))
    return p_AA


def shared_ranks(p_AA: Floats) -> list[int]:
    """Ranks of methods that are ordered from the best on, from 1; a rank says how many methods stand before it."""
    ranks: list[int] = []
    start = 0
    for place in range(len(p_AA)):
        if (p_AA[start:place, place] < ALPHA).any():
            start = place
        ranks.append(start + 1)
    return ranks


def rankings(frame: pd.DataFrame, metric: str = "test_accuracy") -> dict[Row, Ranking]:
    """The ranking of every row, and where there are several one over all of them, under ALL, on their pairs together.

    Methods under another BatchNorm policy than the control are not ranked, nor are those that lack a seed that others
    of the row finished; with fewer than SEEDS seeds nobody is.
    """
    found = {tuple(map(str, key)): _ranking(cells, metric) for key, cells in frame.groupby(ROW, sort=False)}
    return found | {(ALL,) * len(ROW): _ranking(frame, metric)} if len(found) > 1 else found


def _ranking(cells: pd.DataFrame, metric: str) -> Ranking:
    control = cells.loc[cells["method"] == CONTROL, "batchnorm"]
    policy = control.iloc[0] if len(control) else cells["batchnorm"].mode().iloc[0]
    unranked = dict.fromkeys(cells.loc[cells["batchnorm"] != policy, "method"], "another BatchNorm policy")
    alike = cells[~cells["method"].isin(unranked)]
    finished = alike[(alike["status"] == "done") & np.isfinite(alike[metric].astype("float64"))]
    counts = finished.groupby("method", sort=False)["base_key"].nunique()
    most = int(counts.max()) if len(counts) else 0
    for method in alike["method"].unique():
        found = int(counts.get(method, 0))
        if found < most or found < SEEDS:
            reason = f"{found} of {most} seeds" if found < most else f"fewer than {SEEDS} seeds"
            unranked[method] = reason
    ranked = finished[~finished["method"].isin(unranked)]
    if ranked["seed"].nunique() < SEEDS:
        unranked |= dict.fromkeys(ranked["method"], f"fewer than {SEEDS} seeds")
        return Ranking({}, unranked)
    # Rounded so that equal means do not order by rounding; then the plan's order stands.
    value_AP = ranked.pivot(index="method", columns="base_key", values=metric).reindex(ranked["method"].unique())
    if value_AP.isna().to_numpy().any():
        lacking = value_AP.index[value_AP.isna().any(axis=1)]
        return Ranking({}, unranked | dict.fromkeys(map(str, lacking), "other seeds than the others"))
    means = value_AP.mean(axis=1).round(9)
    ordered = means.sort_values(ascending=not METRICS[metric].higher_is_better, kind="stable").index
    ranks = shared_ranks(pairwise(value_AP.loc[ordered].to_numpy(dtype=np.float64)))
    return Ranking(dict(zip(map(str, ordered), ranks, strict=True)), unranked)


@dataclass(frozen=True)
class AverageRanks:
    """Average ranks over rows, the best first, with the difference that two need to be told apart at 5 %."""

    ranks: pd.Series[float]
    blocks: int
    critical_difference: float
    friedman_p: float
    left_out: list[str]
    """The methods that have no mean in some row."""

    @property
    def table(self) -> pd.DataFrame:
        """One line per method: method, rank, critical_difference, rows, friedman_p."""
        return (
            self.ranks.rename_axis("method")
            .reset_index()
            .assign(critical_difference=self.critical_difference, rows=self.blocks, friedman_p=self.friedman_p)
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
    """The p value of Iman and Davenport's F form of Friedman's test on ranks (B rows, A methods)."""
    B, A = rank_BA.shape
    chi2 = 12 * B / (A * (A + 1)) * (float((rank_BA.mean(0) ** 2).sum()) - A * (A + 1) ** 2 / 4)
    most = B * (A - 1)
    if chi2 >= most * (1 - 1e-12):
        return 0.0
    return float(special.fdtrc(A - 1, (A - 1) * (B - 1), (B - 1) * chi2 / (most - chi2)))


def average_ranks(frame: pd.DataFrame, metric: str = "test_accuracy") -> AverageRanks | str:
    """Ranks of means over seeds, averaged over rows, ties sharing the mean rank; or why there are none, in words.

    Methods under another BatchNorm policy than the control are left out, and so are those without a mean in some row.
    """
    done = frame[(frame["status"] == "done") & np.isfinite(frame[metric].astype("float64"))]
    policy = done.loc[done["method"] == CONTROL, ["base_key", "batchnorm"]].set_index("base_key")["batchnorm"]
    alike = done[done["batchnorm"] == done["base_key"].map(policy)]
    blocks = len(frame.groupby(ROW))
    if blocks < BLOCKS:
        return f"average ranks need at least {BLOCKS} models, data sets or optimizers, got {blocks}"
    means = alike.groupby(ROW_METHOD, sort=False)[metric].mean().unstack("method")
    complete = means.reindex(columns=frame["method"].unique()).dropna(axis="columns")
    left_out = [str(method) for method in frame["method"].unique() if method not in complete.columns]
    if len(complete) < blocks or len(complete.columns) < 2:
        return "average ranks need at least 2 methods that are done in every row"
    better_first = -complete if METRICS[metric].higher_is_better else complete
    rank_BA = better_first.astype("float64").round(9).rank(axis="columns").to_numpy()
    averages = pd.Series(rank_BA.mean(0), index=complete.columns, name="rank").sort_values(kind="stable")
    return AverageRanks(averages, blocks, nemenyi(len(averages), blocks), friedman(rank_BA), left_out)
