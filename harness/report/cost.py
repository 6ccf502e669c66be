"""What methods cost, and what they reach on one budget of gradient evaluations.

Gradient evaluations and forward passes are counted in images. A brancher is charged what its base spent up to the
prefix; an observer or a reconstruction what its base spent, since it has no weights without that run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.config import ConfigError
from harness.report.tables import Spread
from harness.results.frame import ROW
from harness.storage.files import replacing, write_bytes
from harness.storage.store import Store

GRADIENTS = ["gradients_full", "gradients_subspace"]
COSTS = {
    "epochs": "epochs",
    "prefix_epochs": "of them shared prefix",
    "subspace_epochs": "in a subspace",
    "gradients_full": "gradients of all weights",
    "gradients_subspace": "gradients in a subspace",
    "forward_passes": "forward passes",
    "trainable_fraction": "trainable fraction at the end",
    "train_seconds": "training s",
    "method_seconds": "method s",
    "eval_seconds": "evaluation s",
    "peak_memory_bytes": "peak memory of its process, MB",
}
"""columns of the table, and how they are headed"""
DIGITS = {"trainable_fraction": 3, "train_seconds": 1, "method_seconds": 1, "eval_seconds": 1}


def costs(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over the finished seeds of every (model, dataset, optimizer, method), with n: the columns of COSTS.

    Own epochs count as epochs in a subspace where gradients were taken there.
    """
    done = frame[frame["status"] == "done"].copy()
    own = done["epochs"] - done["prefix_epochs"]
    done["subspace_epochs"] = own.where(done["gradients_subspace"] > 0, 0.0)
    groups = done.groupby([*ROW, "method"], sort=False)
    means = groups[list(COSTS)].mean()
    return means.assign(n=groups.size()).reset_index()[[*ROW, "method", "n", *COSTS]]


def cost_markdown(table: pd.DataFrame) -> str:
    """The cost table as Markdown, one section per model, dataset and optimizer."""
    text = (
        "Means per seed. Gradients and forward passes in images; training seconds and gradients include the shared "
        "prefix, which is the whole run for methods that only watch it.\n"
    )
    for row, of_row in table.groupby(ROW, sort=False):
        shown = of_row.drop(columns=ROW).astype({"n": "str"})
        for name in COSTS:
            scale, digits = (1e-6, 0) if name == "peak_memory_bytes" else (1, DIGITS.get(name, 0))
            shown[name] = [f"{value * scale:,.{digits}f}" for value in shown[name]]
        body = shown.rename(columns=COSTS).to_markdown(index=False, disable_numparse=True)
        text += f"\n{' '.join(map(str, row))}\n\n{body}\n"
    return text


def check_budget(budget: str) -> str | int:
    """`base`, or a whole number of gradient evaluations; ConfigError."""
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


def budget_markdown(table: pd.DataFrame) -> str:
    """Means over seeds of `at_budget`, as Markdown."""
    text = (
        "Validation accuracy in percent at the last evaluated epoch within the budget of gradient evaluations (images, "
        "full and subspace alike): mean ± sample standard deviation over seeds. While a method that trains on its own "
        "is still in its prefix, it has the recalibrated base's.\n"
    )
    for row, of_row in table.groupby(ROW, sort=False):
        lines = []
        for method, cells in of_row.groupby("method", sort=False):
            reached = cells[cells["val_accuracy"].notna()]
            accuracy = Spread.of(reached["val_accuracy"].to_numpy(dtype=np.float64))
            lines.append(
                {
                    "method": method,
                    "val %": accuracy.text(2) if accuracy.n else "–",
                    "n": str(accuracy.n),
                    "epoch": f"{reached['epoch'].mean():.1f}" if accuracy.n else "–",
                    "of the budget": f"{100 * (reached['gradients'] / reached['budget']).mean():.0f} %"
                    if accuracy.n
                    else "–",
                }
            )
        budget = of_row["budget"].mean()
        body = pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)
        text += f"\n{' '.join(map(str, row))}, {budget:,.0f} gradient evaluations\n\n{body}\n"
    return text


def write_costs(frame: pd.DataFrame, folder: Path) -> None:
    """Write cost.md and cost.csv (full precision) into `folder`."""
    table = costs(frame)
    write_bytes(folder / "cost.md", cost_markdown(table).encode())
    with replacing(folder / "cost.csv") as temporary:
        table.to_csv(temporary, index=False)


def write_budget(frame: pd.DataFrame, history: pd.DataFrame, budget: Mapping[str, float], folder: Path) -> str:
    """Write budget.md and budget.csv (one line per cell) into `folder`, and give the former's text."""
    table = at_budget(frame, history, budget)
    text = budget_markdown(table)
    write_bytes(folder / "budget.md", text.encode())
    with replacing(folder / "budget.csv") as temporary:
        table.to_csv(temporary, index=False)
    return text
