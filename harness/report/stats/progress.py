"""How fast methods get there: time to a target, performance profiles, area under the validation curve.

All from validation accuracy at the evaluated epochs, so the test data are not touched, and only for methods that have
their weights while training goes on: reconstructions, which see the whole run, have none of this. Seconds are training
and the method's own work, evaluation left out; a brancher's begin with its prefix.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.report.stats.means import CONTROL
from harness.results.columns import ROW

Floats = NDArray[np.float64]
MEASURES = {"epochs": "epochs", "seconds": "seconds", "gradients": "gradient evaluations"}
"""What a target may cost, with the names in prose."""


def target_of(frame: pd.DataFrame, target: float | None = None) -> pd.Series[float]:
    """The validation accuracy to reach, in percent, by base: `target`, or what the recalibrated base ends with, as the
    mean over the seeds of a row; NaN where no seed of it is done."""
    keys = frame[["base_key", *ROW]].drop_duplicates("base_key").set_index("base_key")
    if target is not None:
        return pd.Series(float(target), index=keys.index)
    done = frame[(frame["status"] == "done") & (frame["method"] == CONTROL)]
    means = done.groupby(ROW)["val_accuracy"].mean()
    return pd.Series([float(means.get(tuple(row), math.nan)) for row in keys.to_numpy()], index=keys.index)


def curves(frame: pd.DataFrame, history: pd.DataFrame, reconstructions: Collection[str] = ()) -> pd.DataFrame:
    """Evaluated epochs of finished causal cells, in the plan's order: cell_key, epochs, val_accuracy, MEASURES."""
    causal = frame[(frame["status"] == "done") & ~frame["method"].isin(list(reconstructions))]
    if "val_accuracy" not in history.columns:
        return pd.DataFrame({name: pd.Series(dtype="float64") for name in ("cell_key", "val_accuracy", *MEASURES)})
    rows = history[history["cell_key"].isin(causal["cell_key"]) & history["val_accuracy"].notna()]
    gradients = sum(
        (rows[name].fillna(0) for name in ("gradients_full", "gradients_subspace") if name in rows),
        start=pd.Series(0.0, index=rows.index),
    )
    seconds = rows["train_seconds"] + rows["method_seconds"].fillna(0) if "train_seconds" in rows else math.nan
    return pd.DataFrame(
        {
            "cell_key": rows["cell_key"],
            "val_accuracy": rows["val_accuracy"],
            "epochs": rows["epoch"].astype("float64"),
            "seconds": seconds,
            "gradients": gradients,
        }
    )


def time_to_target(
    frame: pd.DataFrame, curve: pd.DataFrame, target: pd.Series[float], reconstructions: Collection[str] = ()
) -> pd.DataFrame:
    """What every finished causal cell spent up to the first evaluated epoch that reaches its base's target.

    `curve` is from `curves`. One line per cell: ROW, seed, method, base_key, cell_key, target, MEASURES; these are
    infinite where the target is not reached, NaN where there is no target.
    """
    done = frame[(frame["status"] == "done") & ~frame["method"].isin(list(reconstructions))]
    cells = done[[*ROW, "seed", "method", "base_key", "cell_key"]].assign(
        target=done["base_key"].map(target).astype("float64")
    )
    limit = curve["cell_key"].map(cells.set_index("cell_key")["target"]).astype("float64")
    reached = curve[curve["val_accuracy"] >= limit].drop_duplicates("cell_key").set_index("cell_key")
    for measure in MEASURES:
        spent = cells["cell_key"].map(reached[measure]).astype("float64")
        cells[measure] = spent.where(cells["target"].isna() | cells["cell_key"].isin(reached.index), math.inf)
    return cells


def profiles(times: pd.DataFrame, measure: str = "epochs") -> pd.DataFrame:
    """Performance profiles (Dolan and Moré, Math. Program. 2002): the share of bases on which a method reaches the
    target within a ratio of the fastest method's cost.

    One line per method and step: method, ratio, share, cells (planned as problems: bases with a target that somebody
    reached). A method that never gets there has a share of 0 throughout; a base on which it did not run counts as one
    that it does not solve.
    """
    best = times.groupby("base_key")[measure].transform("min")
    solvable = times[np.isfinite(best) & (best > 0)].assign(ratio=times[measure] / best)
    problems = solvable["base_key"].nunique()
    lines = []
    for method, cells in solvable.groupby("method", sort=False):
        ratios = np.sort(cells.loc[np.isfinite(cells["ratio"]), "ratio"].to_numpy())
        shares = np.arange(1, len(ratios) + 1) / max(problems, 1)
        steps = pd.DataFrame({"ratio": ratios, "share": shares}).drop_duplicates("ratio", keep="last")
        if steps.empty or steps["ratio"].iloc[0] > 1:
            steps = pd.concat([pd.DataFrame({"ratio": [1.0], "share": [0.0]}), steps], ignore_index=True)
        lines.append(steps.assign(method=str(method), problems=problems))
    if not lines:
        return pd.DataFrame({"method": [], "ratio": [], "share": [], "problems": []})
    return pd.concat(lines, ignore_index=True)[["method", "ratio", "share", "problems"]]


def areas(frame: pd.DataFrame, curve: pd.DataFrame) -> pd.Series[float]:
    """Area under each causal cell's validation curve over its base's epochs as a mean height in percent, by cell_key.

    Trapezoids from the first evaluated epoch of any cell of the base to the last epoch of the base's longest-watching
    control; a curve that ends before stays at its last value, one that goes on is cut. NaN with one evaluated epoch.
    """
    base_of = frame.set_index("cell_key")["base_key"]
    method_of = frame.set_index("cell_key")["method"]
    ends: dict[str, float] = {}
    spans = curve.groupby("cell_key", sort=False)["epochs"].agg(["min", "max"])
    for key, (_, last) in zip(spans.index, spans.to_numpy(), strict=True):
        if method_of[key] in (CONTROL, "base"):
            ends[base_of[key]] = max(last, ends.get(base_of[key], 0.0))
    found: dict[str, float] = {}
    for key, rows in curve.groupby("cell_key", sort=False):
        epochs, values = rows["epochs"].to_numpy(), rows["val_accuracy"].to_numpy()
        found[str(key)] = mean_height(epochs, values, ends.get(base_of[key], epochs[-1]))
    return pd.Series(found, dtype="float64")


def mean_height(epochs: Floats, values: Floats, end: float) -> float:
    """Mean of a piecewise linear curve from its first point to `end`, constant after its last; NaN with no width."""
    inside = epochs < end
    at_end = float(np.interp(end, epochs, values))
    x = np.append(epochs[inside], end)
    y = np.append(values[inside], at_end)
    return float(np.trapezoid(y, x) / (x[-1] - x[0])) if len(x) > 1 else math.nan
