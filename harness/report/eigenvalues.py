"""The eigenvalues of methods that have some, in the unit circle: one figure per model, dataset and optimizer of a plan.

Drawn from the cells' tables `eigenvalues` (columns real, imaginary), all seeds together: a point on the circle goes on
for ever, one inside dies out, one outside grows. Each figure is a PNG, a PDF and the CSV it was drawn from, which names
the cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from harness.report.drawing import LINE, STYLE, WIDTH, legend_below
from harness.report.figures import write_figure
from harness.report.looks import POINTS, look
from harness.results.frame import ROW, read_plan
from harness.storage.files import replacing
from harness.storage.store import Store

NAME = "eigenvalues"
EDGE = 1.25
"""what lies farther out is drawn at the edge, on its own ray"""


def draw_all(store: Store, suite: str) -> Iterator[str]:
    """Draw what the finished cells hold, and say so, one line per figure; those of earlier plans are removed."""
    folder = store.suite_folder(suite) / "figures"
    by_row = itemgetter(*ROW)
    drawn = set()
    for row, cells in groupby(sorted(read_plan(store.root, suite)["cells"], key=by_row), key=by_row):
        table = _table(store, list(cells))
        if table.empty:
            continue
        stem = "-".join([*row, NAME])
        drawn.add(stem)
        _save(table, folder / stem, ", ".join(row))
        methods = ", ".join(dict.fromkeys(table["method"]))
        yield f"figures: {' '.join(row)}: {len(table)} eigenvalues of {methods}"
    for path in folder.glob(f"*-{NAME}.*"):
        if path.stem not in drawn:
            path.unlink()


def _table(store: Store, cells: list[dict[str, Any]]) -> pd.DataFrame:
    """One row per eigenvalue of every finished cell that has some, in the plan's order of methods."""
    tables = []
    for cell in cells:
        path = store.cell_folder(cell["cell_key"]) / "tables" / f"{NAME}.parquet"
        record = store.record(cell["cell_key"]) if path.exists() else None
        if record is not None and record["status"] == "done":
            origin = {name: cell[name] for name in ("method", "seed", "cell_key")}
            tables.append(pd.read_parquet(path).assign(**origin))
    if not tables:
        return pd.DataFrame()
    table = pd.concat(tables, ignore_index=True)
    return table[["method", "seed", *(n for n in table if n not in ("method", "seed", "cell_key")), "cell_key"]]


def _save(table: pd.DataFrame, path: Path, title: str) -> None:
    import matplotlib as mpl

    with replacing(path.with_name(f"{path.name}.csv")) as temporary:
        table.to_csv(temporary, index=False, float_format="%.9g")
    with mpl.rc_context(STYLE):
        write_figure(draw_eigenvalues(table, title), path, " ".join(dict.fromkeys(table["cell_key"])))


def draw_eigenvalues(table: pd.DataFrame, title: str) -> Figure:
    """Eigenvalues by method in the complex plane: the whole circle, and beside it where it meets the real axis at 1."""
    figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
    whole, close = figure.subplots(1, 2)
    lowest = _close_up(table)
    for axes in (whole, close):
        _draw_points(axes, table)
    whole.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3))
    half = (1.02 - lowest) / 2 * 1.05
    close.set(xlim=(1.02 - 2 * half, 1.02), ylim=(-half, half))
    whole.set_title("all", pad=3)
    close.set_title("close to 1", pad=3)
    whole.set_xlabel("real part")
    close.set_xlabel("real part")
    whole.set_ylabel("imaginary part")
    figure.suptitle(f"Eigenvalues per epoch\n{title}", fontsize=7)
    legend_below(figure, whole, columns=1)
    return figure


def _close_up(table: pd.DataFrame) -> float:
    """Left edge of the close-up: the quarter of all eigenvalues that is nearest to 1 lies right of it."""
    distance = np.hypot(table["real"] - 1, table["imaginary"])
    return float(1 - np.clip(np.quantile(distance, 0.25), 0.05, 0.5))


def _draw_points(axes: Axes, table: pd.DataFrame) -> None:
    axes.add_patch(Circle((0, 0), 1, fill=False, color=LINE, lw=0.7))
    axes.axhline(0, color=LINE, lw=0.3)
    axes.axvline(0, color=LINE, lw=0.3)
    modulus = np.hypot(table["real"], table["imaginary"])
    inward = np.minimum(1, EDGE / np.maximum(modulus, EDGE))
    for method, rows in table.groupby("method", sort=False):
        looks = look(str(method))
        shrunk = inward[rows.index]
        outside = int((shrunk < 1).sum())
        label = f"{method} ({len(rows)}{f', {outside} beyond the edge' if outside else ''})"
        x, y = rows["real"] * shrunk, rows["imaginary"] * shrunk
        axes.scatter(
            x,
            y,
            s=12,
            marker=POINTS[looks.marker],
            facecolors=looks.colour,
            edgecolors=LINE,
            lw=0.4,
            label=label,
            zorder=2,
        )
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(False)
