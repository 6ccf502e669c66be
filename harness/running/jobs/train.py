"""Training a base with all its observers and reconstructions, resumable after every epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch

from harness.federated.server import FederatedTrainer
from harness.method import Snapshot, State
from harness.planning.methods import as_plain
from harness.planning.plan import labels
from harness.running.audience import Row
from harness.running.events import JobResumed
from harness.running.jobs.bundle import Bundle
from harness.running.jobs.environment import device_name, machine, versions
from harness.running.jobs.logs import Log, begin_log, epoch_line
from harness.running.jobs.observing import ObservingWorker
from harness.storage import inside
from harness.storage.paths import base_log, restart_path, snapshot_path
from harness.storage.store import Record
from harness.storage.tensors import digest_tensor, write_state
from harness.storage.trajectory import StoredTrajectory, write_snapshot
from harness.training.loop import Diverged

METRICS = ("val_loss", "val_accuracy", "test_loss", "test_accuracy")
OWN_WEIGHTS = ("base", "base_recalibrated")
"""the methods that evaluate a base's own weights"""


class TrainWorker(ObservingWorker):
    """Trains a base with all its open observers and reconstructions, or goes on with a half-trained one."""

    kind: ClassVar[str] = "train"

    expected: Record | None = None
    """the record of the base that a shadow run must repeat"""
    expected_rows: tuple[Row, ...] | list[Row] = ()
    bundle_name = "latest.safetensors"

    @property
    def bundle_path(self) -> Path:
        return self.folder / "restart" / self.bundle_name

    def work(self) -> None:
        ended = self.store.base(self.job.base.key)
        if not self.job.retrain:
            if ended is None or ended["status"] == "failed":
                self.follow()
            return
        final = self.folder
        self.folder = final.with_name(f"{final.name}.redo")
        self.follow()
        old = final.with_name(f"{final.name}.old")
        inside.rename(final, old)
        inside.rename(self.folder, final)
        inside.remove_folder(old)

    def follow(self) -> None:
        """Train from the bundle or the beginning, epoch by epoch, feeding the audience."""
        self.log = Log(self.folder / "log.txt")
        begin_log(self.job, self.log)
        self.logs.append(self.log)
        self.trainer = self.new_trainer()
        self.check_partition(self.trainer, self.expected)
        self.trajectory = StoredTrajectory(self.folder / "trajectory", self.device)
        self.audience = self._audience(self.trajectory)
        self.rows: list[Row] = []
        self.digests: list[str] = []
        self.resumed: list[dict[str, Any]] = []
        """epochs after which the run went on with other versions or threads than before"""
        self.bundle = Bundle(self.bundle_path, self.job.settings.trajectory.bundle_seconds)
        self._begin()
        self.open_runs(self.audience.cells)
        diverged: str | None = None
        try:
            while self.trainer.t < self.base.epochs:
                self._epoch()
        except Diverged as error:
            diverged = str(error)
            self.audience.diverge(diverged)
        else:
            self.audience.reconstruct(self.rows)
            self.audience.finish(self.trainer.snapshot())
        self.base_digest = (self.digests if self.expected is None else self.expected["digests"])[-1:]
        self._end_cells(self.audience, self.rows, self._moving())
        if self.expected is None:
            self._end_base("done" if diverged is None else "diverged", diverged)
        self.bundle.remove()
        spent = f"{len(self.rows)} epochs, {self.clock.get('train'):.1f} s of training"
        self.log.line(f"done: {spent}" if diverged is None else f"diverged: {diverged}; {spent}")

    def _begin(self) -> None:
        """At w(0), or at the bundle's epoch where there is one."""
        trainer, audience = self.trainer, self.audience
        bundle = self._bundle()
        self.trajectory.rewind(-1)
        audience.begin()
        if bundle is None:
            self._record(trainer.snapshot())
            audience.start(trainer.snapshot())
            return
        trainer.load_state_dict(bundle["trainer"])
        self.trajectory.rewind(trainer.t)
        audience.load_state_dict(bundle["audience"])
        lists = self._lists_of(bundle)
        self.rows, self.digests = lists["rows"], lists["digests"]
        for cell in audience.cells:
            cell.rows = lists.get(f"cell/{cell.key}", [])
        self.clock.seconds.update(bundle["seconds"])
        self.resumed = bundle["resumed"]
        if bundle["versions"] != versions() or bundle["threads"] != torch.get_num_threads():
            self.resumed.append({"epoch": trainer.t, "versions": bundle["versions"], "threads": bundle["threads"]})
            torch.set_num_threads(bundle["threads"])
        self.tell(JobResumed(trainer.t))
        self.note_resumed(trainer.t, self.bundle_path, audience.cells)

    def _bundle(self) -> State | None:
        """The stored state to go on from, unless something it stands on has changed or is gone."""
        was_there = inside.is_file(self.bundle_path)
        bundle = self.bundle.read(self.say)
        if bundle is None:
            if was_there:
                self.rows_are_void()
            return None
        t = bundle["trainer"]["t"]
        needs = [cell.needs for cell in self.job.cells if cell.key in bundle["audience"] and cell.needs is not None]
        wanted = {s for first, last in needs for s in range(first, min(last, t) + 1)}
        lost = [s for s in sorted(wanted) if not inside.is_file(snapshot_path(self.trajectory.folder, s))]
        if bundle["harness"] != self.job.harness:
            self.say(f"starts over: the harness's sources changed since epoch {t}")
            self.rows_are_void()
            return None
        trainer = self.trainer
        if isinstance(trainer, FederatedTrainer) and bundle["trainer"]["partition"] != trainer.partition:
            self.say(f"starts over: images are dealt to clients otherwise since epoch {t}")
            self.rows_are_void()
            return None
        if lost:
            self.say(f"starts over: of the snapshots up to epoch {t}, {', '.join(map(str, lost))} are gone")
            self.rows_are_void()
            return None
        return bundle

    @staticmethod
    def _lists_of(bundle: State) -> dict[str, Any]:
        """Rows and digests so far: beside a bundle, or within one of an earlier version."""
        if "lists" in bundle:
            return dict(bundle["lists"])
        cells = {f"cell/{key}": saved["rows"] for key, saved in bundle["audience"].items()}
        return {"rows": bundle["rows"], "digests": bundle["digests"], **cells}

    def _epoch(self) -> None:
        """One epoch: training, snapshot, observers, evaluation, bundle, rows told."""
        trainer, audience = self.trainer, self.audience
        on_step = (lambda: audience.step(trainer.snapshot())) if audience.every_step else None
        with self.clock.phase("train"):
            row = trainer.train_epoch(after_step=on_step)
        snapshot = trainer.snapshot()
        self._record(snapshot)
        counts = trainer.counts.as_dict()
        row = {"epoch": snapshot.t, **row, "train_seconds": self.clock.get("train"), **counts}
        self.rows.append(row if self.expected is None else self.expected_rows[snapshot.t - 1])
        audience.epoch(snapshot, self.rows[-1])
        self._note_epoch()
        if self._save():
            self.log_rows(audience.cells)
        self.report_epoch(trainer.t, counts["forward_passes"], self.clock.get("train"), audience.cells)

    def _note_epoch(self) -> None:
        """The epoch in the logs: in the base's with what its own weights come to in validation, where that is known."""
        row, before = self.rows[-1], self.rows[-2] if len(self.rows) > 1 else {}
        self.note_rows(self.audience.cells)
        own = [cell.rows[-1] for cell in self.audience.cells if cell.cell.method.name in OWN_WEIGHTS and cell.rows]
        now = next((one for one in own if one["epoch"] == row["epoch"]), {})
        metrics = {name: now[name] for name in METRICS if name in now}
        self.log.line(epoch_line({**row, **metrics}, before, self.base.epochs))

    def _record(self, snapshot: Snapshot) -> None:
        """Keep the digest of the weights, and store the snapshot where someone reads it, before anyone does."""
        path = snapshot_path(self.trajectory.folder, snapshot.t)
        with self.clock.phase("io"):
            self.digests.append(self.check_digest(digest_tensor(snapshot.theta_N), snapshot.t, self.expected))
            if snapshot.t in self.job.snapshots and (self.expected is None or not inside.is_file(path)):
                write_snapshot(self.trajectory.folder, snapshot)
        if inside.is_file(path):
            self.trajectory.extend(snapshot.t)

    def _save(self) -> bool:
        """Store the restart states that branchers start at, and the bundle to go on from where it is due; whether it
        was."""
        with self.clock.phase("io"):
            t = self.trainer.t
            restart = restart_path(self.folder, t)
            wanted = t in self.job.starts or t == self.base.epochs
            if wanted and (self.expected is None or not inside.is_file(restart)):
                write_state(restart, self.trainer.state_dict())
            if not (self.bundle.is_due or t == self.base.epochs):
                return False
            bundle = {
                "trainer": self.trainer.state_dict(),
                "audience": self.audience.state_dict(),
                "seconds": self.clock.seconds,
                "harness": self.job.harness,
                "versions": versions(),
                "threads": torch.get_num_threads(),
                "resumed": self.resumed,
            }
            cells = {f"cell/{cell.key}": cell.rows for cell in self.audience.cells}
            self.bundle.write(bundle, {"rows": self.rows, "digests": self.digests, **cells})
            return True

    def _moving(self) -> float:
        """The share of the weights that ever had a gradient."""
        return self.trainer.moving_N.double().mean().item()

    def _end_base(self, status: str, reason: str | None) -> None:
        record = {
            "base_key": self.job.base.key,
            **labels(self.base),
            "status": status,
            "reason": reason,
            "log": base_log(self.job.base.key),
            "config": as_plain(self.base),
            "N": self.job.base.N,
            "digests": self.digests,
            "versions": versions(),
            "environment": self.job.origin.as_record(),
            "sources": {"harness": self.job.harness},
            "resumed": self.resumed,
            "device": device_name(self.device),
            "threads": torch.get_num_threads(),
            "machine": machine(),
            "seconds": self.clock.seconds,
            "counts": self.trainer.counts.as_dict(),
            "moving": self._moving(),
            **({"partition": trainer.partition} if isinstance(trainer := self.trainer, FederatedTrainer) else {}),
        }
        self.store.write_base(record, self.rows, self.folder)
