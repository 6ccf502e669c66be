"""The files in suites/<suite>/tables/: what is printed as Markdown and LaTeX, and every number as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from harness.report.stats.communication import communicated
from harness.report.stats.cost import costs
from harness.report.stats.means import statistics
from harness.report.stats.summary import Results, summary
from harness.report.tables import suite
from harness.report.tables.columns import Choice
from harness.report.tables.communication import communication
from harness.report.tables.latex import latex
from harness.report.tables.printed import Printed, markdown
from harness.report.warnings import standing
from harness.results.columns import METRICS, ROW_METHOD
from harness.results.method_tables import MethodTables, first_with
from harness.storage.files import csv_text, write_bytes
from harness.storage.inside import remove
from harness.storage.store import Store

ERRORS = ("fit", "dimension", "share")
"""The columns of a method's table `errors`."""


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV in full precision, whole or not at all."""
    write_bytes(path, csv_text(table).encode())


def write_or_remove(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, or remove the file of an earlier plan where the table is empty."""
    if len(table):
        write_csv(table, path)
    else:
        remove(path)


def write_printed(tables: Sequence[Printed], folder: Path, name: str) -> None:
    """Write <name>.md and <name>.tex, or remove them where there is no table."""
    for kind, text in (("md", markdown(tables)), ("tex", latex(tables))):
        if tables:
            write_bytes(folder / f"{name}.{kind}", text.encode())
        else:
            remove(folder / f"{name}.{kind}")


def error_shares(store: Store, frame: pd.DataFrame) -> pd.DataFrame:
    """The methods' tables of reconstruction errors, each of the lowest finished seed that gives a whole one.

    Columns: model, dataset, optimizer, method, seed, fit, dimension, share.
    """
    names, parts = [*ROW_METHOD, "seed"], []
    for _, cells in frame.groupby(ROW_METHOD, sort=False):
        found = first_with(store, cells, {"errors": ERRORS})
        if found is not None and found[1] is None:
            try:
                table = MethodTables(store, found[0]["cell_key"]).read("errors")[list(ERRORS)]
                numbers = table.astype({"dimension": "int64", "share": "float64"})
            except ValueError:  # the figure of the same table says so
                continue
            parts.append(numbers.assign(**{name: found[0][name] for name in names}))
    return pd.concat(parts, ignore_index=True)[[*names, *ERRORS]] if parts else pd.DataFrame(columns=[*names, *ERRORS])


def write_errors(shares: pd.DataFrame, folder: Path) -> None:
    """Write errors.{md,tex,csv} from the methods' tables of reconstruction errors, or remove them if there are none."""
    write_printed(suite.errors(shares), folder, "errors")
    write_or_remove(shares, folder / "errors.csv")


def _with_standing(tables: Sequence[Printed], frame: pd.DataFrame) -> list[Printed]:
    """Tables with what makes their view fast or partial as their first notes."""
    return [replace(table, notes=(*standing(frame), *table.notes)) for table in tables]


def write_tables(found: Results, folder: Path, choice: Choice = Choice()) -> pd.DataFrame:  # noqa: B008
    """Write all tables into `folder` and return the summary.

    main, models, optimizers, statistics, rivals, images, calibration, communication, progress and cost as Markdown and
    LaTeX; main.csv (means of every metric, long), summary.csv (all that is known of a method in a row), comparisons.csv
    (every comparison), rivals.csv (those with annealed bases), images.csv (McNemar's test of every pair of cells),
    targets.csv (all cells), cost.csv, communication.csv. There are no rivals where no base has a twin, no images where
    cells do not say what they got right, no calibration where they were evaluated without, and no communication where
    there is no federation.
    """
    whole = summary(found)
    for printed in (
        suite.main,
        suite.models,
        suite.optimizers,
        suite.statistics,
        suite.progress,
        suite.rivals,
        suite.images,
        suite.calibration,
        communication,
    ):
        write_printed(_with_standing(printed(found, whole, choice), found.frame), folder, printed.__name__)
    write_printed(_with_standing(suite.costs(found, whole, choice), found.frame), folder, "cost")
    write_csv(pd.concat([statistics(found.frame, metric) for metric in METRICS]), folder / "main.csv")
    write_csv(whole, folder / "summary.csv")
    write_csv(found.compared, folder / "comparisons.csv")
    moved = communicated(found.frame, found.history, found.reached)
    for name, table in (("rivals", found.rivals), ("images", found.images), ("communication", moved)):
        write_or_remove(table, folder / f"{name}.csv")
    write_csv(found.reached, folder / "targets.csv")
    write_csv(costs(found.frame), folder / "cost.csv")
    return whole
