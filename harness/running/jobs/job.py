"""What a job is, and what is written about cells however they end."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from harness.causes import Cause
from harness.config import BaseConfig, EvaluateConfig, Settings
from harness.planning.methods import as_plain
from harness.planning.plan import BasePlan, CellPlan, labels
from harness.running.events import CellEnded
from harness.running.jobs.environment import device_name, machine, versions
from harness.running.jobs.logs import Log, begin_log, ending
from harness.running.origin import Origin
from harness.storage import inside
from harness.storage.files import read_json
from harness.storage.keys import harness_digest
from harness.storage.paths import base_log, cell_log
from harness.storage.schemas import GenerationRecord, read_as
from harness.storage.store import Record, Store
from harness.tracking.tracker import readable_id
from harness.training.clock import Counts
from harness.validation import in_utf8

if TYPE_CHECKING:
    from harness.running.jobs.worker import Worker

GENERATION = "generation.json"
"""in a cell's folder: the least generation of its next record, where rows of an earlier attempt are void"""


class Refused(Exception):
    """A repeated base is not the one that was recorded."""


@dataclass(frozen=True)
class Job:
    """One piece of work on a base; a branch has exactly one cell."""

    waits: ClassVar[bool] = False
    """whether it waits where another process works in its folder, rather than leave that to it"""
    worker: type[Worker]
    """what runs it; it travels by its name"""
    base: BasePlan
    cells: tuple[CellPlan, ...]
    snapshots: frozenset[int]
    """epochs whose snapshots to record"""
    starts: frozenset[int]
    """epochs whose restart states to keep for branchers"""
    retrain: bool
    evaluate: EvaluateConfig
    settings: Settings
    composed: dict[str, Any]
    python_path: tuple[str, ...]
    harness: str = field(default_factory=harness_digest)
    """digest of the harness's numeric modules when the job was planned"""
    generations: dict[str, int | None] = field(default_factory=dict)
    """of each cell's record when the job was planned: another one since then is another process's work"""
    client_processes: int = 1
    """processes in which clients of a federation train at once"""
    origin: Origin = field(default_factory=Origin)
    """the command that it is of, for logs and records"""

    @property
    def kind(self) -> str:
        """`train`, `replay`, `shadow` or `branch`."""
        return self.worker.kind

    @property
    def label(self) -> str:
        what = {"replay": " (replay)", "shadow": " (shadow)"}.get(self.kind, "")
        return self.base.config.label + (f"-{self.cells[0].method.name}" if self.kind == "branch" else what)

    @property
    def epochs(self) -> int:
        branch = self.cells[0].branch if self.kind == "branch" else None
        return self.base.config.epochs if branch is None else branch.epochs

    def log_of(self, cell: CellPlan) -> str:
        """Where there is to read why a cell failed with the job as a whole, below the results folder: in the log of
        its base where that was trained."""
        return base_log(self.base.key) if self.kind == "train" else cell_log(cell.key)


def packed(correct_n: torch.Tensor) -> dict[str, Any]:
    """Which images were right, as a record holds it: how many there are, and a bit for each, in base64."""
    bits = np.packbits(correct_n.numpy().astype(bool)).tobytes()
    return {"images": len(correct_n), "bits": base64.b64encode(bits).decode()}


def cell_record(job: Job, cell: CellPlan, status: str, base_digest: list[str], cause: Cause | None = None) -> Record:
    """What every record of a cell says, however it ended; `cause`: why it ended otherwise than done."""
    base = job.base.config
    reason, where, trace = (None, None, None) if cause is None else (cause.reason, cause.where, cause.traceback)
    return {
        "cell_key": cell.key,
        "base_key": cell.base_key,
        **labels(base),
        "method": cell.method.name,
        "batchnorm": cell.method.batchnorm,
        "parameters": cell.method.params,
        "changed": cell.changed,
        "status": status,
        "reason": reason and in_utf8(reason),
        "where": where and in_utf8(where),
        "traceback": trace and in_utf8(trace),
        "log": cell_log(cell.key),
        "config": {"base": as_plain(base), "method": as_plain(cell.method), "evaluate": as_plain(job.evaluate)},
        "versions": versions(),
        "device": device_name(torch.device(base.device)),
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "environment": job.origin.as_record(),
        "sources": {"harness": job.harness, "method": cell.source},
        "base_digest": base_digest,
        "rederived": False,
        "summary": {},
        "communication": {},
        "test_correct": None,
        "cost": {},
        "kernel": {},
        "holds": {"epochs": [], "test_epochs": [], "weights": False},
    }


