"""How much better a method is than its controls, paired by seed, how sure that is, and what may be concluded.

A pair is one base: a method and its control watched or branched from the same training run, so a difference has
nothing of the run's own luck. Controls are `base_recalibrated` (what the method does to plain training), `time_mean`
(what it does beyond averaging the snapshots that CMD sees) and the control that the method's preset names; only cells
under the control's own BatchNorm policy are tested against it. `base`, the run as it is, stands beside them.

What is tested are the `primary` comparisons of the suite, a method and a control each, in every row of the suite in
which both are planned (in every row, where a run leaves one of them out of all); a suite names them before it runs, and
where it names none they are every chosen method against plain training. They are one family, over which Holm's
correction goes whatever else runs or is finished. Their verdicts are `better`, `worse`, `equivalent` (within the margin
of the plan, in points of accuracy; Holm over the same family) or `undecided`, and `findable` is the smallest difference
that would have been found. A difference that was found is named `better` or `worse` also where it is within the margin,
and pairs of the very same weights are equivalent.

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
from harness.report.stats.images import ImageVariance, Signs, TestImages, image_variance
from harness.report.stats.means import BESIDE, CONTROLS, Row, bare, over_rows
from harness.report.stats.paired import ALPHA, SEEDS, Floats, Paired, equivalence, holm
from harness.report.stats.power import findable
from harness.results.columns import ADDED, METRICS, ROW, ROW_METHOD
from harness.results.frame import MARGIN

PRIMARY, EXPLORATORY = "primary", "exploratory"
EQUIVALENT = "equivalent"
POLICY = "no test: another BatchNorm policy"
FEW = f"no test: fewer than {SEEDS} seeds"
PRIMARY_WORDS = (
    "better or worse (Holm over all of them, 5 %), equivalent (two one-sided tests within the margin), undecided (with "
    "the smallest difference that would have been found with a probability of 80 %); these and p are adjusted, "
    "intervals are not."
)
EXPLORATORY_WORDS = (
    "Verdicts in parentheses are exploratory, from intervals that are not adjusted: (ahead) or (behind) where the 95 % "
    "interval lies on one side of 0, (close) where the 90 % interval lies within the margin, (open) otherwise."
)
"""What a reader of either kind of verdict must know."""


def pairs(frame: pd.DataFrame, metric: str, control: str, methods: Sequence[str] | None = None) -> pd.DataFrame:
    """One line per finished cell whose base has a finished control: ROW, seed, method, base_key, cell_key,
    control_cell, difference, alike, same; of the given methods, or of all.

    `alike` says whether both are under the same BatchNorm policy, `same` whether all their metrics are equal, as those
    of the same weights are. A number that is not finite makes no pair.
    """
    check_choice("metric", metric, METRICS)
    done = bare(frame)[(frame["status"] == "done") & np.isfinite(frame[metric].astype("float64"))]
    of_control = done[done["method"] == control].set_index("base_key")
    others = done[(done["method"] != control) & done["base_key"].isin(of_control.index)]
    if methods is not None:
        others = others[others["method"].isin(methods)]
    return paired(others, others["base_key"], of_control, metric)


def paired(cells: pd.DataFrame, keys: pd.Series, of_control: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The lines of `pairs` of cells with those of `of_control` that have the keys in its index."""
    sides = {name: (cells[name], keys.map(of_control[name])) for name in METRICS if name in cells}
    apart = {name: own.astype("float64") - other.astype("float64") for name, (own, other) in sides.items()}
    # cells recorded before a metric was taken do not say that they differ in it
    said = pd.DataFrame({name: values.fillna(0) if name in ADDED else values for name, values in apart.items()})
    return cells[[*ROW, "seed", "method", "base_key", "cell_key"]].assign(
        control_cell=keys.map(of_control["cell_key"]),
        # What is left of equal numbers by rounding is no difference.
        difference=apart[metric].round(9),
        alike=cells["batchnorm"] == keys.map(of_control["batchnorm"]),
        same=said.round(9).eq(0).all(axis=1),
    )


