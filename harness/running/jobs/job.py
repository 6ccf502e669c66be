"""What a job is, and what is written about cells however they end."""

from __future__ import annotations

import base64
import contextlib
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from harness.config import EvaluateConfig, Settings
from harness.method import State
from harness.planning.methods import as_plain
from harness.planning.plan import BasePlan, CellPlan, labels
from harness.storage import inside
from harness.storage.files import CorruptFile, read_json, set_aside
from harness.storage.keys import harness_digest
from harness.storage.masking import masked_text
from harness.storage.schemas import GenerationRecord, read_as
from harness.storage.store import Record, Store
from harness.storage.tensors import read_state
from harness.training.clock import Counts
from harness.validation import in_utf8

if TYPE_CHECKING:
    from harness.running.jobs.worker import Worker

GENERATION = "generation.json"
"""in a cell's folder: the least generation of its next record, where rows of an earlier attempt are void"""
PACKAGES = ("torch", "timm", "numpy", "scipy", "schedulefree", "traindyn")


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


class Log:
    """Plain lines with a time, appended to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        inside.check_writable(path)
        path.parent.mkdir(parents=True, exist_ok=True)

    def line(self, text: str) -> None:
        with inside.open_append(self.path) as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {in_utf8(masked_text(text))}\n".encode())


@cache
def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def read_bundle(path: Path, say: Callable[[str], None]) -> State | None:
    """A stored state, or None where there is none; a corrupt one is set aside with one line."""
    if not inside.is_file(path):
        return None
    try:
        return read_state(path)
    except CorruptFile as error:
        say(f"corrupt, set aside, to be redone: {error} ({set_aside(path).name})")
        return None


def machine() -> dict[str, Any]:
    """What the job runs on, beside its device."""
    return {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()}


def packed(correct_n: torch.Tensor) -> dict[str, Any]:
    """Which images were right, as a record holds it: how many there are, and a bit for each, in base64."""
    bits = np.packbits(correct_n.numpy().astype(bool)).tobytes()
    return {"images": len(correct_n), "bits": base64.b64encode(bits).decode()}


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def cell_record(
    job: Job, cell: CellPlan, status: str, reason: str | None, trace: str | None, base_digest: list[str]
) -> Record:
    """What every record of a cell says, however it ended."""
    base = job.base.config
    return {
        "cell_key": cell.key,
        "base_key": cell.base_key,
        **labels(base),
        "method": cell.method.name,
        "batchnorm": cell.method.batchnorm,
        "parameters": cell.method.params,
        "status": status,
        "reason": reason and in_utf8(reason),
        "traceback": trace and in_utf8(trace),
        "config": {"base": as_plain(base), "method": as_plain(cell.method), "evaluate": as_plain(job.evaluate)},
        "versions": versions(),
        "device": device_name(torch.device(base.device)),
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "sources": {"harness": job.harness, "method": cell.source},
        "base_digest": base_digest,
        "rederived": False,
        "summary": {},
        "test_correct": None,
        "cost": {},
        "holds": {"epochs": [], "test_epochs": [], "weights": False},
    }


def next_run(store: Store, cell: CellPlan) -> dict[str, Any]:
    """W&B run id and generation of the cell's next record; the generation grows when a cell is redone, or starts over
    after rows of it were told, since W&B's history only appends."""
    earlier, folder = store.record(cell.key), store.cell_folder(cell.key)
    lost = len(inside.entries(folder, "record.json.corrupt-*"))
    generation = lost if earlier is None else earlier["generation"] + 1
    with contextlib.suppress(FileNotFoundError):
        generation = max(generation, read_as(GenerationRecord, read_json(folder / GENERATION))["least"])
    suffix = f"-{generation}" if generation > 0 else ""
    return {"run_id": f"{cell.key[:12]}-{store.store_id}{suffix}", "generation": generation}


def record_end(
    job: Job, store: Store, cells: tuple[CellPlan, ...], status: str, reason: str, trace: str | None
) -> None:
    """Record cells that ended without running: failed with their base, or skipped."""
    for cell in cells:
        record = cell_record(job, cell, status, reason, trace, []) | next_run(store, cell)
        store.write_record(record, [])
        if trace is not None:
            Log(store.cell_folder(cell.key) / "log.txt").line(trace)


def record_failure(job: Job, store: Store, cells: tuple[CellPlan, ...], reason: str, trace: str | None) -> None:
    """A job as a whole failed, and with it those of its cells that had not ended."""
    record_end(job, store, cells, "failed", reason, trace)
    if job.kind == "train" and store.base(job.base.key) is None:
        base = job.base.config
        record = {
            "base_key": job.base.key,
            **labels(base),
            "status": "failed",
            "reason": in_utf8(reason),
            "traceback": trace and in_utf8(trace),
            "config": as_plain(base),
            "N": job.base.N,
            "digests": [],
            "versions": versions(),
            "sources": {"harness": job.harness},
            "device": device_name(torch.device(base.device)),
            "threads": torch.get_num_threads(),
            "seconds": {},
            "counts": Counts().as_dict(),
        }
        store.write_base(record, [], store.base_folder(job.base.key))
        Log(store.base_folder(job.base.key) / "log.txt").line(trace or reason)
