"""The session of an exchange: the server's state, and rounds in place of epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch

from harness.federated.server import FederatedTrainer
from harness.method import Batch, Branch, OptimizerFactory, Schedule, Trajectory
from harness.training.clock import Clock
from harness.training.session import BranchSession


class FederatedSession(BranchSession):
    """Implements `harness.method.Session` on a server, which has no data of its own: all that would pass over some, and
    its optimizer, is a RuntimeError."""

    def __init__(self, trainer: FederatedTrainer, branch: Branch, trajectory: Trajectory, clock: Clock) -> None:
        super().__init__(trainer, branch, trajectory, clock, "full")
        self._server = trainer
        self.federation = trainer.federation

    def train_epoch(
        self,
        batch_size: int | None = None,
        augment: bool = True,
        after_backward: Callable[[], None] | None = None,
        after_step: Callable[[], None] | None = None,
    ) -> None:
        """One round; it moves on t."""
        with self._clock.phase("train"):
            self.last_row = self._server.train_epoch()

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        _refuse("optimizer")

    def new_optimizer(self, factory: OptimizerFactory, schedule: Schedule | None = None, **kwargs: Any) -> NoReturn:
        _refuse("new_optimizer")

    def set_schedule(self, factor: Schedule) -> None:
        _refuse("set_schedule")

    def reset_optimizer(self) -> None:
        _refuse("reset_optimizer")

    def batches(self, batch_size: int | None = None, augment: bool = True) -> Iterator[Batch]:
        _refuse("batches")

    def loss(self, batch: Batch) -> float:
        _refuse("loss")

    def gradient(self, batch: Batch) -> NoReturn:
        _refuse("gradient")

    def probe_loss(self) -> float:
        _refuse("probe_loss")


def _refuse(name: str) -> NoReturn:
    raise RuntimeError(f"{name} is none of an exchange's: a server sees no data, its clients train")
