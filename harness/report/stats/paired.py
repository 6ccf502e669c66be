"""How sure a mean of paired differences is: its interval, its tests, its effect size, and what could have been found.

A difference of test accuracies varies with the seeds of the runs and with the images of the one test split that all
seeds share. The first is seen in the spread between the seeds; it holds what chance a seed has with its images too.
The second, what the same images do to all seeds alike, is in no spread between seeds and is known only where cells keep
which images they got right (`stats.images`): its variance is then `shared`, otherwise 0 and an interval covers seeds
alone.

Intervals. Of the seeds it is Student's below EXACT seeds, since any bootstrap of so few is too narrow (percentile
intervals called 95 % hold the mean in 75 % of cases with 3 seeds) and above MANY, whose mean is normal, and between
them the expanded percentile bootstrap (Hesterberg, What Teachers Should Know About the Bootstrap, Am. Stat. 2015). The
images' part is a mean over thousands of images, whose resamples are normal. The two are joined by their squares on each
side, sqrt(seeds^2 + images^2), which never covers less than each of them is called (Banerjee, Sankhya 1960): with 3
seeds 95 to 98 %, where Welch and Satterthwaite's degrees of freedom would cover 92 %. A bootstrap that resamples seeds
and images together would count each seed's own chance with its images three times over (Owen, Ann. Appl. Stat. 2007).

Whatever training adds to it, seeds differ by no less than each seed's own chance with its images, the residual of the
two-way layout, which thousands of images tell well where the spread of a few seeds may come out small by luck, or as
nothing. Where the images are known, the seeds' part of an interval is therefore at least the normal one of that
variance. Where they are not, and all seeds differ by the same, there is no interval: nothing is known of chance.

Tests, two-sided, are those of the same joined interval with Student's part: p is the level at which it just reaches 0.
Without images that is the paired t test. Two methods are equivalent where two one-sided tests keep the difference
within a margin (TOST; Schuirmann 1987). Below SEEDS pairs nothing is tested. Distributions are those of scipy.special,
whose import is quick.

Shape suffixes: P pairs, R resamples, C comparisons, Q nodes of an integral.
"""

from __future__ import annotations

