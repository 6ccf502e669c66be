"""Training a base with its audience, shadowing one, and replaying one from its snapshots."""

from __future__ import annotations

import shutil

import torch

from harness.clock import Counts
from harness.files import digest_tensor, write_state
from harness.jobs.job import Log, Refused, device_name, read_bundle, restart_path, versions
from harness.jobs.worker import Worker
from harness.keys import harness_digest
from harness.method import Snapshot
from harness.plan import labels
from harness.presets import as_plain, make_method
from harness.store import Record
from harness.train import Diverged, Trainer
from harness.trajectory import StoredTrajectory, read_snapshot, snapshot_path, write_snapshot
from harness.watch import Audience, Row, Watched


class FollowJob(Worker):
    """A base and the cells that watch it."""

    def _audience(self, trajectory: StoredTrajectory) -> Audience:
        steps = self.images.steps(self.base.batch_size, self.base.batches_per_epoch)
        keep = self.job.settings.save == "final"
        return Audience(self.base, self.job.cells, self.evaluator, self.clock, trajectory, steps, keep)

    def _end_cells(self, audience: Audience, rows: list[Row], counts: Counts) -> None:
        """Write the records of observers and reconstructions."""
        train_seconds = rows[-1]["train_seconds"] if rows else 0.0
        for entry in audience.watched:
            cost = {
                "train_seconds": train_seconds,
                "epochs": len(rows),
                "prefix_epochs": 0,
                "trainable_fraction": 1.0,
                **counts.as_dict(),
            }
            self.end_cell(entry, cost, audience.weights.get(entry.key))


class TrainJob(FollowJob):
    """Trains a base with all its open observers and reconstructions, or goes on with a half-trained one."""

    expected: Record | None = None
    """the record of the base that a shadow run must repeat"""
    bundle = "latest.safetensors"

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
        final.rename(old)
        self.folder.rename(final)
        shutil.rmtree(old)

    def follow(self) -> None:
        """Train from the bundle or the beginning, epoch by epoch, feeding the audience."""
        self.log = Log(self.folder / "log.txt")
        self.bundle_path = self.folder / "restart" / self.bundle
        self.trainer = Trainer(self.base, self.images, self.device)
        self.trajectory = StoredTrajectory(self.folder / "trajectory", self.device)
        self.audience = self._audience(self.trajectory)
        self.rows: list[Row] = []
        self.digests: list[str] = []
        self._begin()
        self.open_runs(self.audience.watched)
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
        self._end_cells(self.audience, self.rows, self.trainer.counts)
        if self.expected is None:
            self._end_base("done" if diverged is None else "diverged", diverged)
        self.bundle_path.unlink(missing_ok=True)
        self.log.line("done" if diverged is None else diverged)

    def _begin(self) -> None:
        """At w(0), or at the bundle's epoch where there is one."""
        trainer, audience = self.trainer, self.audience
        bundle = read_bundle(self.bundle_path, self.say)
        self.trajectory.rewind(0 if bundle is None else bundle["trainer"]["t"])
        audience.begin()
        if bundle is None:
            self._record(trainer.snapshot())
            audience.start(trainer.snapshot())
            return
        trainer.load_state_dict(bundle["trainer"])
        audience.load_state_dict(bundle["audience"])
        self.rows, self.digests = bundle["rows"], bundle["digests"]
        self.clock.seconds.update(bundle["seconds"])
        self.log.line(f"goes on after epoch {trainer.t}")

    def _epoch(self) -> None:
        """One epoch: training, snapshot, observers, evaluation, bundle, rows to W&B."""
        trainer, audience = self.trainer, self.audience
        on_step = (lambda: audience.step(trainer.snapshot())) if audience.every_step else None
        with self.clock.phase("train"):
            row = trainer.train_epoch(after_step=on_step)
        snapshot = trainer.snapshot()
        self._record(snapshot)
        self.rows.append({"epoch": snapshot.t, **row, "train_seconds": self.clock.get("train")})
        audience.epoch(snapshot, self.rows[-1])
        self._save()
        self.log_rows(audience.watched)
        images = trainer.t * trainer.steps_per_epoch() * self.base.batch_size
        self.report_epoch(trainer.t, images, self.clock.get("train"), audience.watched)
        numbers = " ".join(f"{name}={value:.5g}" for name, value in self.rows[-1].items())
        self.log.line(f"epoch {snapshot.t}/{self.base.epochs} {numbers}")

    def _record(self, snapshot: Snapshot) -> None:
        """Keep the digest of the weights, and store the snapshot where someone reads it, before anyone does."""
        path = snapshot_path(self.trajectory.folder, snapshot.t)
        with self.clock.phase("io"):
            self.digests.append(self.check_digest(digest_tensor(snapshot.theta_N), snapshot.t, self.expected))
            if snapshot.t in self.job.snapshots and (self.expected is None or not path.exists()):
                write_snapshot(self.trajectory.folder, snapshot)
        if path.exists():
            self.trajectory.extend(snapshot.t)

    def _save(self) -> None:
        """The bundle to go on from, and the restart states that branchers start at."""
        with self.clock.phase("io"):
            state = self.trainer.state_dict()
            t = self.trainer.t
            if t in self.job.starts or t == self.base.epochs:
                write_state(restart_path(self.folder, t), state)
            bundle = {
                "trainer": state,
                "audience": self.audience.state_dict(),
                "rows": self.rows,
                "digests": self.digests,
                "seconds": self.clock.seconds,
            }
            write_state(self.bundle_path, bundle)

    def _end_base(self, status: str, reason: str | None) -> None:
        record = {
            "base_key": self.job.base.key,
            **labels(self.base),
            "status": status,
            "reason": reason,
            "config": as_plain(self.base),
            "N": self.job.base.N,
            "digests": self.digests,
            "versions": versions(),
            "sources": {"harness": harness_digest()},
            "device": device_name(self.device),
            "threads": torch.get_num_threads(),
            "seconds": self.clock.seconds,
            "counts": self.trainer.counts.as_dict(),
        }
        self.store.write_base(record, self.rows, self.folder)


