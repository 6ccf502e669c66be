"""What methods reach on one budget of gradient evaluations, which are counted in images.

A brancher is charged what its base spent up to the prefix; an observer or a reconstruction what its base spent, since
it has no weights without that run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from harness.config import ConfigError
from harness.results.columns import ROW
from harness.storage.store import Store

GRADIENTS = ["gradients_full", "gradients_subspace"]


def check_budget(budget: str) -> str | int:
    """The budget that was asked for: `base`, or a whole number of gradient evaluations; ConfigError else."""
    if budget == "base":
        return budget
    if not budget.isdecimal() or int(budget) < 1:
        raise ConfigError(f"tables.budget must be base or at least 1 gradient evaluation, got {budget!r}")
    return int(budget)


def budgets(store: Store, frame: pd.DataFrame, budget: str | int) -> dict[str, float]:
    """Gradient evaluations to compare at, by base: a number, or what the whole run of each base took."""
    keys = frame["base_key"].unique()
    if budget != "base":
        return dict.fromkeys(keys, float(budget))
    records = {key: store.base(key) for key in keys}
    return {key: float(record["counts"]["gradients_full"]) for key, record in records.items() if record is not None}


def at_budget(frame: pd.DataFrame, history: pd.DataFrame, budget: Mapping[str, float]) -> pd.DataFrame:
    """Validation accuracy and loss of every finished cell at its last evaluated epoch within a budget of gradients.

    `budget` is in images by base, full and subspace gradients counted alike. One row per cell: model, dataset,
    optimizer, seed, method, budget, gradients, epoch, val_accuracy and val_loss, NaN where the cell has no evaluated
    epoch within. ConfigError where histories hold no counts.
    """
    done = frame[frame["status"] == "done"]
    if len(done) and not set(GRADIENTS) <= set(history.columns):
        raise ConfigError("tables.budget must have histories with counts of gradients, got older ones; redo=all")
    rows: list[dict[str, Any]] = []
    curves = dict(list(history.groupby("cell_key", sort=False)))
    nothing = history.iloc[:0]
    for cell in done.to_dict("records"):
        limit = budget.get(cell["base_key"], math.nan)
        curve = curves.get(cell["cell_key"], nothing)
        if curve[GRADIENTS].isna().any(axis=None):
            raise ConfigError(
                f"tables.budget must have histories with counts of gradients, got an older one of {cell['method']} "
                f"seed {cell['seed']}; redo={cell['method']}"
            )
        spent = curve[GRADIENTS].sum(axis=1)
        within = curve[curve["val_accuracy"].notna() & (spent <= limit)]
        found: dict[str, Any] = {"gradients": None, "epoch": None, "val_accuracy": None, "val_loss": None}
        if len(within):
            last = within.iloc[-1]
            found = {name: float(last[name]) for name in ("epoch", "val_accuracy", "val_loss")}
            found["gradients"] = float(spent[within.index[-1]])
        rows.append({**{name: cell[name] for name in (*ROW, "seed", "method")}, "budget": limit, **found})
    names = [*ROW, "seed", "method", "budget", "gradients", "epoch", "val_accuracy", "val_loss"]
    numbers = dict.fromkeys(names[5:], "float64")
    return pd.DataFrame(rows, columns=names).astype(numbers)
