"""A tracker of plain files, for who wants no service: one folder per run.

csv/<run id>/  run.json (names, tags, configuration, and at the end summary and status), history.csv, tables/*.csv
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.storage.files import replacing, write_bytes, write_json
from harness.storage.masking import masked
from harness.tracking.run_locks import RunLocks
from harness.tracking.tracker import Row, RunEnd, RunInfo, RunState, Say, Tracker, fitting_tags


class CsvTracker(Tracker):
    """Keeps runs below `folder`/csv. A history is rewritten whole, so that it is whole or as it was."""

    def __init__(self, folder: Path, say: Say, tags: Iterable[str] = (), notes: str | None = None) -> None:
        self.folder = folder / "csv"
        self._say = say
        self._locks = RunLocks(self.folder / ".locks")
        self.where = str(self.folder)
        self._tags = fitting_tags(tags)
        self._notes = notes
        self._rows: dict[str, list[Row]] = {}

    def states(self, run_ids: Iterable[str]) -> dict[str, RunState]:
        found = {}
        for run_id in run_ids:
            known = self._read(run_id)
            if known is not None:
                rows = _read_rows(self.folder / run_id / "history.csv")
                last = rows[-1] if rows else None
                found[run_id] = RunState(len(rows), last, known.get("digest"), known["tags"])
        return found

    def _read(self, run_id: str) -> dict[str, Any] | None:
        try:
            known: dict[str, Any] = json.loads((self.folder / run_id / "run.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return known

    def start(self, info: RunInfo) -> None:
        if info.run_id in self._rows:
            return
        try:
            self._locks.take(info.run_id)
        except TimeoutError:
            self._say(f"{info.name} is not tracked, its record goes on: another command writes {info.run_id}")
            return
        earlier = self._read(info.run_id) or {"tags": []}
        tags = list(dict.fromkeys([*earlier["tags"], *info.tags, *self._tags]))
        notes = " ".join(filter(None, (info.notes, self._notes))) or None
        plain = masked(asdict(info) | {"tags": tags, "notes": notes, "status": "running"})
        self._rows[info.run_id] = _read_rows(self.folder / info.run_id / "history.csv")
        write_json(self.folder / info.run_id / "run.json", plain)

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
            replacing(self.folder / run_id / "history.csv") as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows(known)

    def end(self, run_id: str, end: RunEnd) -> None:
        if run_id not in self._rows:
            return
        folder = self.folder / run_id
        for name, table in end.tables.items():
            write_bytes(folder / "tables" / f"{name}.csv", table.to_csv(index=False).encode())
        for name, path in end.images.items():
            (folder / "figures").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / "figures" / f"{name}{path.suffix}")
        for artifact in end.artifacts:
            for name, content in artifact.files.items():
                data = content if isinstance(content, bytes) else content.read_bytes()
                write_bytes(folder / "artifacts" / artifact.name / name, data)
        summary = {name: value for name, value in end.summary.items() if value is not None}
        known = self._read(run_id) or {}
        write_json(
            folder / "run.json", known | {"status": end.status, "digest": end.digest, "summary": masked(summary)}
        )
        self._release(run_id)

    def _release(self, run_id: str) -> None:
        self._rows.pop(run_id)
        self._locks.release(run_id)

    def close(self) -> None:
        for run_id in list(self._rows):
            self._release(run_id)


def _read_rows(path: Path) -> list[Row]:
    """Rows as they were given: an empty field was not."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [{name: text for name, text in row.items() if text} for row in csv.DictReader(file)]
    return [{name: int(text) if name == "epoch" else float(text) for name, text in row.items()} for row in rows]
