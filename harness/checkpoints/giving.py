"""Weights as a checkpoint in the format that came in: a copy of a snapshot in which they take its weights' place.

Of a file of torch.save what is no plain value is left out, since nothing of it is run, and so are the states of
optimizer, schedulers and scaler and averages of the weights, which some loaders would take instead.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from harness.checkpoints.entries import EMA, OPTIMIZERS, TOP, as_mapping
from harness.checkpoints.errors import SourceChanged
from harness.checkpoints.inert import Inert, TensorOf
from harness.checkpoints.places import FLOATING, Files, load
from harness.checkpoints.recognition import INDEXES, OPTIMIZER_FILES, STATE, Checkpoint, recognise
from harness.checkpoints.roles import TIED, WEIGHT
from harness.checkpoints.runs import AdoptedRun, Source
from harness.checkpoints.safetensors_files import metadata_of
from harness.checkpoints.torch_files import read_torch
from harness.checkpoints.writing import write_safetensors
from harness.config import ConfigError
from harness.snapshots import tensors_of
from harness.validation import shown

Dtype = Literal["source", "float32"]
OF_TRAINING = frozenset(
    {
        *OPTIMIZERS,
        *EMA,
        *("amp_scaler", "scaler", "grad_scaler", "lr_scheduler", "lr_schedulers", "scheduler", "loops", "callbacks"),
        *("current_model_state", "averaging_state", "MixedPrecision"),
    }
)
"""entries of a pickled checkpoint that are not given back"""
NOT_COPIED = frozenset({*OPTIMIZER_FILES, STATE, "scheduler.pt", "scheduler.bin", "rng_state.pth", "training_args.bin"})
MOST_BESIDE = 1 << 28
"""bytes of a file beside the weights, such as a tokenizer's, that is copied with them"""


@dataclass(frozen=True)
class Given:
    """A checkpoint that was written: its path, and the share of the change against its template that rounding took
    back, 0 where nothing was rounded or changed."""

    path: Path
    taken_back: float
    left_out: tuple[str, ...] = ()
    """entries of the template that are no plain values"""


def template_of(run: AdoptedRun, t: int) -> tuple[Source, Checkpoint]:
    """The snapshot of epoch t as a checkpoint: what was adopted where that is still there, or its copy."""
    source = run.sources[run.ts.index(t)]
    if source.path != source.original and Path(source.original).exists():
        try:
            found = recognise(Path(source.original), source.original_entry)
            if run.by_name(found).keys() == {own.name for own in run.tensors}:
                return source, found
        except ConfigError:
            pass  # the copy is the template then
    return source, source.open()


class _Weights:
    """The tensors of a checkpoint to be written, by their names in its file."""

    def __init__(
        self, run: AdoptedRun, found: Checkpoint, theta_N: Tensor, buffers: Mapping[str, Tensor], dtype: Dtype
    ) -> None:
        raw = run.by_name(found)
        parts = dict(zip(run.layout.names, tensors_of(theta_N.detach().cpu(), run.layout), strict=True))
        self._found, self._dtype = found, dtype
        self._given: dict[str, Tensor] = {}
        self.tied: dict[str, str] = {}
        """names of tensors that are others once more, by the raw names of both"""
        for own in run.tensors:
            if own.name not in raw:
                continue
            if own.role == WEIGHT:
                self._given[raw[own.name]] = parts[own.name]
            elif own.role == TIED and own.of is not None and own.of in raw:
                self.tied[raw[own.name]] = raw[own.of]
            elif own.name in buffers:
                self._given[raw[own.name]] = buffers[own.name].detach().cpu()
        self._weights = {raw[own.name] for own in run.weights if own.name in raw}
        self._files = Files()
        self._along, self._square = 0.0, 0.0

    def dtype_of(self, name: str) -> torch.dtype:
        own = self._found.tensors[name].dtype
        return torch.float32 if self._dtype == "float32" and own in FLOATING else own

    def shape_of(self, name: str) -> tuple[int, ...]:
        return self._found.tensors[name].shape

    def read(self, name: str) -> Tensor:
        """A tensor as it is to be written; ConfigError where its type cannot hold a number of it."""
        name = self.tied.get(name, name)
        before, wanted = load(self._files, self._found.tensors[name]), self.dtype_of(name)
        if name not in self._given:
            return before.to(wanted)
        given = self._given[name].reshape(before.shape)
        made = given.to(wanted)
        if made.is_floating_point() and not bool((made.isfinite() | ~given.isfinite()).all()):
            raise ConfigError(f"dtype must be float32 where weights overflow {wanted}: tensor {name}")
        if name in self._weights:
            change, kept = given.double() - before.double(), made.double() - before.double()
            self._along += float((change * kept).sum())
            self._square += float(change.square().sum())
        return made

    @property
    def taken_back(self) -> float:
        """The share of the change that rounding took back, along the change itself."""
        return 1 - self._along / self._square if self._square > 0 else 0.0

    def close(self) -> None:
        self._files.close()


def file_name(run: AdoptedRun, t: int) -> str:
    """What a checkpoint given from the snapshot of epoch t is called: as the one that was adopted."""
    source, found = template_of(run, t)
    name = Path(source.original).name
    return name if found.path.is_dir() or found.kind == "torch.save" else Path(name).stem + ".safetensors"


