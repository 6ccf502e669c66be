"""Callbacks of Hugging Face's Trainer: snapshots of a training, and methods that follow it.

    class Training(EvaluatesLive, Trainer): ...
    Training(model, arguments, callbacks=[SnapshotCallback("runs/mine"), LiveCallback({"cmd": OnlineCMD})])

Epochs end for them at their last optimizer step, before evaluation and saving.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from harness.live.checks import check_again, check_every, check_whole_number
from harness.live.followed import Followed, Live, MakeLive
from harness.live.models import is_main_process, sharding
from harness.live.recorder import Recorder
from harness.storage.tensors import read_state, write_state
from harness.weights import recalibrate

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError:
    raise ImportError("harness.live.trainer needs the package transformers: pip install 'traindyn[live]'") from None

STATE = "traindyn_live.safetensors"
"""the methods' states in a checkpoint's folder"""
WHOLE = 1e-6
"""how near an epoch's number must be to a whole one"""


class _Epochs(TrainerCallback):  # type: ignore[misc]  # known where transformers is installed
    """Tells when an optimizer step and when an epoch are over: an epoch at its last step, so that what is saved at that
    step already holds it; an epoch that is broken off is none."""

    def __init__(self) -> None:
        self._epoch_step = 0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        whole = state.epoch is not None and abs(state.epoch - round(state.epoch)) < WHOLE
        self.step_ends(state, control, model, whole)
        if whole:
            self._end_epoch(state, control, model)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Of data without a length, whose last step nobody knows before."""
        if not (control.should_training_stop or control.should_epoch_stop):
            self._end_epoch(state, control, model)

    def _end_epoch(self, state: TrainerState, control: TrainerControl, model: Any) -> None:
        if state.global_step > self._epoch_step:
            self._epoch_step = state.global_step
            self.epoch_ends(state, control, model)

    def step_ends(self, state: TrainerState, control: TrainerControl, model: Any, whole: bool) -> None:
        """An optimizer step is over, `whole` where it is an epoch's last."""

    def epoch_ends(self, state: TrainerState, control: TrainerControl, model: Any) -> None:
        """All batches of an epoch were trained on."""


