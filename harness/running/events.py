"""What happens while jobs run: small values that jobs, engines, scheduler, tuner and tracking exchange.

Every event has one form as a line of JSON, in which it travels from a job's process to whoever follows it
(`harness.running.event_files`). Nothing that a job says is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from harness.storage.files import parsed_json
from harness.tracking.tracker import Row, RunEnd, RunInfo, WholeRun
from harness.validation import in_utf8, reason


@dataclass(frozen=True)
class Message:
    """A line for the person watching."""

    text: str


@dataclass(frozen=True)
class RunStarted:
    """A cell's run is open for rows: the first time, or again by a job that goes on with the cell."""

    cell_key: str
    info: RunInfo


@dataclass(frozen=True)
class RowsAdded:
    """Rows of an open run, each told after the bundle or the record that holds it was written."""

    cell_key: str
    run_id: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class JobResumed:
    """A job goes on after an epoch that it had finished before it was ended."""

    epoch: int


@dataclass(frozen=True)
class BatchesDone:
    """A job is so many `batches` into its `epoch`-th of `of` batches, which take `epoch_seconds` at this pace."""

    epoch: int
    batches: int
    of: int
    images_per_second: float
    epoch_seconds: float


@dataclass(frozen=True)
class EpochEnded:
    """A job finished an epoch, at `images_per_second`; `best_val_accuracy` in percent, None before any evaluation."""

    epoch: int
    images_per_second: float
    best_val_accuracy: float | None


@dataclass(frozen=True)
class CellEnded:
    """A cell has its record. Where it did not end well: why, at which line of a person's own code (`harness.causes`),
    and the log that says more, below the results folder."""

    cell_key: str
    status: str
    reason: str | None
    where: str | None = None
    log: str | None = None


@dataclass(frozen=True)
class TrialValued:
    """What a candidate of a search came to on its job's base; `result` as `harness.tune.study` has it."""

    cell_key: str
    result: dict[str, Any]


@dataclass(frozen=True)
class RunsEnded:
    """Runs of one group that no record is of, such as a search's trials, each as a whole."""

    group: str
    runs: Sequence[WholeRun]


@dataclass(frozen=True)
class DiskFailed:
    """A disk that is full or failing ended the job; nothing was recorded of its cells."""

    errno: int
    text: str
    path: str


@dataclass(frozen=True)
class WorkedElsewhere:
    """The job left its cells alone, because another process works at them."""


@dataclass(frozen=True)
class JobEnded:
    """A job's last event; `died`: what ended its process, None where it came to its end by itself. Where that is known,
    at which line of a person's own code (`harness.causes`), and all there is to read of it."""

    died: str | None = None
    where: str | None = None
    traceback: str | None = None


Event = (
    Message
    | RunStarted
    | RowsAdded
    | JobResumed
    | BatchesDone
    | EpochEnded
    | CellEnded
    | TrialValued
    | RunsEnded
    | DiskFailed
    | WorkedElsewhere
    | JobEnded
)
Tell = Callable[[Event], None]

_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in Event.__args__}


def event_line(event: Event) -> bytes:
    """An event as one line, its newline included."""
    given = {field.name: getattr(event, field.name) for field in fields(event)}
    values = {name: in_utf8(value) if isinstance(value, str) else value for name, value in given.items()}
    if isinstance(event, RunStarted):
        values["info"] = asdict(event.info)
    if isinstance(event, RunsEnded):
        values["runs"] = [_plain_run(run) for run in event.runs]
    return json.dumps({"event": type(event).__name__, **values}).encode() + b"\n"


def read_event(line: bytes) -> Event:
    """The event of one line; ValueError where the line is none."""
    values = parsed_json(line)
    kind = _KINDS.get(values.pop("event", "")) if isinstance(values, dict) else None
    if kind is None:
        raise ValueError(f"line must be an event, got {line[:80]!r}")
    try:
        if kind is RunStarted:
            values["info"] = RunInfo(**values["info"])
        if kind is RunsEnded:
            values["runs"] = [_read_run(run) for run in values["runs"]]
        event: Event = kind(**values)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"line must be an event, got {reason(error)}") from error
    return event


def _plain_run(run: WholeRun) -> dict[str, Any]:
    """A run without tables, images or artifacts, which only records have."""
    end = {"summary": run.end.summary, "status": run.end.status, "digest": run.end.digest}
    return {"info": asdict(run.info), "rows": run.rows, "end": end}


def _read_run(values: Mapping[str, Any]) -> WholeRun:
    return WholeRun(RunInfo(**values["info"]), values["rows"], RunEnd(**values["end"]))