class ShadowJob(TrainJob):
    """Runs a trained base again for cells that its snapshots cannot serve, checking every epoch's digest."""

    bundle = "shadow.safetensors"

    def work(self) -> None:
        self.expected = self.store.base(self.job.base.key)
        if self.expected is None:
            raise Refused("the base has no record to compare with")
        self.follow()


class ReplayJob(FollowJob):
    """Runs epoch-cadence observers and reconstructions from stored snapshots, without training."""

    def work(self) -> None:
        known = self.store.base(self.job.base.key)
        if known is None:
            raise Refused("the base has no record to replay")
        if known["status"] == "diverged":
            self._diverge(known)
            return
        rows = self.store.base_history(self.job.base.key)
        trajectory = StoredTrajectory(self.folder / "trajectory", self.device)
        audience = self._audience(trajectory)
        self.open_runs(audience.watched)
        trajectory.rewind(0)
        audience.begin()
        for t in range(self.base.epochs + 1) if audience.observers() else ():
            snapshot = read_snapshot(trajectory.folder, t, self.device)
            if t == 0:
                audience.start(snapshot)
            else:
                trajectory.extend(t)
                audience.epoch(snapshot, rows[t - 1])
        audience.trajectory = StoredTrajectory(self.folder / "trajectory", self.device)
        audience.reconstruct(rows)
        audience.finish(read_snapshot(trajectory.folder, self.base.epochs, self.device))
        self.log_rows(audience.watched)
        self._end_cells(audience, rows, Counts(**known["counts"]))

    def _diverge(self, known: Record) -> None:
        """Cells that were planned after their base had diverged."""
        for cell in self.job.cells:
            entry = Watched(cell, make_method(cell.method), status="diverged", reason=known["reason"])
            self.end_cell(entry, {"epochs": len(known["digests"]) - 1, "prefix_epochs": 0}, None)
