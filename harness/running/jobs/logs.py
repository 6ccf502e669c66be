"""Logs of bases and cells, for people: what a job was, what it went through epoch by epoch, and how it ended."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.causes import Cause
from harness.planning.plan import CellPlan
from harness.running.jobs.environment import device_name, versions
from harness.storage import inside
from harness.storage.masking import masked_text
from harness.training.clock import Counts
from harness.validation import in_utf8

if TYPE_CHECKING:
    from harness.running.jobs.job import Job
    from harness.storage.store import Record


class Log:
    """Plain lines with a time, appended to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        inside.check_writable(path)
        path.parent.mkdir(parents=True, exist_ok=True)

    def line(self, text: str) -> None:
        self.lines([text])

    def lines(self, texts: Iterable[str], numbers: bool = False) -> None:
        """Append lines, secrets masked; `numbers`: there is nothing to mask, which takes longer than all else."""
        now, said = time.strftime("%Y-%m-%d %H:%M:%S"), "\n".join(texts)
        said = in_utf8(said if numbers else masked_text(said))
        with inside.open_append(self.path) as file:
            file.write("".join(f"{now} {line}\n" for line in said.split("\n")).encode())


def begin_log(job: Job, log: Log, cell: CellPlan | None = None) -> None:
    """Begin a job's stretch of a log, a base's or with `cell` a cell's: what is run, by which command, where, and with
    which versions."""
    base = job.base.config
    doing = {"train": "trains", "replay": "replays its base's snapshots", "shadow": "runs its base again"}
    branch = None if cell is None else cell.branch
    methods = ", ".join(dict.fromkeys(one.method.name for one in job.cells)) or "none"
    values = {} if cell is None else cell.method.params
    length = f"{base.epochs}" if branch is None else f"{branch.epochs} of its own, after {branch.prefix} of its base"
    steps = "all batches" if base.batches_per_epoch is None else f"{base.batches_per_epoch} batches each"
    facts = [
        ("model", f"{base.model.name} ({base.model.timm}), {job.base.N:,} weights"),
        ("dataset", base.dataset.name),
        ("optimizer", f"{base.optimizer.name} {json.dumps(base.optimizer.params, default=str)}"),
        ("seed", str(base.seed)),
        ("method", f"{cell.method.name} {json.dumps(values, default=str)}" if cell is not None else methods),
        ("epochs", f"{length}, {steps}, of {base.batch_size} images"),
        ("base", job.base.key),
        *job.origin.lines(),
        ("results", job.settings.results_dir),
        ("machine", f"{platform.node()}, {platform.platform()}, {os.cpu_count()} cores"),
        ("device", f"{device_name(torch.device(base.device))}, threads: {torch.get_num_threads()}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in reversed(versions().items()))),
    ]
    what = doing.get(job.kind, "branches off from its base")
    title = f"== {base.label}{'' if cell is None else f'-{cell.method.name}'} {what}"
    log.lines([title, *(f"   {name:<14} {value}" for name, value in facts)])


def epoch_line(row: Mapping[str, Any], before: Mapping[str, Any], last: int) -> str:
    """An epoch's row as a line of a log, `before` being the row before it: numbers, rate, and seconds of its own."""

    def own(name: str) -> float:
        value: float = row.get(name, 0.0) - before.get(name, 0.0)
        return value

    images, seconds = own("gradients_full") + own("gradients_subspace"), own("train_seconds")
    first = ("val_loss", "val_accuracy", "test_loss", "test_accuracy", "train_loss", "train_accuracy", "lr")
    left = [n for n in row if n not in ("epoch", *first, *Counts().as_dict()) and not n.endswith("_seconds")]
    numbers = [f"{name}={row[name]:.5g}" for name in (*first, *left) if name in row]
    rate = [f"{images / seconds:,.0f} images/s"] if images > 0 and seconds > 0 else []
    kinds = ("train_seconds", "method_seconds", "eval_seconds")
    spent = [f"{name.removesuffix('_seconds')} {own(name):.2f} s" for name in kinds if name in row]
    return f"epoch {row['epoch']}/{last}: {' '.join(numbers)}; {', '.join([*rate, *spent])}"


def done_line(record: Record) -> str:
    """How a finished cell ended, as a line of its log: its numbers and its seconds."""
    numbers = " ".join(f"{name}={value:.5g}" for name, value in record["summary"].items())
    cost = record["cost"]
    spent = [f"{name.removesuffix('_seconds')} {cost[name]:.1f} s" for name in cost if name.endswith("_seconds")]
    return f"done: {numbers}; {', '.join(spent)}"


def ending(status: str, cause: Cause) -> list[str]:
    """How something ended, as lines of a log: why, the line of one's own code, and the traceback."""
    where = [] if cause.where is None else [f"at {cause.where}"]
    return [f"{status}: {cause.reason}", *where, *(cause.traceback or "").rstrip().splitlines()]
