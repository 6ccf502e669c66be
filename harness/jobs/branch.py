"""Training a brancher from a restart state of its base."""

from __future__ import annotations

from pathlib import Path

import filelock
import torch

from harness.clock import Counts
from harness.files import CorruptFile, digest_tensor, write_state
from harness.jobs.job import Refused, read_bundle, restart_path
from harness.jobs.worker import Worker
from harness.method import Brancher
from harness.presets import make_method
from harness.session import BranchSession
from harness.store import Record
from harness.train import Diverged, Trainer
from harness.trajectory import StoredTrajectory, read_snapshot, snapshot_path, write_snapshot
from harness.watch import Row, Watched


class BranchJob(Worker):
    """Trains one brancher, or goes on with a half-trained one."""

    @property
    def lock_folder(self) -> Path:
        return self.store.cell_folder(self.job.cells[0].key)

    def work(self) -> None:
        (cell,) = self.job.cells
        known = self.store.base(self.job.base.key)
        if known is None or cell.branch is None:
            raise Refused("the base has no record to branch from")
        self.branch = cell.branch
        self.cell = cell
        method = make_method(cell.method)
        assert isinstance(method, Brancher)
        self.method = method
        self.entry = Watched(cell, method)
        self.trainer = Trainer(self.base, self.images, self.device)
        self._prepare(known)
        base_rows = self.store.base_history(self.job.base.key)
        self.prefix_seconds: float = sum(r["train_seconds"] for r in base_rows if r["epoch"] == self.branch.prefix)
        images = self.branch.prefix * self.trainer.steps_per_epoch() * self.base.batch_size
        self.trainer.counts = Counts(gradients_full=images, forward_passes=images)
        trajectory = StoredTrajectory(self.folder / "trajectory", self.device, 0, self.branch.prefix)
        self.session = BranchSession(self.trainer, self.branch, trajectory, self.clock, method.gradient_space)
        self.bundle_path = self.store.cell_folder(cell.key) / "restart" / "latest.safetensors"
        weights = self._train()
        entry = self.entry
        fraction = method.scalars().get("trainable_fraction", 1.0) if entry.status == "done" else 1.0
        cost = {
            "train_seconds": self._train_seconds(),
            "method_seconds": self.clock.get("method"),
            "epochs": self.trainer.t,
            "prefix_epochs": self.branch.prefix,
            "trainable_fraction": fraction,
            **self.trainer.counts.as_dict(),
        }
        self.end_cell(entry, cost, weights)
        self.bundle_path.unlink(missing_ok=True)

    def _train_seconds(self) -> float:
        return self.prefix_seconds + self.clock.get("train")

    def _train(self) -> dict[str, torch.Tensor] | None:
        """Train from the start state or the bundle to the end; the final model's state where it is asked for."""
        entry, last = self.entry, self.branch.prefix + self.branch.epochs
        try:
            self._begin()
            self.open_runs([entry])
            while self.trainer.t < last and entry.status == "running":
                self._epoch(last)
            if entry.status == "running":
                entry.status = "done"
                return self._final_weights() if self.job.settings.save == "final" else None
        except (CorruptFile, Refused):
            raise
        except Diverged as error:
            entry.status, entry.reason = "diverged", str(error)
        except Exception as error:
            entry.fail(error)
        return None

    def _begin(self) -> None:
        """At the start state, and on to the bundle's where there is one."""
        with self.clock.phase("method"):
            self.method.begin(self.session)
        bundle = read_bundle(self.bundle_path, self.say)
        if bundle is None:
            self.entry.rows = self._prefix_rows()
            return
        self.trainer.load_state_dict(bundle["trainer"])
        self.method.load_state_dict(bundle["method"])
        self.entry.rows = bundle["rows"]
        self.session.last_row = bundle["train_row"]
        self.clock.seconds.update(bundle["seconds"])

    def _epoch(self, last: int) -> None:
        """One epoch of the branch: training, evaluation, bundle, rows to W&B."""
        trainer, before = self.trainer, self.trainer.t
        with self.clock.phase("method"):
            self.method.train_epoch(self.session)
        trainer.t = before + 1
        if not bool(trainer.flat.theta_N.isfinite().all()):
            raise Diverged(f"weights not finite in epoch {trainer.t}")
        if trainer.t in self.job.evaluate.epochs(last):
            self._evaluate(last)
        with self.clock.phase("io"):
            state = {
                "trainer": trainer.state_dict(),
                "method": self.method.state_dict(),
                "rows": self.entry.rows,
                "train_row": self.session.last_row,
                "seconds": self.clock.seconds,
            }
            write_state(self.bundle_path, state)
        self.log_rows([self.entry])
        self._progress()

    def _evaluate(self, last: int) -> None:
        trainer = self.trainer
        with self.clock.phase("method"):
            proposal = self.method.propose(self.session)
            scalars = self.method.scalars()
        splits = ("val", "test") if trainer.t == last or self.job.evaluate.test == "every" else ("val",)
        with self.clock.phase(f"eval/{self.cell.key}"):
            policy = self.cell.method.batchnorm
            metrics = self.evaluator.evaluate(trainer.snapshot(), proposal, policy, splits)
        row = {
            "epoch": trainer.t,
            **self.session.last_row,
            **metrics,
            "train_seconds": self._train_seconds(),
            "method_seconds": self.clock.get("method"),
            "eval_seconds": self.clock.get(f"eval/{self.cell.key}"),
        }
        self.entry.add(row, scalars)

    def _progress(self) -> None:
        own = self.trainer.t - self.branch.prefix
        images = own * self.trainer.steps_per_epoch() * self.base.batch_size
        self.report_epoch(own, images, self.clock.get("train") + self.clock.get("method"), [self.entry])

    def _final_weights(self) -> dict[str, torch.Tensor]:
        proposal = self.method.propose(self.session)
        theta_N = self.trainer.flat.theta_N if proposal is None else proposal.theta_N
        own = None if proposal is None else proposal.buffers
        model = self.evaluator.prepare(theta_N, self.trainer.flat.buffers, self.cell.method.batchnorm, own)
        return dict(model.state_dict())

    def _prefix_rows(self) -> list[Row]:
        """Rows up to the prefix: the recalibrated base's."""
        wanted = [t for t in self.job.evaluate.epochs(self.base.epochs) if t <= self.branch.prefix]
        control = self.job.base.control
        history = self.store.history(control.key) if control is not None else None
        if history is not None and set(wanted) <= set(history["epoch"]):
            columns = [c for c in history.columns if c not in ("method_seconds", "eval_seconds")]
            records = history.loc[history["epoch"].isin(wanted), columns].to_dict("records")
            return [{str(k): v for k, v in row.items() if v == v} for row in records]
        by_epoch = {row["epoch"]: row for row in self.store.base_history(self.job.base.key)}
        rows = []
        for t in wanted:
            snapshot = read_snapshot(self.folder / "trajectory", t, self.device)
            with self.clock.phase(f"eval/{self.cell.key}"):
                metrics = self.evaluator.evaluate(snapshot, None, "recalibrate", ("val",))
            rows.append({**by_epoch[t], **metrics})
        return rows

    def _missing(self) -> tuple[list[int], bool]:
        """Snapshots that the method reads and are not stored, and whether the start state is not."""
        folder, start = self.folder / "trajectory", self.branch.start
        first, last = self.cell.needs or (0, -1)
        lacking = [t for t in range(first, last + 1) if not snapshot_path(folder, t).exists()]
        return lacking, start > 0 and not restart_path(self.folder, start).exists()

    def _prepare(self, known: Record) -> None:
        """Bring the trainer to the base's state after epoch `start`, with the snapshots it reads in place."""
        start = self.branch.start
        state = None if start == 0 else read_bundle(restart_path(self.folder, start), self.say)
        if any(self._missing()):
            with filelock.FileLock(self.folder / ".lock"):
                if any(self._missing()):
                    self._rederive(known, *self._missing())
            state = None if start == 0 else read_bundle(restart_path(self.folder, start), self.say)
        if state is not None:
            self.trainer.load_state_dict(state)

    def _rederive(self, known: Record, lacking: list[int], no_start: bool) -> None:
        """Run the base again, from the nearest earlier restart state, for what is missing."""
        start, prefix, folder = self.branch.start, self.branch.prefix, self.folder / "trajectory"
        again = Trainer(self.base, self.images, self.device)
        for t in range(min([*lacking, *([start] if no_start else [])]), 0, -1):
            state = read_bundle(restart_path(self.folder, t), self.say)
            if state is not None:
                again.load_state_dict(state)
                break
        self.say(f"re-deriving the base from epoch {again.t} to {prefix}")
        while True:
            self.check_digest(digest_tensor(again.flat.theta_N), again.t, known)
            if again.t in lacking:
                write_snapshot(folder, again.snapshot())
            if again.t == start and no_start:
                write_state(restart_path(self.folder, start), again.state_dict())
            if again.t >= prefix:
                return
            with self.clock.phase("rederive"):
                again.train_epoch()
