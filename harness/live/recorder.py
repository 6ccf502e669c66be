"""Snapshots of a training in anyone's loop, as files from which the run is adopted.

Each is one safetensors file of the model's whole state, every tensor once, in its own type or another. Its metadata
have the key `traindyn`, a JSON object: `step`, the optimizer steps done; `epoch`, completed epochs or null; `seed`;
`order`, the parameters' names in the model's order; `trainable`, those of them that are trained; `tied`, a mapping of
further names to the name under which such a tensor stands; `metrics`, numbers by name, null for one that is not finite;
`buffers`, the names of the persistent buffers.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harness.live.checks import as_epoch, as_metrics, check_every, check_whole_number
from harness.live.models import check_layout, check_whole, is_main_process, unwrapped
from harness.method import Layout
from harness.snapshots import FLOATING, layout_of
from harness.storage.files import replacing
from harness.validation import shown

KEY = "traindyn"
"""of the metadata"""
SUPERSEDED = "superseded"
"""the folder below the snapshots' into which those go that a resumed run makes anew"""


class Recorder:
    """Records a model's state into `folder` at every `record`, and with `initial` before the first step.

    `every` is `epoch`, where each call records, or a number of optimizer steps, where `record` may be called after
    every step and records those that it divides. `dtype` stores floating-point parameters in another type than their
    own. Of several processes with the same model the first one writes, each file whole or not at all. Wrappers of
    compilation and data parallelism are looked through.

    A folder that already has snapshots is that of the run that is now resumed: recording goes on there, and snapshots
    of the first recorded step and after it, which the earlier process still made, are moved to `superseded` below it.
    A warning says so, unless the model has that run's initial weights.

    ValueError where an argument is out of bounds, the folder has snapshots of another model or seed, or parameters are
    sharded over processes.
    """

    def __init__(
        self,
        model: nn.Module,
        folder: Path | str,
        every: Literal["epoch"] | int = "epoch",
        initial: bool = True,
        dtype: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        check_every(every)
        seed = check_whole_number("seed", seed, 0)
        if dtype is not None and dtype not in FLOATING:
            raise ValueError(f"dtype must be one of {', '.join(map(str, FLOATING))}, got {shown(dtype)}")
        self.model = unwrapped(model)
        self.layout = layout_of(self.model)
        check_whole(self.model)
        self.folder, self.every, self.dtype, self.seed = Path(folder), every, dtype, seed
        self.step: int | None = None
        """the last one recorded"""
        if not is_main_process():
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"folder must be a folder, got {self.folder}")
        if self._stored():
            self._check_stored()
        elif initial:
            self._write(0, 0, {})

    def record(self, step: int, epoch: float | None = None, metrics: Mapping[str, Any] | None = None) -> Path | None:
        """Store the present state after `step` optimizer steps and `epoch` completed epochs: the file's path, None
        where `every` does not ask for this step. The same step again replaces its file.

        `metrics` are numbers by name, of any evaluation of these weights. ValueError where an argument is none of
        these, the step lies before one already recorded, or the model's parameters are no longer those it began with.
        """
        step = check_whole_number("step", step, 0)
        epoch, numbers = as_epoch(epoch), as_metrics("metrics", metrics)
        if self.step is not None and step < self.step:
            raise ValueError(f"step must be at least {self.step}, the last one recorded, got {step}")
        if self.every != "epoch" and step % self.every != 0:
            return None
        check_layout(self.layout, layout_of(self.model), "model")
        if is_main_process():
            if self.step is None:
                self._supersede(step)
            self._write(step, epoch, numbers)
        self.step = step
        return self._path(step)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.safetensors"

    def _stored(self) -> dict[int, Path]:
        """The snapshots in the folder by their steps, in order."""
        names = {path: path.stem.removeprefix("step-") for path in self.folder.glob("step-*.safetensors")}
        return dict(sorted((int(digits), path) for path, digits in names.items() if digits.isdecimal()))

    def _write(self, step: int, epoch: float | None, metrics: Mapping[str, float]) -> None:
        from safetensors.torch import save_file

        tensors, known = _state(self.model)
        stored = {
            name: _stored_tensor(tensor, self.dtype if name in known["order"] else None) for name, tensor in tensors
        }
        numbers = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        said = {"step": step, "epoch": epoch, "seed": self.seed, **known, "metrics": numbers}
        with replacing(self._path(step)) as temporary:
            save_file(stored, temporary, {"format": "pt", KEY: json.dumps(said)})

    def _supersede(self, step: int) -> None:
        """Move what an earlier process recorded from this step on out of the way."""
        for known, path in self._stored().items():
            if known >= step:
                (self.folder / SUPERSEDED).mkdir(exist_ok=True)
                os.replace(path, self.folder / SUPERSEDED / path.name)

    def _check_stored(self) -> None:
        """ValueError where the snapshots in the folder are of another model or seed; otherwise say that they are gone
        on from."""
        from safetensors import safe_open

        stored = self._stored()
        first, last = min(stored), max(stored)
        with safe_open(stored[first], "pt") as file:
            said = json.loads((file.metadata() or {}).get(KEY, "{}"))
            if not said:
                raise ValueError(f"folder must hold snapshots of a Recorder alone, got {stored[first]}")
            shapes = tuple(tuple(file.get_slice(name).get_shape()) for name in said["trainable"])
            check_layout(Layout(tuple(said["trainable"]), shapes), self.layout, f"a model recorded in {self.folder}")
            if said["seed"] != self.seed:
                raise ValueError(f"seed must be {said['seed']}, as in {self.folder}, got {self.seed}")
            mine = dict(_state(self.model)[0])
            same = said["step"] == 0 and all(_same(file.get_tensor(name), mine[name]) for name in said["trainable"])
        if not same:
            warnings.warn(
                f"{self.folder} has snapshots up to step {last}: this run goes on with them, and those from the first "
                f"step that it records on are moved to {SUPERSEDED}",
                stacklevel=3,
            )


def _state(model: nn.Module) -> tuple[list[tuple[str, Tensor]], dict[str, Any]]:
    """The model's tensors, each once by its first name, and what the metadata say of them."""
    parameters, persistent = dict(model.named_parameters()), model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in persistent}
    names = {id(tensor): name for name, tensor in (parameters | buffers).items()}
    every = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    tied = {name: names[id(tensor)] for name, tensor in every if names.get(id(tensor), name) != name}
    known = {
        "order": list(parameters),
        "trainable": [name for name, parameter in parameters.items() if parameter.requires_grad],
        "tied": {name: kept for name, kept in tied.items() if name in persistent},
        "buffers": list(buffers),
    }
    return [*parameters.items(), *buffers.items()], known


def _stored_tensor(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A copy in C order on the CPU, in another type where one is given and the tensor is of floating point."""
    kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", kind, copy=True, memory_format=torch.contiguous_format)


def _same(stored: Tensor, live: Tensor) -> bool:
    return torch.equal(stored, live.detach().to("cpu", stored.dtype))
