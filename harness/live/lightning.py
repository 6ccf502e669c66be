"""Callbacks of Lightning: snapshots of a training, and methods that follow it.

    Trainer(callbacks=[SnapshotCallback("runs/mine"), LiveCallback({"cmd": OnlineCMD}, swap="cmd")])

Shape suffix: N trainable weights.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from harness.live.checks import as_metrics, check_again, check_every, check_whole_number
from harness.live.followed import Followed, Live, MakeLive
from harness.live.models import sharding
from harness.live.recorder import Recorder
from harness.validation import shown
from harness.weights import random_streams, recalibrate

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError:
    raise ImportError("harness.live.lightning needs the package lightning: pip install 'traindyn[live]'") from None


class SnapshotCallback(Callback):  # type: ignore[misc]  # known where Lightning is installed
    """Records the model after every epoch, or every so many optimizer steps, as `Recorder` does, whose arguments these
    are; metrics are what was logged for the epoch.

    An epoch's snapshot is taken at its end, after validation; an epoch that is broken off has none. `seed` is by
    default that of `seed_everything`. Parameters that are sharded over processes are recorded by Lightning's own
    `save_checkpoint`, without the optimizer's state.
    """

    def __init__(
        self,
        folder: Path | str,
        every: Literal["epoch"] | int = "epoch",
        initial: bool = True,
        dtype: torch.dtype | None = None,
        seed: int | None = None,
    ) -> None:
        check_every(every)
        if seed is not None:
            check_whole_number("seed", seed, 0)
        self.folder, self.every, self.initial, self.dtype, self.seed = Path(folder), every, initial, dtype, seed
        self.recorder: Recorder | None = None
        """made when training begins; None where parameters are sharded"""
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step, self.recorder = trainer.global_step, None
        if sharding(pl_module) is None:
            seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if self.seed is None else self.seed
            self.recorder = Recorder(pl_module, self.folder, self.every, self.initial, self.dtype, seed)
        elif self.initial and trainer.global_step == 0:
            self._record(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.every != "epoch" and trainer.global_step > self._step and trainer.global_step % self.every == 0:
            whole = trainer.is_last_batch
            self._record(trainer, trainer.current_epoch + 1 if whole else None)
            self._step = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every == "epoch" and trainer.is_last_batch and trainer.global_step > self._step:
            self._record(trainer, trainer.current_epoch + 1, _numbers(trainer.callback_metrics))
            self._step = trainer.global_step

    def _record(self, trainer: Trainer, epoch: int | None = None, metrics: dict[str, float] | None = None) -> None:
        if self.recorder is not None:
            self.recorder.record(trainer.global_step, epoch, metrics)
        else:
            trainer.save_checkpoint(self.folder / f"step={trainer.global_step}.ckpt", weights_only=True)


class LiveCallback(Callback):  # type: ignore[misc]
    """Methods by name that follow the training, each made from the LightningModule when training begins.

    They are updated at the last batch of every epoch, before validation, or where they watch steps after every
    optimizer step; `every` is for those without a `cadence` of their own. `swap` names the one whose weights validation
    sees in place of the trained ones; checkpoints have the trained ones and the methods' states. `evaluate(module)` is
    called after every epoch for every method that proposes weights, with these in the module; the numbers that it gives
    are logged as `<method>/<name>`. `recalibration`, batches such as a DataLoader of training data, sets BatchNorm's
    statistics before either. Training is the same to the last bit with and without it, and what follows a training that
    goes on from a checkpoint is what followed it before.

    `live` has the methods by name. ValueError before training where a method does not fit it.
    """

    def __init__(
        self,
        methods: Mapping[str, MakeLive],
        swap: str | None = None,
        evaluate: Callable[[LightningModule], Mapping[str, Any]] | None = None,
        recalibration: Iterable[Any] | None = None,
        every: Literal["epoch"] | int = "epoch",
    ) -> None:
        self.followed = Followed(methods, every)
        if swap is not None and swap not in methods:
            raise ValueError(f"swap must be one of {', '.join(methods)}, got {shown(swap)}")
        check_again("recalibration", recalibration)
        self.swap, self.evaluate, self.recalibration = swap, evaluate, recalibration
        self._state: dict[str, Any] | None = None
        self._step = self._epoch_step = 0
        self._swapped: contextlib.ExitStack | None = None

    @property
    def live(self) -> dict[str, Live]:
        """The methods by name, once training has begun."""
        return self.followed.live

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._state is None and trainer.global_step > 0:
            if self.live and self._step == trainer.global_step:
                return  # fit was called again, to train for longer
            warnings.warn(f"no state of the methods is known: they begin at step {trainer.global_step}", stacklevel=2)
        batches, most = trainer.num_training_batches, trainer.max_epochs
        steps = math.ceil(batches / trainer.accumulate_grad_batches) if math.isfinite(batches) else None
        epochs = None if most is None or most < 0 or self._state is not None else most - trainer.current_epoch
        self.followed.begin(pl_module, epochs, steps, self._state)
        self._state = None
        self._step = self._epoch_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step > self._step:
            self._step = trainer.global_step
            self.followed.after_step()
        if trainer.is_last_batch and trainer.global_step > self._epoch_step:
            self._epoch_step = trainer.global_step
            self.followed.after_epoch()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.swap is not None and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._apply(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.evaluate is None or not trainer.is_last_batch:
            return
        for name in self.live:
            with self.followed.applied(name, pl_module) as ready, torch.no_grad():
                if ready:
                    self._recalibrate(pl_module)
                found = self.evaluate(pl_module.eval()) if ready else {}
            for metric, value in as_metrics("evaluate", found).items():
                pl_module.log(f"{name}/{metric}", value)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._swapped is not None:
            self._restore(pl_module)
            held = {name: value.clone() for name, value in checkpoint["state_dict"].items()}
            checkpoint["state_dict"] = held
            self._apply(pl_module)

    def state_dict(self) -> dict[str, Any]:
        return self.followed.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict if state_dict["methods"] else None

    def _apply(self, pl_module: LightningModule) -> None:
        assert self.swap is not None
        self._swapped = contextlib.ExitStack()
        if self._swapped.enter_context(self.live[self.swap].applied(pl_module)) is not False:
            self._recalibrate(pl_module)

    def _restore(self, pl_module: LightningModule) -> None:
        """The trained weights again; what validation drew from random streams stays drawn, as without a swap."""
        if self._swapped is not None:
            swapped, self._swapped = self._swapped, None
            streams = random_streams(pl_module)
            modes = {module: module.training for module in pl_module.modules()}
            swapped.close()
            streams()
            for module, mode in modes.items():
                module.training = mode

    def _recalibrate(self, pl_module: LightningModule) -> None:
        if self.recalibration is not None:
            recalibrate(pl_module, self.recalibration)


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Those of Lightning's metrics that are single numbers."""
    return {name: float(value) for name, value in metrics.items() if getattr(value, "numel", lambda: 1)() == 1}
