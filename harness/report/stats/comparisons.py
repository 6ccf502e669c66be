"""How much better a method is than its controls, paired by seed, how sure that is, and what may be concluded.

A pair is one base: a method and its control watched or branched from the same training run, so a difference has
nothing of the run's own luck. Controls are `base_recalibrated` (what the method does to plain training), `time_mean`
(what it does beyond averaging the snapshots that CMD sees) and the control that the method's preset names; only cells
under the control's own BatchNorm policy are tested against it. `base`, the run as it is, stands beside them.

What is tested is named in the suite before it runs: its `primary` comparisons, a method and a control each, in every
row of the suite in which both are planned (in every row, where a run leaves one of them out of all). They are one
family, over which Holm's correction goes whatever else runs or is finished. Their verdicts are `better`, `worse`,
`equivalent` (within the margin of the plan, in points of accuracy; Holm over the same family) or `undecided`, and
`findable` is the smallest difference that would have been found. A difference that was found is named `better` or
`worse` also where it is within the margin.

All else is exploratory: intervals are not adjusted, nothing is tested, and words say where the interval lies. It is
`ahead` or `behind` where the 95 % interval lies on one side of 0, `close` where the 90 % interval lies within the
margin, else `open`. Over several rows together the differences of a seed are averaged over the rows, which stand for
these models and data, not for others; rows of a constant and of an annealed rate are not averaged with each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from harness.config import check_choice
from harness.report.stats.images import TestImages, shared_variance
from harness.report.stats.means import BESIDE, CONTROLS, Row, over_rows
from harness.report.stats.paired import ALPHA, SEEDS, Floats, Paired, equivalence, holm
from harness.report.stats.power import findable
from harness.results.columns import METRICS, ROW, ROW_METHOD
from harness.results.frame import MARGIN

PRIMARY, EXPLORATORY = "primary", "exploratory"
EQUIVALENT = "equivalent"
POLICY = "no test: another BatchNorm policy"
FEW = f"no test: fewer than {SEEDS} seeds"
PRIMARY_WORDS = (
    "Verdicts of primary comparisons, which the suite named before it ran: better or worse (Holm over all of them, "
    "5 %), equivalent (two one-sided tests within the margin), undecided (with the smallest difference that would have "
    "been found with a probability of 80 %)."
)
EXPLORATORY_WORDS = (
    "Verdicts in parentheses are exploratory, from intervals that are not adjusted: (ahead) or (behind) where the 95 % "
    "interval lies on one side of 0, (close) where the 90 % interval lies within the margin, (open) otherwise."
)
"""What a reader of either kind of verdict must know."""


def pairs(frame: pd.DataFrame, metric: str, control: str, methods: Sequence[str] | None = None) -> pd.DataFrame:
    """One line per finished cell whose base has a finished control: ROW, seed, method, base_key, cell_key,
    control_cell, difference, alike; of the given methods, or of all.

    `alike` says whether both are under the same BatchNorm policy. A number that is not finite makes no pair.
    """
    check_choice("metric", metric, METRICS)
    done = frame[(frame["status"] == "done") & np.isfinite(frame[metric].astype("float64"))]
    of_control = done[done["method"] == control].set_index("base_key")
    others = done[(done["method"] != control) & done["base_key"].isin(of_control.index)]
    if methods is not None:
        others = others[others["method"].isin(methods)]
    return paired(others, others["base_key"], of_control, metric)


def paired(cells: pd.DataFrame, keys: pd.Series, of_control: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The lines of `pairs` of cells with those of `of_control` that have the keys in its index."""
    control_value = keys.map(of_control[metric].astype("float64")).astype("float64")
    return cells[[*ROW, "seed", "method", "base_key", "cell_key"]].assign(
        control_cell=keys.map(of_control["cell_key"]),
        # What is left of equal numbers by rounding is no difference.
        difference=(cells[metric].astype("float64") - control_value).round(9),
        alike=cells["batchnorm"] == keys.map(of_control["batchnorm"]),
    )


COMPARED = [*ROW_METHOD, "metric", "control", "family", "alike", "seeds"]
"""The columns that name a comparison; `seeds` are the bases planned."""


