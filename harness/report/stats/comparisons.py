"""How much better a method is than its controls, paired by seed, and how sure that is.

A pair is one base: a method and its control watched or branched from the same training run, so a difference has
nothing of the run's own luck. Controls are `base_recalibrated` (what the method does to plain training) and `time_mean`
(what it does beyond averaging the snapshots that CMD sees); only cells under the control's own BatchNorm policy are
tested against it. `base`, the run as it is, stands beside them. Tests are adjusted by Holm over the methods that one
control is compared with in one row. Over all rows of a suite together the pairs stand for these models and data, not
for others.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from harness.config import check_choice
from harness.report.stats.means import ALL, BESIDE, CONTROLS
from harness.report.stats.paired import ALPHA, SEEDS, Paired, holm
from harness.results.columns import METRICS, ROW, ROW_METHOD


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


COMPARED = [*ROW_METHOD, "metric", "control", "alike", "seeds"]
"""The columns that name a comparison; `seeds` are the bases planned."""


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
        for found, of_method in paired.groupby(ROW_METHOD, sort=False):
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
    counts = frame.groupby(ROW_METHOD, sort=False)["base_key"].nunique()
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
