"""How much better a method is than its controls, paired by seed, and how sure that is.

A pair is one base: a method and its control watched or branched from the same training run, so a difference has
nothing of the run's own luck. Controls are `base_recalibrated` (what the method does to plain training) and `time_mean`
(what it does beyond averaging the snapshots that CMD sees); only cells under the control's own BatchNorm policy are
tested against it. `base`, the run as it is, stands beside them.

Intervals are bootstrap intervals of the mean difference. A plain percentile interval is too narrow where there are few
seeds, so its level is taken from Student's t (the expanded percentile; Hesterberg, What Teachers Should Know About the
Bootstrap, Am. Stat. 2015). Resamples of up to EXACT seeds are enumerated, not drawn: with 3 seeds the interval is from
the lowest to the highest difference. Of normal differences a 95 % interval holds the mean in 75 % of cases with 3
seeds, 88 % with 4, 92 % with 5 and 94 to 95 % with 7 and more (measured on 4,000 samples each), so Student's own
interval is kept beside it.

Tests are paired t tests, two-sided, adjusted by Holm over the methods that one control is compared with in one row;
Wilcoxon's signed-rank test is kept beside them (with 3 pairs it cannot go below 0.25). Below SEEDS pairs nothing is
tested. Over all rows of a suite together the pairs stand for these models and data, not for others.

Shape suffixes: P pairs, R resamples.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from harness.config import check_choice
from harness.report.tables import METRICS
from harness.results.frame import ROW

CONTROLS = ("base_recalibrated", "time_mean")
BESIDE = "base"
SEEDS = 3
"""fewest pairs for a test"""
LEVEL = 0.95
ALPHA = 1 - LEVEL
EXACT = 7
"""most pairs whose resamples are enumerated (1,716 distinct ones)"""
RESAMPLES = 20_000
ALL = "all"
"""stands in the columns of ROW for all rows of a suite together"""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Paired:
    """Paired differences in short: P pairs, their mean and sample standard deviation, intervals, p values, effect.

    `effect` is Hedges' g of paired differences (mean over standard deviation, corrected for few pairs), infinite where
    all differences are the same and not 0. NaN where there are too few pairs: 2 for a spread, SEEDS for a p value.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float
    t_low: float
    t_high: float
    p: float
    p_wilcoxon: float
    effect: float
    wins: int
    losses: int

    @classmethod
    def of(cls, difference_P: Floats, higher_is_better: bool = True) -> Paired:
        """Of finite differences, method minus control; a win is a difference to the better side."""
        n = len(difference_P)
        mean = float(difference_P.mean()) if n else math.nan
        std = spread(difference_P)
        low, high = bootstrap_interval(difference_P)
        half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * std / math.sqrt(n) if n > 1 else math.nan
        gain_P = difference_P if higher_is_better else -difference_P
        return cls(
            n=n,
            mean=mean,
            std=std,
            low=low,
            high=high,
            t_low=mean - half,
            t_high=mean + half,
            p=paired_t(mean, std, n),
            p_wilcoxon=wilcoxon(difference_P),
            effect=hedges_g(mean, std, n),
            wins=int((gain_P > 0).sum()),
            losses=int((gain_P < 0).sum()),
        )


def spread(difference_P: Floats) -> float:
    """Sample standard deviation, NaN below 2; exactly 0 where only rounding sets the differences apart."""
    if len(difference_P) < 2:
        return math.nan
    std = float(difference_P.std(ddof=1))
    return 0.0 if std <= 1e-9 * float(np.abs(difference_P).max()) else std


def paired_t(mean: float, std: float, n: int) -> float:
    """Two-sided p of the paired t test, NaN below SEEDS.

    Without any spread t says nothing: then 1 for a mean of 0, otherwise the exact sign test's 2^(1 - n).
    """
    if n < SEEDS:
        return math.nan
    if std == 0:
        return 1.0 if mean == 0 else 2.0 ** (1 - n)
    return float(2 * stats.t.sf(abs(mean) / (std / math.sqrt(n)), n - 1))