def next_run(store: Store, base: BaseConfig, cell: CellPlan) -> dict[str, Any]:
    """W&B run id and generation of the cell's next record; the generation grows when a cell is redone, or starts over
    after rows of it were told, since W&B's history only appends."""
    earlier, folder = store.record(cell.key), store.cell_folder(cell.key)
    lost = len(inside.entries(folder, "record.json.corrupt-*"))
    generation = lost if earlier is None else earlier["generation"] + 1
    with contextlib.suppress(FileNotFoundError):
        generation = max(generation, read_as(GenerationRecord, read_json(folder / GENERATION))["least"])
    suffix = f"-{generation}" if generation > 0 else ""
    of_base = labels(base)
    parts = (of_base["model"], of_base["dataset"], f"s{of_base['seed']}", cell.method.name)
    digest = hashlib.sha256(f"{cell.key} {store.store_id}".encode()).hexdigest()
    return {"run_id": readable_id(*parts, digest=digest, suffix=suffix), "generation": generation}


def record_end(
    job: Job, store: Store, cells: tuple[CellPlan, ...], status: str, cause: Cause, log: str | None = None
) -> None:
    """Record cells that ended without running: failed with their base, or skipped.

    `log`: where there is to read why, below the results folder; None: in each cell's own.
    """
    for cell in cells:
        own = cell_log(cell.key)
        record = (
            cell_record(job, cell, status, [], cause) | next_run(store, job.base.config, cell) | {"log": log or own}
        )
        store.write_record(record, [])
        _end_log(job, store.root / own, status, cause if log in (None, own) else see(cause, log), cell)


def _end_log(job: Job, path: Path, status: str, cause: Cause, cell: CellPlan | None = None) -> None:
    """Say how something ended in its log, which is begun where it is not yet."""
    log, begun = Log(path), path.exists()
    if not begun:
        begin_log(job, log, cell)
    log.lines(ending(status, cause))


def see(cause: Cause, log: str | None) -> Cause:
    """A cause of which another log says all."""
    return Cause(f"{cause.reason}; see {log}")


def ended(record: Record) -> CellEnded:
    """What is told of a cell that has this record."""
    log = None if record["status"] == "done" else record.get("log")
    return CellEnded(record["cell_key"], record["status"], record["reason"], record.get("where"), log)


def note_loss(job: Job, store: Store, cause: Cause) -> None:
    """Have the logs say that the process of a job was lost, which is started again."""
    lost = Cause(f"{cause.reason}; it goes on from its last epoch", cause.where)
    for log, cell in {job.log_of(cell): cell for cell in job.cells}.items():
        _end_log(job, store.root / log, "lost", lost, None if job.kind == "train" else cell)


def record_failure(job: Job, store: Store, cells: tuple[CellPlan, ...], cause: Cause) -> None:
    """A job as a whole failed, and with it those of its cells that had not ended."""
    for cell in cells:
        record_end(job, store, (cell,), "failed", cause, job.log_of(cell))
    if job.kind != "train":
        return
    _end_log(job, store.root / base_log(job.base.key), "failed", cause)
    if store.base(job.base.key) is None:
        base = job.base.config
        record = {
            "base_key": job.base.key,
            **labels(base),
            "status": "failed",
            "reason": in_utf8(cause.reason),
            "where": cause.where and in_utf8(cause.where),
            "traceback": cause.traceback and in_utf8(cause.traceback),
            "log": base_log(job.base.key),
            "config": as_plain(base),
            "N": job.base.N,
            "digests": [],
            "versions": versions(),
            "environment": job.origin.as_record(),
            "sources": {"harness": job.harness},
            "device": device_name(torch.device(base.device)),
            "threads": torch.get_num_threads(),
            "seconds": {},
            "counts": Counts().as_dict(),
        }
        store.write_base(record, [], store.base_folder(job.base.key))
