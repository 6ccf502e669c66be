"""The files of a suite in suites/<suite>/: frame.parquet, history.parquet and tables/, rewritten from the records."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from harness.report.stats.summary import Results, results
from harness.report.tables.columns import Choice
from harness.report.tables.write import write_tables
from harness.results.frame import gather, read_plan
from harness.storage.files import replacing
from harness.storage.store import Store


def write_views(store: Store, suite: str) -> pd.DataFrame:
    """Rewrite frame.parquet, history.parquet and tables/ of a suite from the records, and return the frame."""
    return make_views(store, suite).found.frame


@dataclass(frozen=True)
class Views:
    """What the files of a suite were written from."""

    found: Results
    summary: pd.DataFrame
    choice: Choice


def make_views(
    store: Store, suite: str, metric: str = "test_accuracy", target: float | None = None, columns: str = ""
) -> Views:
    """Rewrite the files as `write_views` does, with another metric, target or choice of columns.

    ConfigError where the columns are unknown.
    """
    plan = read_plan(store.root, suite)
    folder = store.suite_folder(suite)
    frame, history = gather(store, plan)
    choice, found = Choice.of(columns, frame), results(frame, history, metric, target)
    summary = write_tables(found, folder / "tables", choice)
    # The frame goes last: it names the plan that everything beside it is of.
    for name, view in (("history", history), ("frame", frame)):
        with replacing(folder / f"{name}.parquet") as temporary:
            view.to_parquet(temporary, index=False)
    return Views(found, summary, choice)
