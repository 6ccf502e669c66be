"""How sure a mean of paired differences is: intervals, tests and effect sizes of one sample of differences.

Intervals are bootstrap intervals of the mean difference. A plain percentile interval is too narrow where there are few
seeds, so its level is taken from Student's t (the expanded percentile; Hesterberg, What Teachers Should Know About the
Bootstrap, Am. Stat. 2015). Resamples of up to EXACT seeds are enumerated, not drawn: with 3 seeds the interval is from
the lowest to the highest difference. Of normal differences a 95 % interval holds the mean in 75 % of cases with 3
seeds, 88 % with 4, 92 % with 5 and 94 to 95 % with 7 and more (measured on 4,000 samples each), so Student's own
interval is kept beside it.

Tests are paired t tests, two-sided; Wilcoxon's signed-rank test is kept beside them (with 3 pairs it cannot go below
0.25). Below SEEDS pairs nothing is tested. Distributions are those of scipy.special, whose import is quick.

Shape suffixes: P pairs, R resamples.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray
from scipy import special

SEEDS = 3
"""The fewest pairs that are tested."""
LEVEL = 0.95
ALPHA = 1 - LEVEL
EXACT = 7
"""The most pairs whose resamples are enumerated (1,716 distinct ones)."""
RESAMPLES = 20_000

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
        """Statistics of finite differences, method minus control; a win is a difference to the better side."""
        n = len(difference_P)
        mean = float(difference_P.mean()) if n else math.nan
        std = spread(difference_P)
        low, high = bootstrap_interval(difference_P)
        half = float(special.stdtrit(n - 1, 0.5 + LEVEL / 2)) * std / math.sqrt(n) if n > 1 else math.nan
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
    return float(2 * special.stdtr(n - 1, -abs(mean) / (std / math.sqrt(n))))


def wilcoxon(difference_P: Floats) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, NaN below SEEDS, 1 where nothing differs."""
    if len(difference_P) < SEEDS:
        return math.nan
    if not difference_P.any():
        return 1.0
    from scipy import stats  # a second of import, which most commands do without

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
    t = float(special.stdtrit(n - 1, 0.5 + level / 2))
    tail = float(special.ndtr(-math.sqrt(n / (n - 1)) * t))
    counts_RP, share_R = _resamples(n)
    # Summed in one order whatever the library of matrix products.
    mean_R = sum((counts_RP[:, place] * value for place, value in enumerate(np.sort(value_P))), np.zeros(1)) / n
    return _quantile(mean_R, share_R, tail), -_quantile(-mean_R, share_R, tail)


def _quantile(mean_R: Floats, share_R: Floats, tail: float) -> float:
    """The lowest mean up to which the shares add up to the tail."""
    order = np.argsort(mean_R, kind="stable")
    place = int(np.searchsorted(np.cumsum(share_R[order]), tail))
    return float(mean_R[order[min(place, len(order) - 1)]])