COMPARED = [*ROW_METHOD, "metric", "control", "family", "alike", "same", "seeds"]
"""The columns that name a comparison; `seeds` are the bases planned, `same` says that no metric of any pair differs."""


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
            for label, of_method in found[inside].groupby("method", sort=False):
                own = [row for row in rows if (row, str(label)) in planned and (row, control) in planned]
                seeds = max(planned[row, str(label)] for row in own)
                key = Key(name, str(label), control)
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
    parts = [of_method]
    if rows:
        in_rows = of_method.drop_duplicates([*ROW, "seed"]).groupby("seed").size()
        of_method = of_method[of_method["seed"].map(in_rows) == len(rows)]
        parts = [part for _, part in of_method.groupby(ROW, sort=False)]
    variance, count = _of_images(parts, images if metric == "test_accuracy" else None)
    difference = of_method["difference"]
    if rows:
        difference = of_method.groupby("seed", sort=True)["difference"].mean().round(9)
    found = Paired.of(difference.to_numpy(dtype=np.float64), METRICS[metric].higher_is_better, *variance)
    alike, same = bool(of_method["alike"].all()), bool(of_method["same"].all())
    named = (*key.row, key.method, metric, key.control, kind, alike, same, seeds)
    counts = of_method["seed"].nunique(), of_method["base_key"].nunique(), count
    return (*named, *counts, *vars(found).values())


def _of_images(parts: Sequence[pd.DataFrame], images: TestImages | None) -> tuple[ImageVariance, int]:
    """The variance that the mean over the rows, which are the parts, has from its images, and their number.

    Nothing and 0 where it is not known of every cell which images it got right, or rows are of several data sets.
    """
    unknown = ImageVariance(), 0
    if images is None or len({part["dataset"].iloc[0] for part in parts if len(part)}) != 1:
        return unknown
    whole: Signs | None = None
    for part in parts:
        ordered = part.sort_values("seed", kind="stable")
        signs = images.signs(ordered["cell_key"].tolist(), ordered["control_cell"].tolist())
        if signs is None or (whole is not None and whole.shape != signs.shape):
            return unknown
        whole = signs if whole is None else whole + signs
    if whole is None:
        return unknown
    return ImageVariance(*(part / len(parts) ** 2 for part in image_variance(whole))), whole.shape[1]


def judged(lines: list[tuple[object, ...]], metric: str, tests: int, margin: float) -> pd.DataFrame:
    """Comparisons of `line_of` with p_holm, p_equivalence, findable and verdict; the family has so many tests."""
    names = [*COMPARED, "finished", "runs", "images", *Paired.__dataclass_fields__]
    table = pd.DataFrame(lines, columns=names).astype({"alike": "bool", "same": "bool", "finished": "int64"})
    numbers = [table[name].to_numpy(dtype=np.float64) for name in ("mean", "std", "n", "shared", "own")]
    mean, std, n, shared, own = numbers
    untested = ~table["alike"].to_numpy() | (table["finished"].to_numpy() < SEEDS)
    table.loc[untested, "p"] = math.nan
    primary = (table["family"] == PRIMARY).to_numpy()
    # A margin in points of accuracy says nothing of a loss.
    within = margin if METRICS[metric].unit == "%" else 0.0
    p_equivalence = np.where(table["same"], 0.0, equivalence(mean, std, n, shared, within, own))
    p_equivalence[untested] = math.nan
    close = p_equivalence < ALPHA
    for name, p in (("p_holm", table["p"].to_numpy(dtype=np.float64)), ("p_equivalence", p_equivalence)):
        table[name] = math.nan
        table.loc[primary, name] = holm(p[primary], max(tests, int(primary.sum())))
    table["findable"] = np.where(
        primary, findable(std, n, shared, max(tests, 1), own), findable(std, n, shared, 1, own)
    )
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
    """Where the unadjusted interval of every comparison lies."""
    outside = (table["low"] > 0) | (table["high"] < 0)
    return [
        ("ahead" if positive else "behind") if apart else "close" if near else "open"
        for apart, near, positive in zip(outside, close, gain > 0, strict=True)
    ]