import math
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
"""The fewest pairs whose interval is a bootstrap's, and the most whose resamples are enumerated (1,716 distinct)."""
RESAMPLES = 20_000
MANY = 200
"""The most pairs whose interval is a bootstrap's: the mean of more is normal, and resamples of them take memory."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Paired:
    """Paired differences in short: P pairs, their mean and sample standard deviation, interval, p value, effect.

    `shared` is the variance of the mean that comes from the test images, and `own` that of a single pair that does,
    0 where they are not known. `low` and `high` are the ends of the 95 % interval, NaN where nothing varies.
    `effect` is Hedges' g of paired differences (mean over standard deviation, corrected for few pairs), infinite
    where all differences are the same and not 0. NaN where there are too few pairs: 2 for a spread, 3 for an effect,
    SEEDS for a p value.
    """

    n: int
    mean: float
    std: float
    shared: float
    own: float
    low: float
    high: float
    p: float
    effect: float
    wins: int
    losses: int

    @classmethod
    def of(cls, difference_P: Floats, higher_is_better: bool = True, shared: float = 0.0, own: float = 0.0) -> Paired:
        """Statistics of finite differences, method minus control; a win is a difference to the better side.

        `shared` and `own` are variances from the test images, see `stats.images.ImageVariance`.
        """
        n = len(difference_P)
        mean = float(difference_P.mean()) if n else math.nan
        std = spread(difference_P)
        low, high = interval(difference_P, shared, own)
        gain_P = difference_P if higher_is_better else -difference_P
        p = two_sided(np.array([mean]), np.array([std]), np.array([n]), np.array([shared]), np.array([own]))
        return cls(
            n=n,
            mean=mean,
            std=std,
            shared=shared,
            own=own,
            low=low,
            high=high,
            p=float(p[0]),
            effect=hedges_g(mean, std, n),
            wins=int((gain_P > 0).sum()),
            losses=int((gain_P < 0).sum()),
        )


def spread(difference_P: Floats) -> float:
    """Sample standard deviation, NaN below 2 and exactly 0 where only rounding sets the differences apart."""
    if len(difference_P) < 2:
        return math.nan
    std = float(difference_P.std(ddof=1))
    return 0.0 if std <= 1e-9 * float(np.abs(difference_P).max()) else std


NONE = np.zeros(1)


def half_width(std: Floats, n: Floats, shared: Floats, tail: Floats | float, own: Floats = NONE) -> Floats:
    """Half of the joined interval with Student's part that leaves `tail` on either side; `shared` and `own` as in
    `Paired`."""
    normal = special.ndtri(tail)  # below 0, as Student's quantile is
    seeds = np.minimum(special.stdtrit(n - 1, tail) * std, normal * np.sqrt(own)) / np.sqrt(n)
    return np.asarray(np.hypot(seeds, normal * np.sqrt(shared)), dtype=np.float64)


def two_sided(distance_C: Floats, std_C: Floats, n_C: Floats, shared_C: Floats, own_C: Floats = NONE) -> Floats:
    """Two-sided p values of distances of means from what is tested, (C,): the level at which the interval reaches it.

    NaN below SEEDS pairs. Without any spread between seeds and images nothing is known of chance: then 1 for a distance
    of 0, otherwise the exact sign test's 2^(1 - n).
    """
    n_C, own_C = n_C.astype(np.float64), np.broadcast_to(own_C, n_C.shape)
    p_C = np.full(len(n_C), math.nan)
    certain = (n_C >= SEEDS) & (std_C == 0) & (shared_C == 0) & (own_C == 0)
    p_C[certain] = np.where(distance_C[certain] == 0, 1.0, 2.0 ** (1 - n_C[certain]))
    open_C = (n_C >= SEEDS) & ~certain
    distance, std, n, shared, own = (v[open_C] for v in (np.abs(distance_C), std_C, n_C, shared_C, own_C))
    known = shared + own > 0
    low, high = np.full(len(n), math.log(1e-300)), np.zeros(len(n))
    for _ in range(60 if known.any() else 0):
        middle = (low + high) / 2
        wider = half_width(std, n, shared, np.exp(middle) / 2, own) > distance
        low, high = np.where(wider, middle, low), np.where(wider, high, middle)
    t = distance * np.sqrt(n) / np.where(std > 0, std, np.inf)
    p_C[open_C] = np.where(known, np.exp((low + high) / 2), 2 * special.stdtr(n - 1, -t))
    return p_C


def equivalence(
    mean_C: Floats, std_C: Floats, n_C: Floats, shared_C: Floats, margin: float, own_C: Floats = NONE
) -> Floats:
    """p values of the two one-sided tests that a difference lies within the margin, (C,): the larger of the two.

    NaN below SEEDS pairs.
    """
    p_C = np.zeros(len(mean_C))
    for distance_C in (margin - mean_C, margin + mean_C):
        half_C = two_sided(distance_C, std_C, n_C, shared_C, own_C) / 2
        p_C = np.maximum(p_C, np.where(distance_C > 0, half_C, 1 - half_C))
    return p_C


def hedges_g(mean: float, std: float, n: int) -> float:
    """Standardised mean of paired differences with the correction for few pairs, 1 - 3 / (4 (n - 1) - 1); NaN below 3,
    as the correction of 2 is 0."""
    if n < 3:
        return math.nan
    if std == 0:
        return math.copysign(math.inf, mean) if mean != 0 else 0.0
    correction = 1 - 3 / (4 * (n - 1) - 1)
    return correction * mean / std


def holm(p: Floats, tests: int | None = None) -> Floats:
    """Holm's step-down adjusted p values over a family of `tests`, by default of those given.

    NaN, of tests that were not made, stay NaN. Those of the family that were not made, or are not given, count as if
    they found nothing, so that what is found does not depend on how much of a family is finished.
    """
    adjusted = np.full(len(p), math.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    most = len(order) if tests is None else tests
    steps = p[order] * np.arange(most, most - len(order), -1)
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


def interval(value_P: Floats, shared: float = 0.0, own: float = 0.0) -> tuple[float, float]:
    """The 95 % interval of the mean over seeds, and over images where `shared` and `own`, the variances of
    `stats.images.ImageVariance`, are known; NaN below 2 values and where nothing varies. The same bits wherever it is
    computed."""
    n, std = len(value_P), spread(value_P)
    if n < 2 or std == shared == own == 0:
        return math.nan, math.nan
    mean = float(value_P.mean())
    few = n < EXACT or n > MANY
    least = half_width(np.array(std if few else 0.0), np.array(float(n)), np.zeros(1), ALPHA / 2, np.array([own]))
    low, high = (mean, mean) if few else bootstrap_interval(value_P)
    images = float(special.ndtri(1 - ALPHA / 2)) * math.sqrt(shared)
    below, above = (math.hypot(max(part, float(least[0])), images) for part in (mean - low, high - mean))
    return mean - below, mean + above


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
    if n > EXACT:
        place = math.ceil(tail * RESAMPLES) - 1
        ends = np.partition(mean_R, [place, RESAMPLES - 1 - place])
        return float(ends[place]), float(ends[RESAMPLES - 1 - place])
    return _quantile(mean_R, share_R, tail), -_quantile(-mean_R, share_R, tail)


def _quantile(mean_R: Floats, share_R: Floats, tail: float) -> float:
    """The lowest mean up to which the shares add up to the tail."""
    order = np.argsort(mean_R, kind="stable")
    place = int(np.searchsorted(np.cumsum(share_R[order]), tail))
    return float(mean_R[order[min(place, len(order) - 1)]])
