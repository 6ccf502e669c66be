"""The printed table of what passed between server and clients, one for each model, data and optimizer."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from harness.report.stats.communication import EQUAL, communicated
from harness.report.stats.means import Spread
from harness.report.stats.paired import interval
from harness.report.stats.summary import Results
from harness.report.tables.columns import Choice, number
from harness.report.tables.printed import Printed
from harness.results.columns import ROW

CAPTION = (
    "Federated averaging is the method base. Accuracies in percent: mean ± sample standard deviation over seeds, in "
    "the last round; clients: mean, and worst client. Differences of validation accuracy to federated averaging in "
    "points, paired by seed, with Student's 95 % interval over seeds: after equal rounds, and after equal bytes, where "
    "each has the weights of its last evaluated round within what the cheaper of the two moved in all. Up and down: MB "
    "of all clients, counted from what was handed over. Saved: of federated averaging's bytes. To the target: over the "
    "seeds that reach it, with their number where others do not."
)


def communication(found: Results, summary: pd.DataFrame, choice: Choice) -> list[Printed]:
    """The table of every row that is on a federation; none where no row is."""
    table = communicated(found.frame, found.history, found.reached)
    printed: list[Printed] = []
    for row, own in table.groupby(ROW, sort=False):
        names = [method for method in dict.fromkeys(own["method"]) if choice.keeps(str(method))]
        texts = pd.DataFrame([_texts(str(method), own[own["method"] == method]) for method in names])
        title, label = ", ".join(map(str, row)), "-".join(["communication", *map(str, row)])
        text = "As above." if printed else CAPTION
        printed.append(Printed(text, texts, title=title, label=label, short_caption="Bytes and accuracy", note=CAPTION))
    return printed


def _texts(method: str, cells: pd.DataFrame) -> dict[str, str]:
    line = {"method": method}
    for heading, name in (("test %", "test_accuracy"), ("clients %", "client_accuracy")):
        line[heading] = _spread(cells[name], 2)
    line["worst client %"] = _spread(cells["client_accuracy_worst"], 2)
    for heading, name in zip(("Δ at equal rounds", "Δ at equal bytes"), EQUAL, strict=True):
        line[heading] = _difference(cells[name])
    for heading, name in (("up MB", "upload_bytes"), ("down MB", "download_bytes")):
        line[heading] = number(float(cells[name].mean()) / 1e6, 1)
    line["saved %"] = number(float(cells["saved"].mean()), 1)
    for heading, name, scale in (
        ("rounds to target", "rounds_to_target", 1.0),
        ("MB to target", "bytes_to_target", 1e-6),
    ):
        line[heading] = _reached(cells[name] * scale)
    return line


def _spread(values: pd.Series[float], digits: int) -> str:
    found = Spread.of(np.asarray(values, dtype=np.float64))
    return found.text(digits) if found.n else "–"


def _difference(values: pd.Series[float]) -> str:
    """The mean with its interval."""
    known = np.asarray(values.dropna(), dtype=np.float64)
    if len(known) == 0:
        return "–"
    low, high = interval(known)
    between = "" if math.isnan(low) else f" [{low:+.2f}, {high:+.2f}]"
    return number(float(known.mean()), 2, "+") + between


def _reached(values: pd.Series[float]) -> str:
    known = np.asarray(values.dropna(), dtype=np.float64)
    came = known[np.isfinite(known)]
    if len(came) == 0:
        return "–" if len(known) == 0 else "never"
    return f"{came.mean():.1f}" + (f" ({len(came)}/{len(known)})" if len(came) < len(known) else "")
