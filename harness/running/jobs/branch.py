"""Training a brancher from a restart state of its base."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch

from harness.causes import Interrupted
from harness.federated.server import FederatedTrainer
from harness.federated.session import FederatedSession
from harness.method import Brancher, Proposal, State
from harness.planning.plan import branch_lacks
from harness.running.audience import Row, checked_proposal
from harness.running.events import JobResumed
from harness.running.jobs.bundle import Bundle, read_bundle
from harness.running.jobs.job import Refused
from harness.running.jobs.worker import Worker
from harness.storage.files import CorruptFile, is_disk_trouble
from harness.storage.inside import is_file
from harness.storage.leases import lease_name, leave
from harness.storage.paths import restart_path, snapshot_path
from harness.storage.store import Record
from harness.storage.tensors import digest_tensor, write_state
from harness.storage.trajectory import StoredTrajectory, read_snapshot, write_snapshot
from harness.training.clock import Counts
from harness.training.loop import Diverged
from harness.training.out_of_memory import bounded_by
from harness.training.session import BranchSession


class BranchWorker(Worker):
    """Trains one brancher, or goes on with a half-trained one."""

    kind: ClassVar[str] = "branch"

    @property
    def lock_folder(self) -> Path:
        return self.store.cell_folder(self.job.cells[0].key)

    @property
    def bundle_path(self) -> Path:
        return self.lock_folder / "restart" / "latest.safetensors"

    @property
    def until(self) -> int:
        """The epoch to train to."""
        return self.branch.prefix + self.branch.epochs

    def work(self) -> None:
        (cell,) = self.job.cells
        known = self.store.base(self.job.base.key)
        if known is None or cell.branch is None:
            raise Refused("the base has no record to branch from")
        self.branch = cell.branch
        self.cell = cell
        self.entry = self.start_cell(cell)
        if self.entry.method is None:
            self.end_cell(self.entry, {}, None)
            return
        assert isinstance(self.entry.method, Brancher)
        self.method = method = self.entry.method
        self.base_digest = known["digests"][-1:]
        self.trainer = self.new_trainer(cell.branch.prefix, self.entry)
        self.check_partition(self.trainer, known)
        self._prepare(known)
        base_rows = self.store.base_history(self.job.base.key)
        self.prefix_seconds: float = sum(r["train_seconds"] for r in base_rows if r["epoch"] == self.branch.prefix)
        self.trainer.counts = self._prefix_counts(base_rows)
        self.prefix_images = self.trainer.counts.forward_passes
        first, last = cell.needs or (0, -1)
        trajectory = StoredTrajectory(self.folder / "trajectory", self.device, first, last)
        if isinstance(self.trainer, FederatedTrainer):
            self.session: BranchSession = FederatedSession(self.trainer, self.branch, trajectory, self.clock)
        else:
            self.session = BranchSession(self.trainer, self.branch, trajectory, self.clock, method.gradient_space)
        self.bundle = Bundle(self.bundle_path, self.job.settings.trajectory.bundle_seconds)
        weights = self._train()
        entry = self.entry
        fraction = method.scalars().get("trainable_fraction", 1.0) if entry.status == "done" else 1.0
        own = self.trainer.t - self.branch.prefix
        subspace = own if method.gradient_space == "subspace" else 0
        cost = {
            "train_seconds": self._train_seconds(),
            "method_seconds": self.clock.get("method"),
            "rederive_seconds": self.clock.get("rederive"),
            "epochs": self.trainer.t,
            "epochs_full": self.trainer.t - subspace,
            "epochs_subspace": subspace,
            "prefix_epochs": self.branch.prefix,
            "prefix_seconds": self.prefix_seconds,
            "trainable_fraction": fraction,
            "moving": known.get("moving"),
            **self.trainer.counts.as_dict(),
        }
        self.end_cell(entry, cost, weights)
        self._clear()

    def _prefix_counts(self, base_rows: list[Row]) -> Counts:
        """What the base passed over up to the prefix; in rounds of a federation as many images as its history says."""
        images = self.branch.prefix * self.trainer.steps_per_epoch() * self.base.batch_size
        if isinstance(self.trainer, FederatedTrainer):
            images = sum(row["forward_passes"] for row in base_rows if row["epoch"] == self.branch.prefix)
        return Counts(gradients_full=images, forward_passes=images)

    def _clear(self) -> None:
        """The cell has ended: nothing goes on from its bundle."""
        self.bundle.remove()

    def _train_seconds(self) -> float:
        return self.prefix_seconds + self.clock.get("train")

    def _train(self) -> dict[str, torch.Tensor] | None:
        """Train from the start state or the bundle to the end; the final model's state where it is asked for."""
        entry, last = self.entry, self.until
        try:
            with bounded_by("batch_size", self.base.batch_size):
                self._begin()
                self.open_runs([entry])
                while self.trainer.t < last and entry.status == "running":
                    self._epoch(last)
            if entry.status == "running":
                entry.status = "done"
                return self._final_weights() if self.job.settings.save == "final" else None
        except (CorruptFile, Refused, Interrupted):
            raise
        except Diverged as error:
            entry.status, entry.reason = "diverged", str(error)
        except (Exception, SystemExit) as error:
            if is_disk_trouble(error):
                raise
            entry.fail(error)
        return None

    def _begin(self) -> None:
        """At the start state, and on to the bundle's where there is one."""
        with self.clock.phase("method"):
            self.method.begin(self.session)
        self.session.begun = True
        was_there = is_file(self.bundle_path)
        bundle = self.bundle.read(self.say)
        if bundle is not None and (bundle["harness"], bundle["base"]) != (self.job.harness, self.base_digest):
            self.say("starts over: the harness's sources or its base changed since it was interrupted")
            bundle = None
        if bundle is None:
            if was_there:
                self.rows_are_void()
            self.entry.rows = self._prefix_rows()
            return
        self.trainer.load_state_dict(bundle["trainer"])
        self.method.load_state_dict(bundle["method"])
        self.entry.rows = bundle["lists"]["rows"] if "lists" in bundle else bundle["rows"]
        self.entry.test_correct = bundle["test_correct"]
        self.entry.client_accuracy_K = bundle.get("client_accuracy_K")
        self.entry.status, self.entry.reason = bundle["status"], bundle["reason"]
        self.session.last_row = bundle["train_row"]
        self.clock.seconds.update(bundle["seconds"])
        self.tell(JobResumed(self.trainer.t - self.branch.prefix))
        self.note_resumed(self.trainer.t, self.bundle_path, [self.entry])

    def _epoch(self, last: int) -> None:
        """One epoch of the branch: training, evaluation, bundle, rows told."""
        trainer, before = self.trainer, self.trainer.t
        self.session.last_row = {}
        trainer.seed_epoch()
        with self.clock.phase("method"):
            self.method.train_epoch(self.session)
        trainer.t = before + 1
        if not bool(trainer.flat.theta_N.isfinite().all()):
            raise Diverged(f"weights not finite in epoch {trainer.t}")
        self._add_row(last)
        self.note_rows([self.entry])
        if self.bundle.is_due or trainer.t == last:
            self._save()
            self.log_rows([self.entry])
        self._progress()

    def _save(self) -> None:
        """Store what the branch goes on from."""
        with self.clock.phase("io"):
            state = {
                "trainer": self.trainer.state_dict(),
                "method": self.method.state_dict(),
                "test_correct": self.entry.test_correct,
                "client_accuracy_K": self.entry.client_accuracy_K,
                "train_row": self.session.last_row,
                "status": self.entry.status,
                "reason": self.entry.reason,
                "harness": self.job.harness,
                "base": self.base_digest,
                "seconds": self.clock.seconds,
            }
            self.bundle.write(state, {"rows": self.entry.rows})

    def _add_row(self, last: int) -> None:
        """The epoch's row, evaluated where it is due."""
        trainer, policy = self.trainer, self.cell.method.batchnorm
        metrics: Row = {}
        if trainer.t in self.job.evaluate.epochs(last):
            with self.clock.phase("method"):
                proposal = self._propose()
            with self.clock.phase(f"eval/{self.cell.key}"):
                splits = self.evaluator.splits(trainer.t == last)
                metrics = self.evaluator.evaluate(trainer.snapshot(), proposal, policy, splits)
            if "test" in splits:
                self.entry.test_correct = self.evaluator.test_correct
            self.entry.client_accuracy_K = self.evaluator.client_accuracy_K
        row = {
            "epoch": trainer.t,
            **self.session.last_row,
            **metrics,
            "train_seconds": self._train_seconds(),
            "method_seconds": self.clock.get("method"),
            "eval_seconds": self.clock.get(f"eval/{self.cell.key}"),
            **trainer.counts.as_dict(),
        }
        self.entry.add(row, self.method.scalars())

    def _propose(self) -> Proposal | None:
        return checked_proposal(self.method, "propose", self.method.propose(self.session), self.trainer.flat.layout.N)

    def _progress(self) -> None:
        own = self.trainer.t - self.branch.prefix
        images = self.trainer.counts.forward_passes - self.prefix_images
        self.report_epoch(own, images, self.clock.get("train") + self.clock.get("method"), [self.entry])

    def _final_weights(self) -> dict[str, torch.Tensor]:
        proposal = self._propose()
        model = self.evaluator.prepare(self.trainer.snapshot(), proposal, self.cell.method.batchnorm)
        return dict(model.state_dict())

    def _prefix_rows(self) -> list[Row]:
        """Rows up to the prefix: the recalibrated base's, from its record where that holds what is asked for."""
        prefix, evaluated = self.branch.prefix, self.job.evaluate.epochs(self.base.epochs)
        wanted = {t for t in evaluated if t <= prefix}
        column = "test_accuracy" if self.job.evaluate.test == "every" else "val_accuracy"
        control = self.job.base.control
        history = self.store.history(control.key) if control is not None else None
        if history is not None and column in history:
            known = history[history["epoch"] <= prefix]
            if wanted <= set(known.loc[known[column].notna(), "epoch"]):
                columns = [name for name in known.columns if name not in ("method_seconds", "eval_seconds")]
                records = known[columns].to_dict("records")
                return [{str(k): v for k, v in row.items() if v == v} for row in records]
        rows = [dict(row) for row in self.store.base_history(self.job.base.key) if row["epoch"] <= prefix]
        for row in rows:
            if row["epoch"] in wanted:
                snapshot = read_snapshot(self.folder / "trajectory", row["epoch"], self.device)
                splits = self.evaluator.splits(last=False)
                with self.clock.phase(f"eval/{self.cell.key}"):
                    row |= self.evaluator.evaluate(snapshot, None, "recalibrate", splits)
        return rows

    def _missing(self) -> list[int]:
        """Epochs of the base that are needed, as start or snapshot, and not stored."""
        folder, evaluated = self.folder, self.job.evaluate.epochs(self.base.epochs)
        curve = {
            t for t in evaluated if t <= self.branch.prefix and not is_file(snapshot_path(folder / "trajectory", t))
        }
        return sorted(curve.union(branch_lacks(self.cell, folder)))

    def _prepare(self, known: Record) -> None:
        """Bring the trainer to the base's state after epoch `start`, with the snapshots it reads in place."""
        start = self.branch.start
        state = self._start_state()
        if self._missing() or (state is None and start > 0):
            with self.store.leases.wait(lease_name(self.store.root, self.folder), leave):
                if missing := self._missing():
                    with self.threads_of(known):
                        self._rederive(known, missing)
            state = self._start_state()
        if state is not None:
            self.trainer.load_state_dict(state)

    def _start_state(self) -> State | None:
        start = self.branch.start
        return None if start == 0 else read_bundle(restart_path(self.folder, start), self.say)

    def _rederive(self, known: Record, missing: list[int]) -> None:
        """Run the base again, from the nearest earlier restart state, for what is missing."""
        start, folder = self.branch.start, self.folder / "trajectory"
        again = self.new_trainer()
        for t in range(missing[0], 0, -1):
            state = read_bundle(restart_path(self.folder, t), self.say)
            if state is not None:
                again.load_state_dict(state)
                break
        self.say(f"runs its base again from epoch {again.t} to {missing[-1]} for states that are gone")
        while True:
            self.check_digest(digest_tensor(again.flat.theta_N), again.t, known)
            if again.t in missing and not is_file(snapshot_path(folder, again.t)):
                write_snapshot(folder, again.snapshot())
            if again.t == start > 0 and not is_file(restart_path(self.folder, start)):
                write_state(restart_path(self.folder, start), again.state_dict())
            if again.t >= missing[-1]:
                return
            with self.clock.phase("rederive"):
                again.train_epoch()
