"""A tracker of plain files, for who wants no service: one folder per run.

csv/<run id>/  run.json (names, tags, configuration, and at the end summary and status), history.csv, tables/*.csv
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.config import ConfigError
from harness.storage import inside
from harness.storage.files import csv_text, read_bytes, read_json, replacing, write_bytes, write_json
from harness.storage.masking import masked
from harness.storage.schemas import CsvRun, read_as
from harness.tracking.run_locks import RunLocks
from harness.tracking.tracker import Row, RunEnd, RunInfo, RunState, Say, Tracker, fitting_tags
from harness.validation import reason


class CsvTracker(Tracker):
    """Keeps runs below `folder`/csv. A history is rewritten whole, so that it is whole or as it was."""

    def __init__(self, folder: Path, say: Say, tags: Iterable[str] = (), notes: str | None = None) -> None:
        inside.known(folder, say)
        self.folder = folder / "csv"
        self._say = say
        self._locks = RunLocks(self.folder / ".locks")
        self.where = str(self.folder)
        self._tags = fitting_tags(tags)
        self._notes = notes
        self._rows: dict[str, list[Row]] = {}
        self._infos: dict[str, dict[str, Any]] = {}

    def states(self, run_ids: Iterable[str]) -> dict[str, RunState]:
        found = {}
        for run_id in run_ids:
            known = self._read(run_id)
            if known is not None:
                count, last = _last_row(self._of(run_id) / "history.csv")
                found[run_id] = RunState(count, last, known.get("digest"), known["tags"])
        return found

    def _read(self, run_id: str) -> dict[str, Any] | None:
        try:
            return read_as(CsvRun, read_json(self._of(run_id) / "run.json"))
        except (FileNotFoundError, ValueError):
            return None

    def _of(self, run_id: str) -> Path:
        return inside.below(self.folder, run_id)

    def start(self, info: RunInfo) -> None:
        if self._open(info):
            write_json(self._of(info.run_id) / "run.json", self._infos[info.run_id])

    def _open(self, info: RunInfo) -> bool:
        """Have a run to write to; whether it was not open before, and is now."""
        if info.run_id in self._rows:
            return False
        try:
            self._locks.take(info.run_id)
        except TimeoutError:
            self._say(f"{info.name} is not tracked, its record goes on: another command writes {info.run_id}")
            return False
        earlier = self._read(info.run_id) or {"tags": []}
        tags = list(dict.fromkeys([*earlier["tags"], *info.tags, *self._tags]))
        notes = " ".join(filter(None, (info.notes, self._notes))) or None
        self._infos[info.run_id] = masked(asdict(info) | {"tags": tags, "notes": notes, "status": "running"})
        self._rows[info.run_id] = _read_rows(self._of(info.run_id) / "history.csv")
        return True

    def record(self, info: RunInfo, rows: Iterable[Row], end: RunEnd) -> None:
        """A run as a whole, of which `run.json` is written last and once."""
        self._open(info)
        self.log(info.run_id, rows)
        self.end(info.run_id, end)

    def log(self, run_id: str, rows: Iterable[Row]) -> None:
        known = self._rows.get(run_id)
        if known is None:
            return
        last = known[-1]["epoch"] if known else None
        new = [row for row in rows if last is None or row["epoch"] > last]
        if not new:
            return
        known += [{k: v for k, v in row.items() if v is not None} for row in new]
        columns = dict.fromkeys(name for row in known for name in row)
        with (
            replacing(self._of(run_id) / "history.csv") as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows(known)

    def end(self, run_id: str, end: RunEnd) -> None:
        if run_id not in self._rows:
            return
        folder = self._of(run_id)
        for name, table in end.tables.items():
            write_bytes(inside.below(folder / "tables", f"{name}.csv"), csv_text(table).encode())
        for name, path in end.images.items():
            target = inside.below(folder / "figures", f"{name}{path.suffix}")
            write_bytes(target, read_bytes(path))
        for artifact in end.artifacts:
            for name, content in artifact.files.items():
                target = inside.below(folder / "artifacts", f"{artifact.name}/{name}")
                if isinstance(content, bytes):
                    write_bytes(target, content)
                else:
                    with replacing(target) as temporary:
                        inside.copy_file(content, temporary)
        summary = {name: value for name, value in end.summary.items() if value is not None}
        ended = {"status": end.status, "digest": end.digest, "summary": masked(summary)}
        write_json(folder / "run.json", self._infos[run_id] | ended)
        self._release(run_id)

    def _release(self, run_id: str) -> None:
        del self._rows[run_id], self._infos[run_id]
        self._locks.release(run_id)

    def close(self) -> None:
        for run_id in list(self._rows):
            self._release(run_id)


def _read_rows(path: Path) -> list[Row]:
    """Rows as they were given: an empty field was not."""
    return _parsed(path, _lines(path))


def _last_row(path: Path) -> tuple[int, Row | None]:
    """How many rows there are, and the last of them."""
    lines = _lines(path)
    rows = _parsed(path, [lines[0], lines[-1]] if len(lines) > 1 else [])
    return max(len(lines) - 1, 0), rows[-1] if rows else None


def _lines(path: Path) -> list[str]:
    """The lines of a history, none where there is none; no field of one has a line break in it."""
    try:
        return read_bytes(path).decode().splitlines()
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise _no_rows(path, error) from error


def _parsed(path: Path, lines: Iterable[str]) -> list[Row]:
    """Lines, the header first, as rows."""
    try:
        rows = [{name: text for name, text in row.items() if text} for row in csv.DictReader(lines)]
        return [{name: int(text) if name == "epoch" else float(text) for name, text in row.items()} for row in rows]
    except (ValueError, TypeError, csv.Error) as error:
        raise _no_rows(path, error) from error


def _no_rows(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path} must hold the rows of a run, got {reason(error)}; without it they come anew")
