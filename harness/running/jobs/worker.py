"""What all jobs share: a process's store, clock, evaluator, what it tells of its cells, and the end of a cell."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from safetensors.torch import save as save_safetensors

from harness.causes import Cause, Interrupted
from harness.config import BaseConfig, ConfigError
from harness.federated.elsewhere import Connect, Work
from harness.federated.server import FederatedTrainer
from harness.kernel import KERNEL, checked, numbers
from harness.method import Exchange, Method
from harness.planning.methods import make_method
from harness.planning.plan import CellPlan
from harness.problem.images import Images
from harness.problem.splits import load_split
from harness.running.audience import RunningCell
from harness.running.events import (
    BatchesDone,
    CellEnded,
    DiskFailed,
    EpochEnded,
    Message,
    RowsAdded,
    RunStarted,
    Tell,
    WorkedElsewhere,
)
from harness.running.jobs.environment import versions
from harness.running.jobs.job import GENERATION, Job, Refused, cell_record, ended, next_run, packed, record_failure
from harness.running.jobs.logs import Log, begin_log, done_line, ending, epoch_line
from harness.running.jobs.progress import CountedImages
from harness.storage import inside
from harness.storage.files import CorruptFile, is_disk_trouble, set_aside, write_bytes, write_json
from harness.storage.keys import source_digest
from harness.storage.leases import lease_name, leave
from harness.storage.masking import masked_text
from harness.storage.paths import cell_log
from harness.storage.store import Record, Store
from harness.storage.tensors import write_state
from harness.tracking import tracks
from harness.tracking.runs import cell_info
from harness.training.clock import Clock, Load, peak_memory_bytes
from harness.training.evaluate import Evaluator
from harness.training.kernels import told_kernels
from harness.training.loop import Trainer, set_determinism
from harness.training.out_of_memory import bounded_by
from harness.validation import reason

if TYPE_CHECKING:
    import pandas as pd


MOST_THREADS = 4096
"""as engine.threads may have"""
CLIENTS = "clients"
"""the table of a cell that says which images every client of its federation has, and how right it is"""
COMMUNICATION = (
    *("upload_bytes", "download_bytes"),
    *("client_accuracy", "client_accuracy_std", "client_accuracy_worst"),
)
"""what a record holds of a federation's last round"""


