"""The files of a view in suites/<name>/: frame, history and correct.parquet and tables/, views of the records.

Statistics are imported only where something is computed: a run with nothing left reads its records and is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from harness.config import ConfigError
from harness.results.columns import METRICS
from harness.results.frame import Gathered, build_frame, gather, is_of, with_labels
from harness.results.index import is_current, write_index
from harness.storage.files import replacing
from harness.storage.inside import is_file
from harness.storage.parquet import read_parquet
from harness.storage.store import Record, Store
from harness.storage.views import read_plan

if TYPE_CHECKING:
    from harness.report.stats.summary import Results
    from harness.report.tables.columns import Choice


def write_views(store: Store, name: str) -> pd.DataFrame:
    """The frame of a view; its files and the index of all are rewritten unless they are of the same records."""
    plan, folder = read_plan(store.root, name), store.suite_folder(name)
    frame = _current(store, plan, folder)
    if frame is None:
        gathered = gather(store, plan)
        frame = gathered.frame
        _write(folder, gathered)
    if not is_current(store):
        write_index(store)
    return frame


def _current(store: Store, plan: Record, folder: Path) -> pd.DataFrame | None:
    """The frame of the records where the files are views of it, which says of every cell when and by what it was made.

    None where they are not. Histories are read for it and not kept.
    """
    try:
        stored = read_parquet(folder / "frame.parquet")
    except (OSError, ValueError):
        return None
    names = ("history.parquet", "correct.parquet", "tables/main.md", "tables/summary.csv")
    if not (all(is_file(folder / name) for name in names) and "status" in stored and is_of(stored, plan)):
        return None
    frame = build_frame(store, plan)
    return frame if stored.equals(frame) and stored.attrs == frame.attrs else None


@dataclass(frozen=True)
class Views:
    """What the files of a view were written from."""

    found: Results
    summary: pd.DataFrame
    choice: Choice
    correct: pd.DataFrame


def make_views(
    store: Store, name: str, metric: str | None = None, target: float | None = None, columns: str = ""
) -> Views:
    """Rewrite the files of a view with a metric (None: the view's own), a target and a choice of columns, whatever they
    are now.

    ConfigError where the metric or the columns are unknown.
    """
    views = _write(store.suite_folder(name), gather(store, read_plan(store.root, name)), metric, target, columns)
    write_index(store)
    return views


def _write(
    folder: Path,
    gathered: Gathered,
    metric: str | None = None,
    target: float | None = None,
    columns: str = "",
) -> Views:
    from harness.report.stats.summary import results
    from harness.report.tables.columns import Choice
    from harness.report.tables.write import write_tables

    frame, history, correct = gathered
    metric = metric or str(frame.attrs.get("metric", "test_accuracy"))
    if metric not in METRICS:
        raise ConfigError(f"tables.metric must be one of {', '.join(METRICS)}, got {metric!r}")
    choice, found = Choice.of(columns, frame), results(frame, history, metric, target, correct)
    summary = write_tables(found, folder / "tables", choice)
    # The frame goes last: it names the plan that everything beside it is of.
    labelled = with_labels(history, frame)
    for kind, table in (("history", labelled), ("correct", correct), ("frame", frame)):
        with replacing(folder / f"{kind}.parquet") as temporary:
            table.to_parquet(temporary, index=False)
    return Views(found, summary, choice, correct)
