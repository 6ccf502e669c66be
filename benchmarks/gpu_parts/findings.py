"""What a part finds, row by row in a file, so that a part that is ended keeps what it has finished."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class LeftOut(Exception):
    """A piece is not done, and nothing is wrong."""


class Deadline:
    """Seconds until a part is to have ended, by a clock that can be pretended."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._end = now() + seconds

    @property
    def left(self) -> float:
        return self._end - self._now()

    def need(self, seconds: float) -> None:
        """LeftOut where less is left."""
        if self.left < seconds:
            raise LeftOut(f"needs about {seconds:.0f} s, {max(self.left, 0):.0f} s were left")


class Findings:
    """Writes what a part finds."""

    def __init__(self, path: Path, deadline: Deadline) -> None:
        self.path = path
        self.deadline = deadline

    def _write(self, **entry: Any) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def row(self, table: str, row: Row, ok: bool | None = None) -> None:
        """A row of a table, in place of an earlier one whose first column has the same value. `ok`: whether it is as it
        should be, None where nothing is asked of it."""
        self._write(table=table, row={name: _plain(value) for name, value in row.items()}, ok=ok)

    def note(self, text: str) -> None:
        """A sentence below the tables."""
        self._write(note=text)

    @contextmanager
    def piece(self, what: str) -> Iterator[None]:
        """A piece of a part: said where it is left out or fails, and the rest goes on."""
        try:
            yield
        except LeftOut as error:
            self._write(left_out=what, why=str(error))
        except Exception as error:
            self._write(failed=what, why=_said(error))


def _said(error: Exception) -> str:
    """Type and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _plain(value: Any) -> Any:
    """A figure as JSON has it."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else str(value)


@dataclass
class Found:
    """What a part has found so far."""

    tables: dict[str, list[Row]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """pieces that raised, with what they said"""
    wrong: list[str] = field(default_factory=list)
    """rows that are not as they should be"""


def read(path: Path) -> Found:
    """What a part has written; a line that was torn when it was ended is left out."""
    found = Found()
    places: dict[tuple[str, Any], int] = {}
    wrong: dict[tuple[str, Any], str] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if "table" in entry:
            rows, row = found.tables.setdefault(entry["table"], []), entry["row"]
            name = entry["table"], next(iter(row.values()))
            if name in places:
                rows[places[name]] = row
            else:
                places[name] = len(rows)
                rows.append(row)
            wrong.pop(name, None)
            if entry["ok"] is False:
                wrong[name] = f"{name[0]}: {name[1]}"
        elif "note" in entry:
            found.notes.append(entry["note"])
        elif "left_out" in entry:
            found.left_out.append(f"{entry['left_out']}: {entry['why']}")
        elif "failed" in entry:
            found.failed.append(f"{entry['failed']}: {entry['why']}")
    found.wrong = list(wrong.values())
    return found
