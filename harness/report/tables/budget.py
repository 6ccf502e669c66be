"""The comparison on one budget of gradient evaluations, as printed tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.report.stats.means import Spread
from harness.report.tables.printed import Printed
from harness.results.columns import ROW

CAPTION = (
    "Validation accuracy in percent at the last evaluated epoch within the budget of gradient evaluations (images, "
    "full and subspace alike): mean ± sample standard deviation over seeds. While a method that trains on its own is "
    "still in its prefix, it has the recalibrated base's."
)


def budget_tables(table: pd.DataFrame) -> list[Printed]:
    """Means over seeds of `stats.budget.at_budget`, one table for each model, dataset and optimizer."""
    printed: list[Printed] = []
    for row, own in table.groupby(ROW, sort=False):
        texts = pd.DataFrame([_texts(str(method), cells) for method, cells in own.groupby("method", sort=False)])
        title = f"{', '.join(map(str, row))}: {own['budget'].mean():,.0f} gradient evaluations"
        label = "-".join(["budget", *map(str, row)])
        short, text = "Validation accuracy in percent on one budget", "As above." if printed else CAPTION
        printed.append(Printed(text, texts, title=title, label=label, short_caption=short, note=CAPTION))
    return printed


def _texts(method: str, cells: pd.DataFrame) -> dict[str, str]:
    """A line: dashes where no seed has an evaluated epoch within the budget."""
    reached = cells[cells["val_accuracy"].notna()]
    accuracy = Spread.of(reached["val_accuracy"].to_numpy(dtype=np.float64))
    line = {"method": method, "val %": "–", "n": str(accuracy.n), "epoch": "–", "of the budget": "–"}
    if accuracy.n:
        line["val %"] = accuracy.text(2)
        line["epoch"] = f"{reached['epoch'].mean():.1f}"
        line["of the budget"] = f"{100 * (reached['gradients'] / reached['budget']).mean():.0f} %"
    return line