class Key(NamedTuple):
    """A method and its control in one row, or in several that are taken together."""

    row: Row
    method: str
    control: str


def comparisons(frame: pd.DataFrame, metric: str = "test_accuracy", images: TestImages | None = None) -> pd.DataFrame:
    """Every method against its controls, and against `base`, per model, dataset and optimizer, and over all of them.

    One line per comparison: COMPARED, finished (seeds), runs (bases), images (of the test split that the interval
    covers beside the seeds, 0 where they are not known), the fields of Paired, p_holm and p_equivalence (of primary
    ones, both Holm-adjusted), findable, and verdict. Columns of ROW are as in `means.over_rows` in the lines over
    several rows.
    """
    together, planned = over_rows(frame), _planned(frame)
    primary, tests = family(frame)
    lines: list[tuple[object, ...]] = []
    for control, methods in _controls(frame).items():
        found = pairs(frame, metric, control, methods)
        for names, of_method in found.groupby(ROW_METHOD, sort=False):
            *row, method = _names(names)
            key = Key(tuple(row), method, control)
            kind = PRIMARY if key in primary else EXPLORATORY
            lines.append(line_of(of_method, key, kind, planned[key.row, method], metric, images))
        for name, rows in together.items():
            inside = pd.MultiIndex.from_frame(found[ROW].astype("str")).isin(rows)
            for method, of_method in found[inside].groupby("method", sort=False):
                own = [row for row in rows if (row, str(method)) in planned]
                seeds = max(planned[row, str(method)] for row in own)
                key = Key(name, str(method), control)
                lines.append(line_of(of_method, key, EXPLORATORY, seeds, metric, images, own))
    return judged(lines, metric, tests, float(frame.attrs.get("margin", MARGIN)))


def _controls(frame: pd.DataFrame) -> dict[str, list[str] | None]:
    """The controls of a frame, each with the methods that are compared with it; None stands for all."""
    own: dict[str, list[str] | None] = dict.fromkeys((*CONTROLS, BESIDE))
    named = [*zip(frame["method"], frame["control"], strict=True), *map(tuple, frame.attrs.get("primary", ()))]
    for method, control in dict.fromkeys(named):
        methods = own.setdefault(str(control), []) if isinstance(control, str) else None
        if methods is not None:
            methods.append(str(method))
    return own


def family(frame: pd.DataFrame) -> tuple[set[Key], int]:
    """The primary comparisons of a suite that are planned, and the size of their family.

    A comparison that the suite names and no row has both methods of counts once for every row.
    """
    rows: dict[Row, set[str]] = {}
    for names in zip(*(frame[name].tolist() for name in ROW_METHOD), strict=True):
        rows.setdefault(tuple(map(str, names[:-1])), set()).add(str(names[-1]))
    keys: set[Key] = set()
    tests = 0
    for method, control in dict.fromkeys(map(tuple, frame.attrs.get("primary", ()))):
        own = {Key(row, method, control) for row, methods in rows.items() if {method, control} <= methods}
        keys |= own
        tests += len(own) or len(rows)
    return keys, tests


def _planned(frame: pd.DataFrame) -> dict[tuple[Row, str], int]:
    """Bases that a method is planned on, by row and method."""
    counts = frame.groupby(ROW_METHOD, sort=False)["base_key"].nunique()
    keys = [(_names(key), int(count)) for key, count in counts.items()]
    return {(names[:-1], names[-1]): count for names, count in keys}


def _names(key: Any) -> tuple[str, ...]:
    """A key of a group as text."""
    return tuple(map(str, key))


