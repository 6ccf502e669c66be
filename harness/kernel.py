"""Kernels of linear methods, from the table `kernel` that each gives (`harness.method`): age, number, distance.

A linear method proposes w^ = sum_t c(t) w(t) with sum_t c(t) = 1. Its age sum_t c(t) (T - t) says how many epochs the
proposal lies behind the last snapshot, 1 / sum_t c(t)^2 by how many snapshots independent noise in them is averaged.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

KERNEL = "kernel"
"""the table's name"""
COLUMNS = ("mode", "epoch", "coefficient")
"""what it must have"""
SUM = 1e-3
"""how far coefficients may be from 1 in sum"""


def checked(table: pd.DataFrame) -> pd.DataFrame:
    """A table `kernel` with all its columns: mode, epoch, coefficient, share, snapshots, squares.

    `share` is the part of the weights in a line's mode; modes that have no share have equal ones. ValueError, in one
    line, where a column is missing or holds anything but finite numbers, an epoch stands twice in a mode, or the
    coefficients of a mode do not add up to 1.
    """
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise ValueError(f"the table {KERNEL} must have the column {missing[0]}, got {', '.join(map(str, table))}")
    if table.empty:
        raise ValueError(f"the table {KERNEL} must have at least 1 line, got 0")
    numbers = ["epoch", "coefficient", "share", "snapshots", "squares"]
    try:
        whole = table.astype({name: "float64" for name in numbers if name in table} | {"mode": "str"})
    except (ValueError, TypeError) as error:
        raise ValueError(f"the table {KERNEL} must hold numbers, got {error}") from error
    defaults = (("share", 1 / whole["mode"].nunique()), ("snapshots", 1.0), ("squares", whole["coefficient"] ** 2))
    for name, default in defaults:
        if name not in whole:
            whole[name] = default
    if not np.isfinite(whole[numbers]).all(axis=None):
        raise ValueError(f"the table {KERNEL} must hold finite numbers, got nan or inf")
    if whole.duplicated(["mode", "epoch"]).any():
        mode, epoch = whole[whole.duplicated(["mode", "epoch"])].iloc[0][["mode", "epoch"]]
        raise ValueError(f"the table {KERNEL} must have an epoch once in a mode, got {epoch:g} twice in {mode}")
    sums = whole.groupby("mode", sort=False)["coefficient"].sum()
    scale = whole["coefficient"].abs().groupby(whole["mode"], sort=False).sum()
    off = (sums - 1).abs() > SUM * scale.clip(lower=1)
    if off.any():
        mode = str(off.idxmax())
        raise ValueError(f"coefficients of mode {mode} must add up to 1, got {sums[mode]:.6g}")
    return whole[["mode", *numbers]]


def shares(table: pd.DataFrame) -> pd.Series[float]:
    """The part of the weights that each mode of a checked table has, by the mode, in sum 1."""
    given = table.groupby("mode", sort=False)["share"].first()
    return given / given.sum() if given.sum() > 0 else pd.Series(1 / len(given), index=given.index)


def numbers(table: pd.DataFrame, last: int) -> dict[str, float]:
    """`age`, in epochs before the epoch `last`, and `n_eff` of a checked table: over modes the mean age, and one over
    the mean of sum c^2, by the weights in each."""
    share = table["mode"].map(shares(table))
    age = float((share * table["coefficient"] * (last - table["epoch"])).sum())
    return {"age": age, "n_eff": 1 / float((share * table["squares"]).sum())}


def by_epoch(table: pd.DataFrame) -> pd.DataFrame:
    """Coefficients by mode (lines) and epoch (columns): those of an epoch's steps are added, the first step after
    epoch t - 1 and the last one at its end t among those of t."""
    epoch = np.ceil(np.round(table["epoch"].to_numpy(), 9)).astype(int)
    return table.assign(epoch=epoch).pivot_table(
        index="mode", columns="epoch", values="coefficient", aggfunc="sum", sort=False, fill_value=0.0
    )


def distance(one: pd.DataFrame, other: pd.DataFrame) -> float:
    """How far two kernels are from each other, at most: half of sum_t |c(t) - c'(t)|, epoch by epoch.

    It is the part of the coefficients that would have to move from some epochs to others. Two methods with one kernel
    for all weights propose weights that differ by no more than this times the largest distance between two snapshots,
    but for what moves within an epoch. Of kernels by mode it is the mean over pairs of modes, by the weights in both:
    what two methods have whose modes know nothing of each other. Both tables are checked ones.
    """
    tables = by_epoch(one), by_epoch(other)
    epochs = sorted({epoch for table in tables for epoch in table.columns})
    a, b = (table.reindex(columns=epochs, fill_value=0.0).to_numpy() for table in tables)
    share, share2 = (shares(given)[table.index].to_numpy() for given, table in zip((one, other), tables, strict=True))
    return float(share @ (np.abs(a[:, None] - b[None]).sum(2) / 2) @ share2)
