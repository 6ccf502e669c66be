"""The session that a brancher trains in: the harness's own loop with hooks, every pass counted and timed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from harness.method import Batch, Branch, Buffers, Federation, Layout, OptimizerFactory, Schedule, Trajectory
from harness.problem.images import Images
from harness.randomness import generator
from harness.snapshots import tensors_of
from harness.training.clock import Clock
from harness.training.loop import Trainer
from harness.training.out_of_memory import bounded_by
from harness.training.probe import PROBE_IMAGES, mean_loss, probe_images


class BranchSession:
    """Implements `harness.method.Session` over a `Trainer` that stands at the branch's start state.

    The trainer's epoch counter becomes the branch's clock (prefix + own epochs), so that the branch sees in
    epoch t the batches that the base saw in epoch t.
    """

    def __init__(
        self, trainer: Trainer, branch: Branch, trajectory: Trajectory, clock: Clock, gradient_space: str
    ) -> None:
        self._trainer = trainer
        self._clock = clock
        trainer.t = branch.prefix
        trainer.gradient_space = gradient_space
        self.branch = branch
        self.trajectory = trajectory
        self.layout: Layout = trainer.flat.layout
        self.parameters = trainer.flat.parameters
        self.epochs = trainer.base.epochs
        self.steps_per_epoch = trainer.steps_per_epoch()
        self.federation: Federation | None = None
        self.begun = False
        """set by the harness after `begin`"""
        self.last_row: dict[str, float] = {}
        """what the harness's loop reported of this epoch"""

    @property
    def model(self) -> nn.Module:
        return self._trainer.model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self._trainer.optimizer

    @property
    def theta_N(self) -> Tensor:
        return self._trainer.flat.theta_N

    @theta_N.setter
    def theta_N(self, value_N: Tensor) -> None:
        self._trainer.flat.load(value_N)

    @property
    def buffers(self) -> Buffers:
        return self._trainer.flat.buffers

    @property
    def t(self) -> int:
        return self._trainer.t

    @property
    def device(self) -> torch.device:
        return self._trainer.device

    def rng(self, purpose: str) -> torch.Generator:
        return generator(self._trainer.base.seed, f"method/{purpose}")

    def new_optimizer(
        self, factory: OptimizerFactory, schedule: Schedule | None = None, **kwargs: Any
    ) -> torch.optim.Optimizer:
        self._only_in_begin("new_optimizer")
        return self._trainer.new_optimizer(factory, schedule, **kwargs)

    def set_schedule(self, factor: Schedule) -> None:
        self._only_in_begin("set_schedule")
        self._trainer.set_schedule(factor)

    def _only_in_begin(self, name: str) -> None:
        if self.begun:
            raise RuntimeError(f"{name} may be called in begin only, so that resume can make it again")

    def reset_optimizer(self) -> None:
        self._trainer.optimizer.state.clear()

    @property
    def moving_N(self) -> Tensor:
        return self._trainer.moving_N.clone()

    @property
    def gradient_N(self) -> Tensor:
        return self._trainer.flat.gradient_N()

    @gradient_N.setter
    def gradient_N(self, value_N: Tensor) -> None:
        for parameter, part in zip(self.parameters, tensors_of(value_N, self.layout), strict=True):
            parameter.grad = part

    def train_epoch(
        self,
        batch_size: int | None = None,
        augment: bool = True,
        after_backward: Callable[[], None] | None = None,
        after_step: Callable[[], None] | None = None,
    ) -> None:
        t = self._trainer.t
        with self._clock.phase("train"):
            self.last_row = self._trainer.train_epoch(
                batch_size, augment, self._charged(after_backward), self._charged(after_step)
            )
        self._trainer.t = t

    def _charged(self, hook: Callable[[], None] | None) -> Callable[[], None] | None:
        """The hook, its seconds charged to the method."""
        if hook is None:
            return None

        def charged() -> None:
            with self._clock.phase("method", in_step=True):
                hook()

        return charged

    def batches(self, batch_size: int | None = None, augment: bool = True) -> Iterator[Batch]:
        base, trainer = self._trainer.base, self._trainer
        size = base.batch_size if batch_size is None else batch_size
        trainer.check_batch(size)
        made = trainer.images.train_batches(
            size, base.seed, self.t, augment, trainer.memory_format, base.batches_per_epoch
        )
        while True:
            with self._clock.phase("train"):
                batch = next(made, None)
            if batch is None:
                return
            yield batch

    @contextlib.contextmanager
    def _undisturbed(self, seed: int, images: int) -> Iterator[None]:
        """The block's passes over so many images at once leave buffers and the random stream as they were."""
        saved = self._trainer.flat.copy_buffers()
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            try:
                with bounded_by("the method's batch_size", images):
                    yield
            finally:
                self._trainer.flat.load(buffers=saved)

    def loss(self, batch: Batch) -> float:
        with self._clock.phase("train"), self._undisturbed(batch.seed, len(batch.labels_B)), torch.no_grad():
            self.model.train()
            self._trainer.count(len(batch.labels_B), backward=False)
            return cross_entropy(self._trainer.logits(batch.images_B), batch.labels_B).item()

    def gradient(self, batch: Batch) -> tuple[float, Tensor]:
        with self._clock.phase("train"), self._undisturbed(batch.seed, len(batch.labels_B)):
            self.model.train()
            self._trainer.count(len(batch.labels_B), backward=True)
            for parameter in self._trainer.flat.parameters:
                parameter.grad = None
            loss = cross_entropy(self._trainer.logits(batch.images_B), batch.labels_B)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.item(), self._trainer.flat.gradient_N()

    @cached_property
    def _probe(self) -> Images:
        trainer = self._trainer
        return probe_images(trainer.base, trainer.images, trainer.device)

    def probe_loss(self) -> float:
        self._trainer.count(len(self._probe), backward=False)
        with self._clock.phase("train"), self._undisturbed(0, min(PROBE_IMAGES, len(self._probe))):
            return mean_loss(self.model, self._trainer.logits, self._probe, self._trainer.memory_format)
