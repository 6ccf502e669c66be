"""The figures of a suite's results in suites/<suite>/figures/, each a PNG, a PDF and the CSV of what it shows.

By model, dataset and optimizer: `<model>-<dataset>-<optimizer>-{differences,curves,cost}`; for the suite:
`suite-{differences,profile,ranks}`. All numbers are the frame's and the history's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from harness.report.curvedata import curve_table
from harness.report.headline import UNITS
from harness.report.progress import profiles
from harness.report.ranks import average_ranks
from harness.report.stats import ALL, CONTROLS, pairs
from harness.report.summary import Results
from harness.results.frame import ROW

KINDS = ("differences", "curves", "cost", "profile", "ranks")
SUITE = "suite"
"""begins the names of figures over all rows"""


def draw_results(found: Results, history: pd.DataFrame, folder: Path) -> Iterator[str]:
    """Draw all figures of results into `folder` and remove those of earlier plans; lines say what is not drawn."""
    drawn: set[str] = set()
    rows = list(dict.fromkeys(map(tuple, found.frame[ROW].astype("str").to_numpy().tolist())))
    curve = curve_table(found.frame, history)
    for row in rows:
        stem = "-".join(row)
        cells = _of(found.frame[found.frame["status"] == "done"], row)
        if cells.empty:
            yield f"figures: {' '.join(row)}: no results are drawn, no cell is done"
            continue
        drawn |= set(_draw_row(found, cells, _of(curve, row), row, folder, stem))
    drawn |= set(_draw_suite(found, rows, folder))
    for path in folder.glob("*.png"):
        stem, _, kind = path.stem.rpartition("-")
        if kind in KINDS and path.stem not in drawn:
            for ending in ("png", "pdf", "csv"):
                path.with_suffix(f".{ending}").unlink(missing_ok=True)
    ranks = average_ranks(found.frame, found.metric)
    if isinstance(ranks, str) and len(rows) > 1:
        yield f"figures: {ranks}"


def _of(table: pd.DataFrame, row: tuple[str, ...]) -> pd.DataFrame:
    return table[(table[ROW].astype("str") == list(row)).all(axis=1)]


def _draw_row(
    found: Results, cells: pd.DataFrame, curve: pd.DataFrame, row: tuple[str, ...], folder: Path, stem: str
) -> Iterator[str]:
    from harness.report.resultdrawing import cost_table, draw_cost, draw_curves, draw_differences

    title, unit = ", ".join(row), UNITS[found.metric]
    if len(curve):
        yield _save(f"{stem}-curves", lambda: draw_curves(curve, title), curve, folder)
    costs = cost_table(cells)
    if len(costs):
        yield _save(f"{stem}-cost", lambda: draw_cost(costs, title), costs, folder)
    own, compared = _differences(found, row)
    if len(own):
        data = _with_intervals(own, compared)
        yield _save(f"{stem}-differences", lambda: draw_differences(own, compared, unit, title), data, folder)


def _draw_suite(found: Results, rows: list[tuple[str, ...]], folder: Path) -> Iterator[str]:
    from harness.report.resultdrawing import draw_differences, draw_profile, draw_ranks

    if len(rows) > 1:
        own, compared = _differences(found, (ALL,) * len(ROW))
        if len(own):
            title, unit = "all models, data sets and optimizers", UNITS[found.metric]
            data = _with_intervals(own, compared)
            yield _save(f"{SUITE}-differences", lambda: draw_differences(own, compared, unit, title), data, folder)
    steps = profiles(found.times, "epochs")
    if len(steps):
        target = "what the recalibrated base ends with" if found.target is None else f"{found.target:g} %"
        yield _save(f"{SUITE}-profile", lambda: draw_profile(steps, target, "epochs"), steps, folder)
    ranks = average_ranks(found.frame, found.metric)
    if not isinstance(ranks, str):
        data = ranks.ranks.rename_axis("method").reset_index()
        data = data.assign(
            critical_difference=ranks.critical_difference, rows=ranks.blocks, friedman_p=ranks.friedman_p
        )
        yield _save(f"{SUITE}-ranks", lambda: draw_ranks(ranks, found.metric.replace("_", " ")), data, folder)


def _differences(found: Results, row: tuple[str, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pairs of a row, or of all, with both controls, and their comparisons."""
    compared = found.compared[(found.compared[ROW] == list(row)).all(axis=1) & found.compared["control"].isin(CONTROLS)]
    parts = [pairs(found.frame, found.metric, control).assign(control=control) for control in CONTROLS]
    own = pd.concat(parts, ignore_index=True)
    order = list(dict.fromkeys(found.frame["method"]))
    compared = compared.sort_values("method", key=lambda names: names.map(order.index), kind="stable")
    return (own if row[0] == ALL else _of(own, row)), compared


def _with_intervals(own: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """Every pair beside the mean, interval and verdict of its comparison."""
    names = ["method", "control", "mean", "low", "high", "p_holm", "verdict"]
    return own.merge(compared[names], on=["method", "control"], how="left")


def _save(name: str, draw: Callable[[], Figure], data: pd.DataFrame, folder: Path) -> str:
    import matplotlib as mpl

    from harness.report.drawing import STYLE
    from harness.report.figures import write_figure
    from harness.report.written import write_csv

    write_csv(data, folder / f"{name}.csv")
    with mpl.rc_context(STYLE):
        write_figure(draw(), folder / name, f"from {name}.csv")
    return name
