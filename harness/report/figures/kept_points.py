"""Points of a landscape, kept one by one, so that an interrupted evaluation goes on where it stopped."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.report.tables.write import write_csv
from harness.storage.files import read_bytes
from harness.storage.inside import open_append, remove

IDENTITY = ("cell_key", "points", "images")
"""What two evaluations must have in common to share their points."""
MOST_BYTES = 10_000_000
"""of a file of points"""


@dataclass(frozen=True)
class KeptPoints:
    """Points of one landscape: appended to `partial` one by one, moved to `whole` at the end."""

    partial: Path
    whole: Path
    identity: dict[str, Any]

    def known(self) -> dict[tuple[float, float], float]:
        """Losses by point of the same landscape; another one's are dropped."""
        found: dict[tuple[float, float], float] = {}
        for path in (self.whole, self.partial):
            try:
                table = _read(path)
                same = (table[list(IDENTITY)] == list(map(str, self.identity.values()))).all(axis=1)
                points = table.loc[same, ["u", "v", "val_loss"]].astype("float64")
            except (OSError, ValueError, KeyError):
                continue
            found |= {(u, v): loss for u, v, loss in points.to_numpy().tolist()}
        return found

    def add(self, u: float, v: float, loss: float) -> None:
        """Keep one more point."""
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        with open_append(self.partial) as file:
            if os.fstat(file.fileno()).st_size == 0:
                file.write(",".join(["u", "v", "val_loss", *IDENTITY]).encode())
            # A line begins with its break, so that one that a killed process left unfinished spoils no other.
            file.write(("\n" + ",".join(map(str, [float(u), float(v), loss, *self.identity.values()]))).encode())

    def finish(self, known: dict[tuple[float, float], float]) -> pd.DataFrame:
        """Write all points as a CSV in the place of those kept one by one, and return them."""
        lines = [(u, v, loss, *self.identity.values()) for (u, v), loss in sorted(known.items())]
        table = pd.DataFrame(lines, columns=["u", "v", "val_loss", *IDENTITY])
        write_csv(table, self.whole)
        remove(self.partial)
        return table


def _read(path: Path) -> pd.DataFrame:
    """A file of points, as texts; ValueError or OSError where there is none."""
    return pd.read_csv(io.BytesIO(read_bytes(path, MOST_BYTES)), dtype="str", on_bad_lines="skip")


def cells_of_points(path: Path) -> set[str]:
    """The keys of the cells whose points a file holds; one empty key where it is no such file."""
    try:
        return {str(key) for key in _read(path)["cell_key"]}
    except (OSError, ValueError, KeyError):
        return {""}
