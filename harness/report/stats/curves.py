"""Curves over seeds: mean and sample standard deviation of every method in every row at every evaluated epoch."""

from __future__ import annotations

import pandas as pd

from harness.results.columns import COLUMNS, ROW_METHOD

METRICS = {name: COLUMNS[name].label for name in ("val_accuracy", "val_loss", "train_loss", "val_ece", "val_brier")}
"""The metrics that have curves, with the names of their axes."""
COSTS = {
    "epoch": "epoch",
    "seconds": "seconds of training and method",
    "gradients": "gradient evaluations (images)",
}
"""What curves are drawn over, with the names of the axes."""


def curve_table(frame: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """One line per row, method and epoch of finished cells: ROW, method, epoch, n (seeds), seconds and gradients
    (means), and `<metric>_mean`, `<metric>_std` of METRICS; only epochs where one of the first two metrics is known."""
    done = frame.loc[frame["status"] == "done", [*ROW_METHOD, "cell_key"]]
    group = pd.Series(done.groupby(ROW_METHOD, sort=False).ngroup().to_numpy(), index=done["cell_key"])
    own = history[history["cell_key"].isin(group.index)]
    rows = pd.DataFrame({"group": own["cell_key"].map(group).astype("int64"), "epoch": own["epoch"]})
    zero = pd.Series(0.0, index=own.index)
    rows["seconds"] = own.get("train_seconds", zero) + own.get("method_seconds", zero).fillna(0)
    rows["gradients"] = own.get("gradients_full", zero).fillna(0) + own.get("gradients_subspace", zero).fillna(0)
    for metric in METRICS:
        rows[metric] = own.get(metric, zero * float("nan"))
    evaluated = rows[rows["val_accuracy"].notna() | rows["val_loss"].notna()]
    groups = evaluated.groupby(["group", "epoch"], sort=True)
    table = groups[["seconds", "gradients"]].mean()
    table.insert(0, "n", groups.size())
    for metric in METRICS:
        table[f"{metric}_mean"] = groups[metric].mean()
        table[f"{metric}_std"] = groups[metric].std(ddof=1)
    names = done.drop_duplicates(ROW_METHOD).reset_index(drop=True)
    table = table.reset_index()
    return pd.concat([names.loc[table["group"], ROW_METHOD].reset_index(drop=True), table], axis=1).drop(
        columns="group"
    )