def line_of(
    of_method: pd.DataFrame,
    key: Key,
    kind: str,
    seeds: int,
    metric: str,
    images: TestImages | None,
    rows: Sequence[Row] = (),
) -> tuple[object, ...]:
    """One comparison from its lines of `pairs`, as `judged` takes it.

    Of several rows, which are given, the differences of every seed that all of them have are averaged.
    """
    used = metric == "test_accuracy" and images is not None
    if rows:
        in_rows = of_method.drop_duplicates([*ROW, "seed"]).groupby("seed").size()
        of_method = of_method[of_method["seed"].map(in_rows) == len(rows)]
    parts = list(of_method.groupby(ROW, sort=False)) if rows else [((), of_method)]
    signs, count = (_signs(parts, images) if used and images is not None else None), 0
    shared = 0.0
    if signs is not None:
        shared, count = shared_variance(signs) / max(len(parts), 1) ** 2, signs.shape[1]
    difference = of_method["difference"]
    if rows:
        difference = of_method.groupby("seed", sort=True)["difference"].mean().round(9)
    found = Paired.of(difference.to_numpy(dtype=np.float64), METRICS[metric].higher_is_better, shared)
    alike, finished = bool(of_method["alike"].all()), of_method["seed"].nunique()
    named = (*key.row, key.method, metric, key.control, kind, alike, seeds)
    return (*named, finished, of_method["base_key"].nunique(), count, *vars(found).values())


def _signs(parts: Sequence[tuple[Any, pd.DataFrame]], images: TestImages) -> Any:
    """x_si summed over rows, (S, I); None where images are not known or rows are of several data sets."""
    if len({own["dataset"].iloc[0] for _, own in parts if len(own)}) != 1:
        return None
    whole = None
    for _, own in parts:
        ordered = own.sort_values("seed", kind="stable")
        signs = images.signs(ordered["cell_key"].tolist(), ordered["control_cell"].tolist())
        if signs is None or (whole is not None and whole.shape != signs.shape):
            return None
        whole = signs if whole is None else whole + signs
    return whole


def judged(lines: list[tuple[object, ...]], metric: str, tests: int, margin: float) -> pd.DataFrame:
    """Comparisons of `line_of` with p_holm, p_equivalence, findable and verdict; the family has so many tests."""
    names = [*COMPARED, "finished", "runs", "images", *Paired.__dataclass_fields__]
    table = pd.DataFrame(lines, columns=names).astype({"alike": "bool", "finished": "int64"})
    numbers = [table[name].to_numpy(dtype=np.float64) for name in ("mean", "std", "n", "shared")]
    mean, std, n, shared = numbers
    untested = ~table["alike"].to_numpy() | (table["finished"].to_numpy() < SEEDS)
    table.loc[untested, "p"] = math.nan
    primary = (table["family"] == PRIMARY).to_numpy()
    # A margin in points of accuracy says nothing of a loss.
    within = margin if METRICS[metric].unit == "%" else 0.0
    p_equivalence = np.where(untested, math.nan, equivalence(mean, std, n, shared, within))
    close = p_equivalence < ALPHA
    for name, p in (("p_holm", table["p"].to_numpy(dtype=np.float64)), ("p_equivalence", p_equivalence)):
        table[name] = math.nan
        table.loc[primary, name] = holm(p[primary], max(tests, int(primary.sum())))
    table["findable"] = np.where(primary, findable(std, n, shared, max(tests, 1)), findable(std, n, shared))
    table.loc[untested, "findable"] = math.nan
    gain = mean if METRICS[metric].higher_is_better else -mean
    verdicts = zip(primary.tolist(), table["alike"], untested, table["p_holm"], table["p_equivalence"], strict=True)
    tested = [_verdict(*line, positive) for line, positive in zip(verdicts, gain > 0, strict=True)]
    seen = _seen(table, gain, close)
    table["verdict"] = np.where(primary | untested, tested, seen)
    return table


def _verdict(primary: bool, alike: bool, untested: bool, p: float, p_equivalence: float, positive: bool) -> str:
    """What the tests of a primary comparison say, or why there is none."""
    if untested:
        return FEW if alike else POLICY
    if p < ALPHA:
        return "better" if positive else "worse"
    return EQUIVALENT if p_equivalence < ALPHA else "undecided"


def _seen(table: pd.DataFrame, gain: Floats, close: Any) -> list[str]:
    """Where the unadjusted interval of every comparison lies; one without any width, of few seeds, says nothing."""
    certain = (table["low"] == table["high"]) & ~(table["p"] < ALPHA)
    outside = ((table["low"] > 0) | (table["high"] < 0)) & ~certain
    return [
        ("ahead" if positive else "behind") if apart else "close" if near else "open"
        for apart, near, positive in zip(outside, close, gain > 0, strict=True)
    ]