def wilcoxon(difference_P: Floats) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, NaN below SEEDS, 1 where nothing differs."""
    if len(difference_P) < SEEDS:
        return math.nan
    if not difference_P.any():
        return 1.0
    with warnings.catch_warnings():  # scipy warns where zeros keep it from its exact table
        warnings.simplefilter("ignore")
        return float(stats.wilcoxon(difference_P, zero_method="pratt").pvalue)


def hedges_g(mean: float, std: float, n: int) -> float:
    """Standardised mean of paired differences with the correction for few pairs, 1 - 3 / (4 (n - 1) - 1)."""
    if n < 2:
        return math.nan
    if std == 0:
        return math.copysign(math.inf, mean) if mean != 0 else 0.0
    correction = 1 - 3 / (4 * (n - 1) - 1)
    return correction * mean / std


def holm(p: Floats) -> Floats:
    """Holm's step-down adjusted p values; NaN, of tests that were not made, stay NaN and count for nothing."""
    adjusted = np.full(len(p), math.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


@cache
def _resamples(n: int) -> tuple[Floats, Floats]:
    """Counts (R, n) of every value in resamples of n values, and their probabilities (R,).

    Drawn where there are too many, with NumPy's legacy generator, whose stream is the same in all versions.
    """
    if n > EXACT:
        counts_RP = np.random.RandomState(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
        return counts_RP.astype(np.float64), np.full(RESAMPLES, 1 / RESAMPLES)
    chosen = np.array(list(combinations_with_replacement(range(n), n)))
    counts_RP = (chosen[:, :, None] == np.arange(n)).sum(1)
    ways = np.array([math.factorial(n) / math.prod(map(math.factorial, row)) for row in counts_RP.tolist()])
    return counts_RP.astype(np.float64), ways / float(n) ** n


def bootstrap_interval(value_P: Floats, level: float = LEVEL) -> tuple[float, float]:
    """Expanded percentile interval of the mean; NaN below 2 values. The same bits wherever it is computed."""
    n = len(value_P)
    if n < 2:
        return math.nan, math.nan
    t = float(stats.t.ppf(0.5 + level / 2, n - 1))
    tail = float(stats.norm.cdf(-math.sqrt(n / (n - 1)) * t))
    counts_RP, share_R = _resamples(n)
    # Summed in one order whatever the library of matrix products.
    mean_R = sum((counts_RP[:, place] * value for place, value in enumerate(np.sort(value_P))), np.zeros(1)) / n
    return _quantile(mean_R, share_R, tail), -_quantile(-mean_R, share_R, tail)


def _quantile(mean_R: Floats, share_R: Floats, tail: float) -> float:
    """The lowest mean up to which the shares add up to the tail."""
    order = np.argsort(mean_R, kind="stable")
    place = int(np.searchsorted(np.cumsum(share_R[order]), tail))
    return float(mean_R[order[min(place, len(order) - 1)]])


def pairs(frame: pd.DataFrame, metric: str, control: str) -> pd.DataFrame:
    """One line per finished cell whose base has a finished control: ROW, seed, method, base_key, difference, alike.

    `alike` says whether both are under the same BatchNorm policy. A number that is not finite makes no pair.
    """
    check_choice("metric", metric, METRICS)
    done = frame[(frame["status"] == "done") & np.isfinite(frame[metric].astype("float64"))]
    of_control = done[done["method"] == control].set_index("base_key")
    others = done[(done["method"] != control) & done["base_key"].isin(of_control.index)]
    control_value = others["base_key"].map(of_control[metric].astype("float64"))
    value = others[metric].astype("float64")
    return others[[*ROW, "seed", "method", "base_key"]].assign(
        # What is left of equal numbers by rounding is no difference.
        difference=(value - control_value.astype("float64")).round(9),
        alike=others["batchnorm"] == others["base_key"].map(of_control["batchnorm"]),
    )


COMPARED = [*ROW, "method", "metric", "control", "alike", "seeds"]
"""what names a comparison; `seeds` are the bases planned"""


def comparisons(frame: pd.DataFrame, metric: str = "test_accuracy") -> pd.DataFrame:
    """Every method against every control, and against `base`, per model, dataset and optimizer, and over all of them.

    One line per comparison: COMPARED, finished (different seeds), the fields of Paired, p_holm and verdict (`better`,
    `worse`, `tie`, or why there is no test). Columns of ROW are `all` in the lines over several rows.
    """
    higher = METRICS[metric].higher_is_better
    lines = []
    several = len(frame.groupby(ROW)) > 1
    planned = _planned(frame)
    for control in (*CONTROLS, BESIDE):
        paired = pairs(frame, metric, control)
        for found, of_method in paired.groupby([*ROW, "method"], sort=False):
            key = _names(found)
            lines.append(_line(of_method, key, planned[key], metric, control, higher))
        for method, of_method in paired.groupby("method", sort=False) if several else ():
            count = sum(seeds for key, seeds in planned.items() if key[-1] == method)
            lines.append(_line(of_method, (*(ALL,) * len(ROW), method), count, metric, control, higher))
    table = pd.DataFrame(lines, columns=[*COMPARED, "finished", *Paired.__dataclass_fields__])
    untested = ~table["alike"].astype(bool) | (table["finished"] < SEEDS)
    table.loc[untested, ["p", "p_wilcoxon"]] = math.nan
    table["p_holm"] = math.nan
    for places in table.groupby([*ROW, "control"], sort=False).indices.values():
        table.loc[places, "p_holm"] = holm(table.loc[places, "p"].to_numpy(dtype=np.float64))
    better = table["mean"] > 0 if higher else table["mean"] < 0
    table["verdict"] = [
        _verdict(*line) for line in zip(table["finished"], table["alike"], table["p_holm"], better, strict=True)
    ]
    return table


def _planned(frame: pd.DataFrame) -> dict[tuple[str, ...], int]:
    """Bases that a method is planned on, by (*ROW, method)."""
    counts = frame.groupby([*ROW, "method"], sort=False)["base_key"].nunique()
    return {_names(key): int(count) for key, count in counts.items()}


def _names(key: Any) -> tuple[str, ...]:
    """A key of a group as text."""
    return tuple(map(str, key))


def _line(
    of_method: pd.DataFrame, key: tuple[object, ...], seeds: int, metric: str, control: str, higher: bool
) -> tuple[object, ...]:
    found = Paired.of(of_method["difference"].to_numpy(dtype=np.float64), higher)
    alike, finished = bool(of_method["alike"].all()), of_method["seed"].nunique()
    return (*key, metric, control, alike, seeds, finished, *vars(found).values())


def _verdict(seeds: int, alike: bool, p_holm: float, better: bool) -> str:
    if not alike:
        return "no test: another BatchNorm policy"
    if seeds < SEEDS:
        return f"no test: fewer than {SEEDS} seeds"
    if p_holm >= ALPHA:
        return "tie"
    return "better" if better else "worse"