class Worker(ABC):
    """Runs one job in this process."""

    kind: ClassVar[str]
    """what it does: train, replay, shadow or branch"""

    def __init__(self, job: Job, tell: Tell, connect: Connect | None = None) -> None:
        self.job = job
        self.connect = connect
        self.base: BaseConfig = job.base.config
        self.tell = tell
        self.device = torch.device(self.base.device)
        self.store = Store(Path(job.settings.results_dir), self.say)
        self.clock = Clock(self.device)
        self.load = Load()
        self.folder = self.store.base_folder(job.base.key)
        self.base_digest: list[str] = []
        """of the base's last weights, once they are known"""
        self.rederived = False
        """whether a repeated base differed from the recorded one, which is refused on the CPU only"""
        self._told: dict[str, tuple[str, int]] = {}
        """run id and rows told, by the key of a cell whose run is open"""
        self.logs: list[Log] = []
        """those that were begun"""
        self._noted: dict[str, int] = {}
        """how many rows of a cell its log has, by its key"""
        self._ended: set[str] = set()
        self.ends = contextlib.ExitStack()
        """what is ended with the job"""
        self._best = -math.inf
        """validation accuracy of all rows that were seen, `_seen` of each cell's by its key"""
        self._seen: dict[str, int] = {}

    def say(self, text: str) -> None:
        """One line for the person watching, and in the logs."""
        self.tell(Message(masked_text(f"{self.job.label}: {text}")))
        self.note(text)

    def note(self, text: str) -> None:
        """A line in the logs of what this job has begun."""
        for log in self.logs:
            log.line(text)

    def cell_log(self, key: str) -> Log:
        return Log(self.store.root / cell_log(key))

    @cached_property
    def images(self) -> Images:
        """The training split."""
        return load_split(self.base.dataset, "train").to(self.device)

    def counted_images(self, before: int = 0) -> CountedImages:
        """The training split, whose batches are told as they are done; `before`: epochs that are not the job's own."""
        return CountedImages(self.images, self.tell, before)

    def new_trainer(self, before: int = 0, cell: RunningCell | None = None) -> Trainer:
        """The base at w(0): its own training, or on a federation the server and its clients.

        `before`: epochs that are not the job's own; `cell`: one of an exchange, None for the base.
        """
        federation = self.base.federation
        if federation.clients == 0:
            return Trainer(self.base, self.counted_images(before), self.device)
        server = None if cell is None else cell.method
        assert server is None or isinstance(server, Exchange)
        work = Work(
            *(self.base, None if cell is None else cell.cell.method, torch.get_num_threads(), os.getcwd()),
            *(self.job.python_path, self.job.harness),
        )

        def told(of_round: int, done: int, clients: int, seconds: float) -> None:
            images = federation.local_epochs * len(self.images) / federation.clients
            self.tell(BatchesDone(of_round - before, done, clients, images / max(seconds, 1e-9), seconds * clients))

        trainer = FederatedTrainer(
            *(self.base, self.images, self.device, server, work.exchange),
            processes=self.job.client_processes,
            say=self.say,
            told=told,
            phase=contextlib.nullcontext if cell is None else self.clock.phase,
            elsewhere=None if self.connect is None else self.connect(work, self.say),
        )
        self.ends.callback(trainer.close)
        return trainer

    def check_partition(self, trainer: Trainer, known: Record | None) -> None:
        """Refused where a repeated base's images are dealt otherwise than when it was recorded."""
        then = None if known is None else known.get("partition")
        if then is not None and isinstance(trainer, FederatedTrainer) and trainer.partition != then:
            raise Refused(
                f"the partition of the repeated base ({trainer.partition}) differs from the recorded one ({then}): "
                "redo=base trains it anew"
            )

    @cached_property
    def evaluator(self) -> Evaluator:
        return Evaluator(self.base, self.job.evaluate, self.images, self.device)

    @property
    def lock_folder(self) -> Path:
        """The folder that only one job at a time works in."""
        return self.folder

    @property
    def lease_name(self) -> str:
        return lease_name(self.store.root, self.lock_folder)

    @abstractmethod
    def work(self) -> None:
        """Do the job."""

    def run(self) -> None:
        """Do the job alone in its folder; what goes wrong with it as a whole is recorded for its open cells."""
        set_determinism(self.base)
        with told_kernels(self.say):
            self._run()

    def _run(self) -> None:
        leases = self.store.leases
        lease = leases.wait(self.lease_name, leave) if self.job.waits else leases.take(self.lease_name, leave)
        if lease is None:
            self.tell(WorkedElsewhere())
            return
        with lease, self.ends:
            inside.check_writable(self.lock_folder)
            self.lock_folder.mkdir(parents=True, exist_ok=True)
            for half in inside.entries(self.lock_folder, ".*.tmp"):  # what a killed process was writing
                if inside.is_folder(half):
                    inside.remove_folder(half)
            for half in inside.files_below(self.lock_folder, ".*.tmp"):
                inside.remove(half)
            try:
                self.job = self._unfinished()
                if self.job.cells or self.job.kind == "train":
                    with bounded_by("batch_size", self.base.batch_size):
                        self.work()
            except Interrupted:
                self.note("interrupted: it goes on from its last stored epoch")
                raise
            except CorruptFile as error:
                path = Path(str(error).split(": ")[0])
                aside = set_aside(path).name if path.exists() else "gone"
                self.say(f"corrupt, set aside, to be redone: {error} ({aside})")
            except (Exception, SystemExit) as error:
                if is_disk_trouble(error):
                    self.tell(DiskFailed(error.errno or 0, error.strerror or "", str(error.filename)))
                    return
                cells = tuple(cell for cell in self.job.cells if cell.key not in self._ended)
                self.fail(cells, Cause.of(error))

    def fail(self, cells: tuple[CellPlan, ...], cause: Cause) -> None:
        """The job as a whole failed, and with it the cells that had not ended."""
        record_failure(self.job, self.store, cells, cause)
        if not cells:
            self.tell(Message(masked_text(f"{self.job.label}: failed: {cause.reason}")))
        for cell in cells:
            self.tell(CellEnded(cell.key, "failed", cause.reason, cause.where, self.job.log_of(cell)))

    def _unfinished(self) -> Job:
        """The job without the cells that another process has ended since it was planned."""
        cells = []
        for cell in self.job.cells:
            record = self.store.record(cell.key)
            if record is None or record["generation"] == self.job.generations.get(cell.key):
                cells.append(cell)
            else:
                self.tell(ended(record))
        return dataclasses.replace(self.job, cells=tuple(cells))

    def start_cell(self, cell: CellPlan) -> RunningCell:
        """The cell with a fresh method and its log begun; failed where its source is no longer what was planned, or its
        class refuses on this machine what it took when it was planned."""
        self.begin_cell_log(cell)
        try:
            entry = RunningCell(cell, make_method(cell.method))
        except ConfigError as error:
            entry = RunningCell(cell, None)
            entry.fail(error)
        if source_digest(cell.method.target.rpartition(".")[0]) != cell.source:
            entry.fail(Refused("the method's source changed while the suite ran: run it again"))
        return entry

    def begin_cell_log(self, cell: CellPlan) -> None:
        log = self.cell_log(cell.key)
        begin_log(self.job, log, cell)
        self.logs.append(log)
        self._noted[cell.key] = 0

    def note_rows(self, cells: list[RunningCell]) -> None:
        """Have the logs of cells say the rows that they do not have yet."""
        for entry in cells:
            noted = self._noted.get(entry.key, len(entry.rows))
            if len(entry.rows) > noted:
                last = entry.cell.last_epoch(self.base.epochs)
                before = [{}, *entry.rows][noted:]
                lines = [epoch_line(*rows, last) for rows in zip(entry.rows[noted:], before, strict=False)]
                self.cell_log(entry.key).lines(lines, numbers=True)
                self._noted[entry.key] = len(entry.rows)

    def note_resumed(self, epoch: int, bundle: Path, cells: list[RunningCell]) -> None:
        """Have the logs say that the job goes on with what was finished earlier, which they have already."""
        ended = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(bundle.stat().st_mtime))
        self.note(f"goes on after epoch {epoch}, which ended {ended}")
        self._noted |= {entry.key: len(entry.rows) for entry in cells if entry.key in self._noted}

    def check_digest(self, digest: str, t: int, expected: Record | None) -> str:
        """On the CPU a repeated base must be the recorded one to the last bit; elsewhere a difference is recorded."""
        if expected is not None and digest != expected["digests"][t]:
            if self.device.type != "cpu":
                self.rederived = True
                return digest
            then, now = expected["versions"], versions()
            changed = [f"{k} {then.get(k)} -> {now[k]}" for k in now if then.get(k) != now[k]]
            if expected["threads"] != torch.get_num_threads():
                changed.append(f"threads {expected['threads']} -> {torch.get_num_threads()}")
            raise Refused(
                f"epoch {t} of the repeated base differs from the recorded one "
                f"({'; '.join(changed) or 'versions and threads are the same'}): redo=base trains it anew, and "
                "makes the earlier cells on it stale"
            )
        return digest

    @contextlib.contextmanager
    def threads_of(self, recorded: Record) -> Iterator[None]:
        """Within it, as many threads on the CPU as a base was recorded with: with another number its sums in float32
        would differ."""
        own, then = torch.get_num_threads(), recorded["threads"]
        if self.device.type == "cpu" and then != own and then in range(1, MOST_THREADS + 1):
            self.say(f"repeats its base with engine.threads={then}, as it was recorded, for the same numbers")
            torch.set_num_threads(then)
        try:
            yield
        finally:
            torch.set_num_threads(own)

    def open_runs(self, cells: list[RunningCell]) -> None:
        """Have a run opened per cell where anything is tracked, and give what rows there are."""
        if not tracks(self.job.settings.tracker):
            return
        for entry in cells:
            record = cell_record(self.job, entry.cell, "running", self.base_digest)
            info = cell_info(record | next_run(self.store, self.base, entry.cell), self.job.settings.view)
            self._told[entry.key] = info.run_id, 0
            self.tell(RunStarted(entry.key, info))
        self.log_rows(cells)

    def log_rows(self, cells: list[RunningCell]) -> None:
        """Tell the rows that were not told yet, in order; call only when a bundle or a record holds them."""
        with self.clock.phase("track"):
            for entry in cells:
                run_id, told = self._told.get(entry.key, ("", len(entry.rows)))
                if len(entry.rows) > told:
                    self.tell(RowsAdded(entry.key, run_id, entry.rows[told:]))
                    self._told[entry.key] = run_id, len(entry.rows)

    def rows_are_void(self) -> None:
        """The cells start over, and rows that were told will come again with other seconds: in another run each."""
        for cell in self.job.cells:
            path = self.store.cell_folder(cell.key) / GENERATION
            write_json(path, {"least": next_run(self.store, self.base, cell)["generation"] + 1})

    def report_epoch(self, epoch: int, images: int, seconds: float, cells: list[RunningCell]) -> None:
        """Tell the person watching that an epoch ended, after `images` in `seconds` of training."""
        for entry in cells:
            seen = self._seen.get(entry.key, 0)
            self._best = max([self._best, *(row.get("val_accuracy", -math.inf) for row in entry.rows[seen:])])
            self._seen[entry.key] = len(entry.rows)
        speed = images / seconds if seconds > 0 else 0.0
        self.tell(EpochEnded(epoch, speed, self._best if self._best > -math.inf else None))

    def end_cell(self, entry: RunningCell, cost: dict[str, Any], weights: dict[str, torch.Tensor] | None) -> None:
        """Tables and weights first, then the record that makes the cell ended; its run is ended from the record."""
        cell, folder = entry.cell, self.store.cell_folder(entry.key)
        kernel: dict[str, float] = {}
        self.note_rows([entry])
        if entry.status == "done":
            assert entry.method is not None
            try:
                tables = {**entry.method.tables(), **self._clients(entry)}
                self.store.write_tables(cell.key, tables)
                kernel = self._kernel(cell, tables)
                self._keep_fitted(entry.key, entry.method)
            except (Exception, SystemExit) as error:
                if is_disk_trouble(error) or isinstance(error, Interrupted):
                    raise
                entry.fail(error)
        if weights is not None and entry.status == "done":
            write_bytes(
                folder / "weights.safetensors", save_safetensors({k: v.contiguous() for k, v in weights.items()})
            )
        last = entry.rows[-1] if entry.rows and entry.status == "done" else {}
        names = (f"{split}_{metric}" for split in ("val", "test") for metric in ("accuracy", "loss", "ece", "brier"))
        summary = {name: last[name] for name in names if name in last}
        summary |= {name: last[name] for name in last if name.startswith(("val_", "test_"))}
        communication = {name: last[name] for name in COMMUNICATION if name in last}
        cost = {
            "method_seconds": self.clock.get(f"method/{cell.key}"),
            "eval_seconds": self.clock.get(f"eval/{cell.key}"),
            "io_seconds": self.clock.get("io"),
            "track_seconds": self.clock.get("track"),
            "peak_memory_bytes": peak_memory_bytes(self.device),
            **cost,
        }
        holds = {
            "epochs": [row["epoch"] for row in entry.rows if _measures(row, "val_")],
            "test_epochs": [row["epoch"] for row in entry.rows if _measures(row, "test_")],
            "weights": weights is not None,
        }
        record = cell_record(self.job, cell, entry.status, self.base_digest, entry.cause)
        record |= {
            "summary": summary,
            "communication": communication,
            "cost": cost,
            "holds": holds,
            "rederived": self.rederived,
            "kernel": kernel,
        }
        if "test_accuracy" in summary and entry.test_correct is not None:
            record["test_correct"] = packed(entry.test_correct)
        record["machine"]["load"] = {"cores": os.cpu_count(), "busy": self.load.busy()}
        record |= next_run(self.store, self.base, cell)
        self.store.write_record(record, entry.rows)
        self._ended.add(cell.key)
        self.cell_log(cell.key).lines([done_line(record)] if entry.cause is None else ending(entry.status, entry.cause))
        self.tell(ended(record))

    def _clients(self, entry: RunningCell) -> dict[str, pd.DataFrame]:
        """The table of a federation's clients; none without one."""
        import pandas as pd

        if entry.client_accuracy_K is None:
            return {}
        return {CLIENTS: pd.DataFrame(self.evaluator.client_table(entry.client_accuracy_K))}

    def _kernel(self, cell: CellPlan, tables: dict[str, pd.DataFrame]) -> dict[str, float]:
        """Age and effective number of the kernel among a method's tables; nothing, said in a line, where it is none."""
        if KERNEL not in tables:
            return {}
        try:
            return numbers(checked(tables[KERNEL]), cell.last_epoch(self.base.epochs))
        except ValueError as error:
            self.say(f"{cell.method.name} has no age and n_eff: {reason(error)}")
            return {}

    def _keep_fitted(self, key: str, method: Method) -> None:
        """The method's fitted model, where final weights are kept too."""
        fitted = method.fitted() if self.job.settings.save == "final" else {}
        if fitted:
            write_state(self.store.cell_folder(key) / "fitted.safetensors", fitted)


def _measures(row: dict[str, Any], split: str) -> bool:
    """Whether a row has a metric of a split, `val_` or `test_`."""
    return any(name.startswith(split) for name in row)
