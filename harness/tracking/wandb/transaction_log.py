"""W&B's local transaction logs, read back: one `.wandb` file per fragment of a run, several after interruptions.

A log is 7 bytes of header, then LevelDB's log format in blocks of 32 KiB: pieces of (crc32 of type and body,
length, type, body) that make up protobuf `Record`s. Checked on files of wandb 0.31: history and summary items
stand under `nested_key` when logged and under `key` when set, values are JSON (NaN and Infinity included),
W&B's own columns begin with an underscore, and only a finished run ends with an exit record.
"""

from __future__ import annotations

import contextlib
import glob
import json
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from harness.storage.files import read_bytes
from harness.storage.inside import entries, files_in
from harness.tracking.tracker import RunState

HEADER = b":W&B\xe1\xbe\x00"
BLOCK_BYTES = 32768
MOST_BYTES = 1 << 30
"""of a fragment"""
PIECE_HEADER = struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """What one fragment holds: `history` row by row as logged, `finished` where the run was closed properly."""

    run_id: str
    name: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    tags: tuple[str, ...] = ()
    notes: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    finished: bool = False
    exit_code: int | None = None


def fragments_in(results_dir: Path, folder: str, name: str) -> list[Path]:
    """The fragments below a results folder whose folders and names match these patterns, in order."""
    return [path for one in entries(results_dir / "wandb", folder) for path in files_in(one, name)]


def transaction_logs(results_dir: Path, run_id: str) -> list[Path]:
    """All fragments of a run, offline and online ones, in the order in which they were started.

    W&B names their folders by the second, and counts those of one second.
    """
    name = glob.escape(run_id)
    started = re.compile(rf"(\d{{8}}_\d{{6}})-{re.escape(run_id)}(?:-(\d+))?$")
    found = []
    for path in fragments_in(results_dir, f"*run-*-{name}*", f"run-{name}.wandb"):
        if match := started.search(path.parent.name):
            found.append((match[1], int(match[2] or 0), path))
    return [path for *_, path in sorted(found)]


def local_state(results_dir: Path, run_id: str) -> RunState | None:
    """What all fragments of a run hold together, those recorded online included, since they can be sent as well."""
    runs = [read_offline(path) for path in transaction_logs(results_dir, run_id)]
    if not runs:
        return None
    rows = sorted((row for run in runs for row in run.history if "epoch" in row), key=lambda row: int(row["epoch"]))
    digests = [run.summary["record"] for run in runs if run.finished and "record" in run.summary]
    tags = dict.fromkeys(tag for run in runs for tag in run.tags)
    return RunState(len(rows), rows[-1] if rows else None, digests[-1] if digests else None, tuple(tags))


def is_empty(path: Path) -> bool:
    """Whether a fragment holds no record, as of a process that was killed at once: one makes `wandb sync` give up."""
    return path.stat().st_size <= len(HEADER)


def read_offline(path: Path) -> OfflineRun:
    """A fragment as far as it is whole: reading ends, without an error, where a killed process left it torn, or
    where it holds what W&B would not have written."""
    run = OfflineRun(run_id=path.stem.removeprefix("run-"))
    with contextlib.suppress(DecodeError, ValueError, TypeError, AttributeError, RecursionError):
        for record in _records(read_bytes(path, MOST_BYTES)):
            _read_record(run, record)
    run.config, run.summary = _logged(run.config), _logged(run.summary)
    return run


def _read_record(run: OfflineRun, record: Any) -> None:
    match record.WhichOneof("record_type"):
        case "run":
            _read_run(run, record.run)
        case "config":
            _update(run.config, record.config)
        case "summary":
            _update(run.summary, record.summary)
        case "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                _put(row, item)
            run.history.append(_logged(row))
        case "exit":
            run.finished, run.exit_code = True, record.exit.exit_code


def _records(data: bytes) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    for body in _bodies(data):
        record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(body)
        yield record


def _bodies(data: bytes) -> Iterator[bytes]:
    """The records' bytes up to the first damage; what follows a gap is not used, so that rows are never missed."""
    if not data.startswith(HEADER):
        return
    position, pieces = len(HEADER), b""
    while position + PIECE_HEADER.size <= len(data):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < PIECE_HEADER.size:
            position += left  # a block ends with padding where no piece fits
            continue
        checksum, length, kind = PIECE_HEADER.unpack_from(data, position)
        position += PIECE_HEADER.size
        body = data[position : position + length]
        if len(body) < length or zlib.crc32(body, zlib.crc32(bytes([kind]))) != checksum:
            return
        position += length
        pieces = body if kind in (FULL, FIRST) else pieces + body
        if kind in (FULL, LAST):
            yield pieces


def _read_run(run: OfflineRun, record: Any) -> None:
    run.run_id, run.name, run.project = record.run_id, record.display_name, record.project
    run.group, run.job_type, run.notes = record.run_group, record.job_type, record.notes
    run.tags = tuple(record.tags)
    _update(run.config, record.config)
    _update(run.summary, record.summary)


def _update(target: dict[str, Any], change: Any) -> None:
    for item in change.update:
        _put(target, item)
    for item in change.remove:
        *parents, last = item.nested_key or [item.key]
        inner = target
        for key in parents:
            inner = inner.get(key, {})
        inner.pop(last, None)


def _put(target: dict[str, Any], item: Any) -> None:
    *parents, last = item.nested_key or [item.key]
    for key in parents:
        target = target.setdefault(key, {})
    target[last] = json.loads(item.value_json)


def _logged(values: dict[str, Any]) -> dict[str, Any]:
    """Without W&B's own entries."""
    return {key: value for key, value in values.items() if not key.startswith("_")}