class SnapshotCallback(_Epochs):
    """Records the model after every epoch, or every so many optimizer steps, as `Recorder` does, whose arguments these
    are; `seed` is by default the training's.

    Where a snapshot is evaluated its file is written again, with the metrics. Parameters that are sharded over
    processes are recorded by the trainer's own checkpoints, which it is asked to save.
    """

    def __init__(
        self,
        folder: Path | str,
        every: Literal["epoch"] | int = "epoch",
        initial: bool = True,
        dtype: torch.dtype | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_every(every)
        if seed is not None:
            check_whole_number("seed", seed, 0)
        self.folder, self.every, self.initial, self.dtype, self.seed = Path(folder), every, initial, dtype, seed
        self.recorder: Recorder | None = None
        """made when training begins; None where parameters are sharded"""
        self._recorded: int | None = None
        """the step of a snapshot that may yet be evaluated, which was taken after `_epoch` epochs"""
        self._epoch: int | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        self._epoch_step, self._recorded, self.recorder = state.global_step, None, None
        if sharding(model) is None:
            seed = args.seed if self.seed is None else self.seed
            self.recorder = Recorder(model, self.folder, self.every, self.initial, self.dtype, seed)

    def step_ends(self, state: TrainerState, control: TrainerControl, model: Any, whole: bool) -> None:
        self._recorded = None
        if self.every != "epoch" and state.global_step % self.every == 0:
            self._record(state, control, round(state.epoch) if whole else None)

    def epoch_ends(self, state: TrainerState, control: TrainerControl, model: Any) -> None:
        if self.every == "epoch":
            whole = abs(state.epoch - round(state.epoch)) < WHOLE
            self._record(state, control, round(state.epoch) if whole else None)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """The first evaluation after a snapshot is that of the trained weights."""
        if self.recorder is not None and self._recorded is not None and self._recorded == state.global_step:
            numbers = {name: value for name, value in (metrics or {}).items() if isinstance(value, int | float)}
            self.recorder.record(self._recorded, self._epoch, numbers)
        self._recorded = None

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._recorded = None

    def _record(self, state: TrainerState, control: TrainerControl, epoch: int | None) -> None:
        if self.recorder is None:
            control.should_save = True
            return
        self.recorder.record(state.global_step, epoch)
        self._recorded, self._epoch = state.global_step, epoch


class LiveCallback(_Epochs):
    """Methods by name that follow the training, each made from the model when training begins.

    They are updated at the end of every epoch, or where they watch steps after every optimizer step; `every` is for
    those without a `cadence` of their own. Their states lie in every checkpoint that is saved, and are gone on from
    with it. `recalibration`, batches such as a DataLoader of training data, sets BatchNorm's statistics before
    `EvaluatesLive` evaluates. Training is the same to the last bit with and without it, and after a resume.

    `live` has the methods by name. ValueError before training where a method does not fit it.
    """

    def __init__(
        self,
        methods: Mapping[str, MakeLive],
        recalibration: Iterable[Any] | None = None,
        every: Literal["epoch"] | int = "epoch",
    ) -> None:
        super().__init__()
        self.followed = Followed(methods, every)
        check_again("recalibration", recalibration)
        self.recalibration = recalibration

    @property
    def live(self) -> dict[str, Live]:
        """The methods by name, once training has begun."""
        return self.followed.live

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        self._epoch_step = state.global_step
        resumed = state.global_step > 0
        stored = _stored(args, state) if resumed else None
        steps = state.max_steps / args.num_train_epochs if args.max_steps <= 0 else math.nan
        epochs = None if resumed or args.max_steps > 0 else math.ceil(args.num_train_epochs)
        steps_per_epoch = int(steps) if steps.is_integer() else None
        self.followed.begin(model, epochs, steps_per_epoch, stored)

    def step_ends(self, state: TrainerState, control: TrainerControl, model: Any, whole: bool) -> None:
        self.followed.after_step()

    def epoch_ends(self, state: TrainerState, control: TrainerControl, model: Any) -> None:
        self.followed.after_epoch()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        folder = _checkpoint(args, state)
        if folder.is_dir() and is_main_process():
            write_state(folder / STATE, {"global_step": state.global_step, **self.followed.state_dict()})


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _stored(args: TrainingArguments, state: TrainerState) -> dict[str, Any] | None:
    """The methods' states in the checkpoint that training goes on from; None, and a warning, where there are none."""
    named = args.resume_from_checkpoint
    places = [*([Path(named)] if isinstance(named, str) else []), _checkpoint(args, state)]
    for place in places:
        if (place / STATE).is_file():
            found = read_state(place / STATE)
            if found["global_step"] == state.global_step:
                return found
    where = " or ".join(map(str, places))
    warnings.warn(f"no state of the methods in {where}: they begin at step {state.global_step}", stacklevel=2)
    return None


class EvaluatesLive:
    """Mixed into a Trainer, evaluates every method of its `LiveCallback` too, after the trained weights.

        class Training(EvaluatesLive, Trainer): ...

    The metrics of method `cmd` begin with `eval_cmd_` in place of `eval_`. ValueError before training where there is no
    `LiveCallback`.
    """

    callback_handler: Any
    eval_dataset: Any
    model: Any

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the trainer's."""
        if self._followers() is None:
            raise ValueError("callbacks must have a LiveCallback where a trainer is EvaluatesLive, got none")
        return super().train(*args, **kwargs)  # type: ignore[misc]

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
        **kwargs: Any,
    ) -> dict[str, float]:
        """As the trainer's, with the methods' metrics."""
        evaluate = super().evaluate  # type: ignore[misc]
        metrics: dict[str, float] = evaluate(eval_dataset, ignore_keys, metric_key_prefix, **kwargs)
        followers = self._followers()
        if followers is None or isinstance(self.eval_dataset if eval_dataset is None else eval_dataset, dict):
            return metrics  # each of several sets is evaluated by a call of its own
        found = dict(metrics)
        for name in followers.live:
            with followers.followed.applied(name, self.model) as ready:
                if ready and followers.recalibration is not None:
                    recalibrate(self.model, followers.recalibration)
                if ready:
                    found |= evaluate(eval_dataset, ignore_keys, f"{metric_key_prefix}_{name}", **kwargs)
        return found

    def _followers(self) -> LiveCallback | None:
        return next((one for one in self.callback_handler.callbacks if isinstance(one, LiveCallback)), None)
