"""The tables that methods gave at the end of their cells (`Method.tables`), as they lie in the cells' folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.storage.files import read_bytes
from harness.storage.inside import is_file
from harness.storage.parquet import MOST_HISTORY_BYTES, check_parquet, read_parquet
from harness.storage.store import Store
from harness.validation import reason

Needed = Mapping[str, tuple[str, ...]]
"""The columns that a reader needs, by the name of their table."""


@dataclass(frozen=True)
class MethodTables:
    """The tables of one cell, none of which need to exist."""

    store: Store
    cell_key: str

    def _path(self, name: str) -> Path:
        return self.store.cell_folder(self.cell_key) / "tables" / f"{name}.parquet"

    def has(self, name: str) -> bool:
        """Whether the method gave a table of this name."""
        return is_file(self._path(name))

    def lacking(self, needed: Needed) -> str | None:
        """What is missing or damaged of the tables needed, in words, or None where all is there."""
        for name, columns in needed.items():
            if not self.has(name):
                return f"there is no table {name}"
            try:
                table = check_parquet(read_bytes(self._path(name), MOST_HISTORY_BYTES))
            except ValueError as error:
                return f"the table {name} cannot be read: {reason(error)}"
            missing = [column for column in columns if column not in table.schema_arrow.names]
            if missing:
                return f"the table {name} has no column {', '.join(missing)}"
            if table.metadata.num_rows == 0:
                return f"the table {name} has no rows"
        return None

    def read(self, name: str) -> pd.DataFrame:
        """A table; ValueError where it is damaged."""
        return read_parquet(self._path(name))


def first_with(store: Store, cells: pd.DataFrame, needed: Needed) -> tuple[dict[str, Any], str | None] | None:
    """The finished cell of the lowest seed that gives all tables needed, beside None.

    Where no cell gives all, the first that gives the first of the tables, beside what it lacks in words; None where
    there is no such cell either. `cells` are lines of a frame.
    """
    name, *_ = needed
    partial = None
    finished = cells[cells["status"] == "done"].sort_values("seed", kind="stable")
    for place, cell_key in enumerate(finished["cell_key"].tolist()):
        tables = MethodTables(store, cell_key)
        if not tables.has(name):
            continue
        (line,) = finished.iloc[[place]].to_dict("records")
        cell = {str(column): value for column, value in line.items()}
        lacking = tables.lacking(needed)
        if lacking is None:
            return cell, None
        partial = partial or (cell, lacking)
    return partial
