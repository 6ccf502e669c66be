"""The smallest difference that a comparison paired by seed can find, before it runs or where it found nothing.

A difference of this size is found, in its own direction, with a probability of POWER by the tests of `stats.paired`:
two-sided, at 5 % shared by all tests of the family (the first and hardest of Holm's steps).

Shape suffixes: C comparisons, Q nodes of an integral.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy import special

from harness.config import RECALIBRATED, ConfigError
from harness.report.stats.paired import ALPHA, NONE, SEEDS, Floats, half_width
from harness.storage.files import read_bytes
from harness.storage.inside import files_in, folders

POWER = 0.8
STD = 0.5
"""The standard deviation of differences between seeds, in points of accuracy, that is taken where no earlier results
say it: what averages of recent weights have to their base on a subset of some thousand images."""
NODES = 64


def findable(std_C: Floats, n_C: Floats, shared_C: Floats, tests: int = 1, own_C: Floats = NONE) -> Floats:
    """The smallest differences that would have been found, (C,), in the unit of `std_C`.

    `std_C` are standard deviations of the differences between seeds, n_C their pairs, `shared_C` the variance that
    the test images give the mean and own_C what they give a pair, `tests` the size of the family. NaN below SEEDS
    pairs, and where nothing varies, so that nothing is known of chance.
    """
    n_C, own_C = n_C.astype(np.float64), np.broadcast_to(own_C, n_C.shape)
    found_C = np.full(len(n_C), math.nan)
    tested = (n_C >= SEEDS) & (std_C**2 + shared_C + own_C > 0)
    std, n, shared, own = std_C[tested], n_C[tested], shared_C[tested], own_C[tested]
    std = np.maximum(std, np.sqrt(own))
    if not len(n):
        return found_C
    nodes_Q = (np.arange(NODES) + 0.5) / NODES
    # Quantiles of the sample standard deviation, over which the width of the interval varies.
    sample_CQ = std[:, None] * np.sqrt(2 * special.gammaincinv((n[:, None] - 1) / 2, nodes_Q) / (n[:, None] - 1))
    half_CQ = half_width(sample_CQ, n[:, None], shared[:, None], ALPHA / tests / 2, own[:, None])
    error_C1 = np.sqrt(std**2 / n + shared)[:, None]
    low, high = np.zeros(len(n)), half_CQ.max(axis=1) + 10 * error_C1[:, 0]
    for _ in range(40):
        middle = (low + high) / 2
        reached = special.ndtr((middle[:, None] - half_CQ) / error_C1).mean(axis=1) >= POWER
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    found_C[tested] = high
    return found_C


def observed_std(lines: Iterable[Mapping[str, Any]]) -> float | None:
    """The standard deviation between seeds that earlier results say differences have; None where they say none.

    `lines` are of `stats.comparisons.comparisons`, each of one row, as numbers or as a suite's comparisons.csv has
    them: the median over the methods and rows that at least 3 seeds compare with the recalibrated base under its own
    BatchNorm policy, in points of accuracy, and that differ at all.
    """
    known = [
        float(line["std"])
        for line in lines
        if line["control"] == RECALIBRATED
        and line["metric"] == "test_accuracy"
        and str(line["alike"]) == "True"
        and int(line["finished"]) >= SEEDS
        and float(line["std"] or 0) > 0
    ]
    return median(known) if known else None


def earlier_std(root: Path, rows: Collection[tuple[str, str]]) -> tuple[float | None, list[str]]:
    """`observed_std` of the suites below a results folder, over their models and data sets that are among `rows`, and
    the names of those suites. A table that cannot be read says nothing."""
    found: list[Mapping[str, Any]] = []
    suites = []
    for path in [path for suite in folders(root / "suites") for path in files_in(suite / "tables", "comparisons.csv")]:
        try:
            text = io.StringIO(read_bytes(path).decode(), newline="")
            own = [line for line in csv.DictReader(text) if (line["model"], line["dataset"]) in rows]
            if observed_std(own) is None:
                continue
        except (OSError, ValueError, KeyError, TypeError, csv.Error):
            continue
        found += own
        suites.append(path.parent.parent.name)
    return observed_std(found), suites


def smallest_difference(seeds: int, std_of_differences: float = STD, tests: int = 1) -> float:
    """The smallest true difference that a suite finds with a probability of 80 %, NaN below 3 seeds.

    `std_of_differences` is the standard deviation between seeds of the paired difference, from earlier results of the
    same base (see `observed_std`) or by default STD points of accuracy; `tests` is the number of
    comparisons that the suite names as primary over all its rows. The result has the unit of the standard deviation.
    The error that all seeds share through their test images is not in it: the square root of disagreement / images
    bounds it, 0.3 points for methods that disagree on 5 % of 5,000 images. ConfigError for numbers out of bounds.
    """
    if seeds < 1 or tests < 1:
        raise ConfigError(f"seeds and tests must be at least 1, got {seeds} and {tests}")
    if not 0 < std_of_differences < math.inf:
        raise ConfigError(f"std_of_differences must be above 0 and finite, got {std_of_differences}")
    return float(findable(np.array([std_of_differences]), np.array([seeds]), np.zeros(1), tests)[0])