def give(
    run: AdoptedRun, t: int, theta_N: Tensor, buffers: Mapping[str, Tensor], to: Path, dtype: Dtype = "source"
) -> Given:
    """Write weights, and buffers by their names, as a checkpoint like the snapshot of epoch t, at the new path `to`.

    ConfigError where `to` exists, or a weight overflows the snapshot's type; SourceChanged where the snapshot is not
    what it was.
    """
    check_new(to)
    source, found = template_of(run, t)
    weights = _Weights(run, found, theta_N, buffers, dtype)
    half = to.with_name(f".{to.name}.{uuid.uuid4().hex[:8]}.tmp")
    to.parent.mkdir(parents=True, exist_ok=True)
    left_out: tuple[str, ...] = ()
    try:
        if found.path.is_dir():
            left_out = _folder(run, found, weights, half, dtype)
        elif found.kind == "safetensors":
            _safetensors(found.path, list(found.tensors), weights, half)
        else:
            left_out = _pickled(found.path, found, weights, half)
        check_new(to)
        os.rename(half, to)
    except OSError as error:
        if error.filename and str(error.filename).startswith(str(found.path)):
            raise SourceChanged(f"{source.label}: cannot be read any more ({error.strerror})") from error
        raise
    finally:
        weights.close()
        if half.is_dir():
            shutil.rmtree(half, ignore_errors=True)
        else:
            half.unlink(missing_ok=True)
    return Given(to, weights.taken_back, left_out)


def check_new(to: Path) -> None:
    """ConfigError where something lies at a path already."""
    if os.path.lexists(to):
        raise ConfigError(f"to must be a new path, as nothing is ever written over, got {shown(str(to))}, which exists")


def _safetensors(path: Path, names: list[str], weights: _Weights, to: Path) -> None:
    kept = [(name, weights.dtype_of(name), weights.shape_of(name)) for name in names]
    write_safetensors(to, kept, weights.read, metadata_of(path))


def _pickled(path: Path, found: Checkpoint, weights: _Weights, to: Path) -> tuple[str, ...]:
    """A file of torch.save with the weights where they were, and of the rest what is plain."""
    made: dict[str, Tensor] = {}
    for name in found.tensors:
        first = weights.tied.get(name, name)
        if first not in made:
            made[first] = weights.read(first)
        made[name] = made[first]
    states = OrderedDict((name, made[name]) for name in found.tensors)
    if found.taken == TOP:
        torch.save(states, to)
        return ()
    whole = as_mapping(read_torch(path).value) or {}
    top = found.taken.partition(".")[0]
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    for key, value in whole.items():
        if key == top:
            kept[key] = _placed(found.taken.split(".")[1:], states)
        elif key not in OF_TRAINING and _is_plain(value):
            kept[key] = value
        elif key not in OF_TRAINING:
            left_out.append(key)
    torch.save(kept, to)
    return tuple(left_out)


def _placed(names: list[str], states: Mapping[str, Tensor]) -> Any:
    return {names[0]: _placed(names[1:], states)} if names else states


def _is_plain(value: Any) -> bool:
    """Whether a value holds nothing but numbers, texts, lists and mappings."""
    if isinstance(value, Inert | TensorOf):
        return False
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | bytes)


def _folder(run: AdoptedRun, found: Checkpoint, weights: _Weights, to: Path, dtype: Dtype) -> tuple[str, ...]:
    """A folder with new weights, and of what lies beside them all but the state of training."""
    to.mkdir(parents=True)
    if found.kind == "torch's distributed checkpoint":
        return _distributed(found, weights, to)
    by_file: dict[Path, list[str]] = {}
    for name, place in found.tensors.items():
        by_file.setdefault(place.path, []).append(name)
    left_out: tuple[str, ...] = ()
    for path, names in by_file.items():
        target = to / path.relative_to(found.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            _safetensors(path, names, weights, target)
        else:
            own = recognise(path, "module" if found.kind == "DeepSpeed" else "auto")
            left_out += _pickled(path, own, weights, target)
    for path in sorted(found.path.iterdir()):
        small = path.is_file() and path.stat().st_size <= MOST_BESIDE
        if small and path not in by_file and path.name not in NOT_COPIED and not path.name.startswith("rng_state"):
            shutil.copyfile(path, to / path.name)
    if dtype == "float32":
        _say_float32(to, sum(weights.dtype_of(n).itemsize * found.tensors[n].numel for n in found.tensors))
    return left_out


def _distributed(found: Checkpoint, weights: _Weights, to: Path) -> tuple[str, ...]:
    import warnings

    import torch.distributed.checkpoint as dcp

    states: Any = {name: weights.read(name) for name in found.tensors}
    for name in reversed([] if found.taken == TOP else found.taken.split(".")):
        states = {name: states}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one process writes alone
        dcp.save(states, checkpoint_id=str(to))  # type: ignore[attr-defined]
    return ()


def _say_float32(folder: Path, total: int) -> None:
    """Set the type in a model's configuration, and the bytes in an index of shards."""

    def change(name: str, of: Callable[[dict[str, Any]], None]) -> None:
        path = folder / name
        if path.is_file():
            value = json.loads(path.read_text(encoding="utf-8"))
            of(value)
            path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

    def in_configuration(value: dict[str, Any]) -> None:
        value["torch_dtype" if "torch_dtype" in value and "dtype" not in value else "dtype"] = "float32"

    def in_index(value: dict[str, Any]) -> None:
        if "total_size" in (value.get("metadata") or {}):
            value["metadata"]["total_size"] = total

    change("config.json", in_configuration)
    for name in INDEXES:
        change(name, in_index)
