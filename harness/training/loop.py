"""THE loop: one training run that is deterministic and can go on from any epoch's end.

Epoch t draws its order, augmentation and dropout from generators seeded by (seed, purpose, t), so it can be
reproduced without what went before, and nothing that happens between epochs can shift training.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from harness.config import BaseConfig
from harness.method import OptimizerFactory, Schedule, Snapshot, State
from harness.problem.images import Images
from harness.problem.optimizers import make_optimizer, schedule
from harness.randomness import derive
from harness.snapshots import tensors_of
from harness.training.clock import Counts
from harness.training.flat_model import FlatModel
from harness.training.out_of_memory import bounded_by


class Diverged(Exception):
    """Loss or weights are no longer finite."""


def set_determinism(base: BaseConfig) -> None:
    """Process-wide switches that a base's numbers depend on; before the device is first used.

    Deterministic: on a GPU only kernels that repeat to the last bit, as far as there are such (`told_kernels` names the
    operations that have none), and cuDNN's first choice instead of the fastest that it finds by trying. Attention is
    taken apart into products and a softmax there: where operations without such kernels are let pass, torch takes
    gradients of fused attention that do not repeat. float32 is float32 in convolutions and products, not TF32.
    """
    if base.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for, to repeat itself
    torch.use_deterministic_algorithms(base.deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not base.deterministic
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    fused = not (base.deterministic and base.device == "cuda")
    torch.backends.cuda.enable_flash_sdp(fused)
    torch.backends.cuda.enable_mem_efficient_sdp(fused)
    torch.backends.cuda.enable_cudnn_sdp(fused)


class Trainer:
    """A model in training: its weights, buffers, optimizer and clock of epochs.

    `images` is the training split on `device`. `t` counts completed epochs, `step` optimizer steps.
    """

    def __init__(self, base: BaseConfig, images: Images, device: torch.device) -> None:
        from harness.problem.models import build_model  # imports timm: seconds, and jobs alone need it

        self.base = base
        self.images = images
        self.device = device
        self.flat = FlatModel(build_model(base.model, base.dataset, base.seed).to(device))
        self._forward: Callable[..., torch.Tensor] = torch.compile(self.flat.model) if base.compile else self.flat.model
        self.t = 0
        self.step = 0
        self.counts = Counts()
        self.gradient_space = "full"
        self.moving_N = torch.zeros(self.flat.layout.N, dtype=torch.bool, device=device)
        """weights that ever had a gradient: at some step of the first epoch, or at the last step of a later one"""
        self._moving = tensors_of(self.moving_N, self.flat.layout)
        self._set_optimizer(
            make_optimizer(base.optimizer, self.flat.parameters), schedule(base.optimizer.schedule, base.epochs)
        )

    @property
    def model(self) -> nn.Module:
        return self.flat.model

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.base.memory_format == "channels_last" else torch.contiguous_format

    def steps_per_epoch(self, batch_size: int | None = None) -> int:
        size = self.base.batch_size if batch_size is None else batch_size
        return self.images.steps(size, self.base.batches_per_epoch)

    def check_batch(self, batch_size: int) -> None:
        """ValueError where an epoch would have no full batch."""
        if not 1 <= batch_size <= len(self.images):
            raise ValueError(f"batch_size must be between 1 and {len(self.images)} training images, got {batch_size}")

    def _set_optimizer(self, optimizer: torch.optim.Optimizer, factor: Schedule | None) -> None:
        self.optimizer = optimizer
        self._schedule = factor
        self._scheduled_epochs = 0.0
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]

    def set_schedule(self, factor: Schedule) -> None:
        """From here on the rate is what it is now times `factor`, of the epochs from here on; the state stays."""
        self._set_optimizer(self.optimizer, factor)

    def new_optimizer(self, factory: OptimizerFactory, factor: Schedule | None, **kwargs: Any) -> torch.optim.Optimizer:
        self._set_optimizer(factory(self.flat.parameters, **kwargs), factor)
        return self.optimizer

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 autocast where the base asks for it."""
        if self.base.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def logits(self, images_B: torch.Tensor) -> torch.Tensor:
        """Float32 logits in the model's present mode."""
        with self.autocast():
            logits: torch.Tensor = self._forward(images_B)
        return logits.float()

    def count(self, images: int, backward: bool) -> None:
        """Charge a pass over `images` images."""
        self.counts.forward_passes += images
        if backward and self.gradient_space == "full":
            self.counts.gradients_full += images
        elif backward:
            self.counts.gradients_subspace += images

    def seed_epoch(self) -> None:
        """Seed torch's stream for epoch t: dropout needs no stored state."""
        torch.manual_seed(derive(self.base.seed, "train", self.t))

    def train_epoch(
        self,
        batch_size: int | None = None,
        augment: bool = True,
        after_backward: Callable[[], None] | None = None,
        after_step: Callable[[], None] | None = None,
    ) -> dict[str, float]:
        """Train one epoch (the t-th, counted from 0); its mean training loss, accuracy in percent and last rate.

        Raises Diverged where loss or weights are not finite afterwards, OutOfMemory where the device holds no batch.
        """
        size = self.base.batch_size if batch_size is None else batch_size
        self.check_batch(size)
        with bounded_by("batch_size", size):
            return self._train_epoch(size, augment, after_backward, after_step)

    def _train_epoch(
        self,
        size: int,
        augment: bool,
        after_backward: Callable[[], None] | None,
        after_step: Callable[[], None] | None,
    ) -> dict[str, float]:
        self.seed_epoch()
        self.model.train()
        steps = self.steps_per_epoch(size)
        loss_sum = torch.zeros((), device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        batches = self.images.train_batches(
            size, self.base.seed, self.t, augment, self.memory_format, self.base.batches_per_epoch
        )
        for index, batch in enumerate(batches):
            if self._schedule is not None:
                factor = self._schedule(self._scheduled_epochs + (index + 1) / steps)
                for group in self.optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * factor
            self.optimizer.zero_grad(set_to_none=True)
            logits = self.logits(batch.images_B)
            loss = cross_entropy(logits, batch.labels_B)
            loss.backward()  # type: ignore[no-untyped-call]
            if self.t == 0 or index + 1 == steps:
                self._see_gradients()
            if after_backward is not None:
                after_backward()
            self.optimizer.step()
            self.step += 1
            loss_sum += loss.detach()
            correct += (logits.detach().argmax(1) == batch.labels_B).sum()
            if after_step is not None:
                after_step()
        self.count(steps * size, backward=True)
        self._scheduled_epochs += 1.0
        row = {
            "train_loss": loss_sum.item() / steps,
            "train_accuracy": 100.0 * correct.item() / (steps * size),
            "lr": float(self.optimizer.param_groups[0]["lr"]),
        }
        if not math.isfinite(row["train_loss"]) or not bool(self.flat.theta_N.isfinite().all()):
            raise Diverged(f"loss or weights not finite in epoch {self.t + 1}")
        self.t += 1
        return row

    def _see_gradients(self) -> None:
        for parameter, moving in zip(self.flat.parameters, self._moving, strict=True):
            if parameter.grad is not None:
                moving |= parameter.grad != 0

    def snapshot(self) -> Snapshot:
        """The live state, not a copy."""
        return self.flat.snapshot(self.t, self.step)

    def state_dict(self) -> State:
        """All that training needs to go on from here."""
        return {
            "t": self.t,
            "step": self.step,
            "theta_N": self.flat.theta_N,
            "buffers": dict(self.flat.buffers),
            "optimizer": self.optimizer.state_dict(),
            "scheduled_epochs": self._scheduled_epochs,
            "counts": self.counts.as_dict(),
            "moving_N": self.moving_N,
        }

    def load_state_dict(self, state: State) -> None:
        self.t, self.step = state["t"], state["step"]
        self.flat.load(state["theta_N"].to(self.device), state["buffers"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scheduled_epochs = state["scheduled_epochs"]
        self.counts = Counts(**state["counts"])
        # a state of before this was watched says nothing of it
        self.moving_N.copy_(state.get("moving_N", torch.ones_like(self.moving_N)))
