"""Which part of a pickled checkpoint are the weights, and what the rest says of when it was written.

Writers keep the weights under a handful of names, beside the state of an optimizer and maybe an average; the names are
tried in a fixed order, the raw weights of a training run before an average of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.checkpoints.errors import NoWeights, Unreadable
from harness.checkpoints.inert import Inert, TensorOf, module_tensors
from harness.validation import nearest, shown

RAW = ("current_model_state", "state_dict", "model", "model_state_dict", "module")
EMA = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
AVERAGED_BESIDE = ("current_model_state", "state_dict")
"""Lightning's averaging keeps the raw weights in the first of these and the average in the second"""
STEPS = ("global_step", "step", "iteration", "num_updates")
OPTIMIZERS = ("optimizer", "optimizer_state_dict", "optimizer_states", "optim")
TOP = "the top level"


@dataclass
class Facts:
    """What a checkpoint says of itself beside its weights; epochs are completed ones."""

    step: int | None = None
    epoch: float | None = None
    seed: int | None = None
    optimized: int | None = None
    """how many tensors its optimizer has"""
    rows: list[dict[str, float]] = field(default_factory=list)
    """metrics of the run so far, each with its `step` where that is known"""


@dataclass(frozen=True)
class Taken:
    """The tensors of an entry by their names, in their order; `parameters`: which of them are, where the entry says."""

    name: str
    tensors: dict[str, TensorOf]
    parameters: tuple[str, ...] | None = None


def as_mapping(value: Any) -> dict[str, Any] | None:
    """A mapping with texts as keys, also one of a class of its own; None where the value is none."""
    pairs = value.items() if isinstance(value, Mapping) else value.pairs if isinstance(value, Inert) else ()
    found = {key: inner for key, inner in pairs if isinstance(key, str)}
    return found or None


def _state_dict(name: str, value: Any, what: str) -> Taken | None:
    """The tensors of a state dict or of a pickled module; None where the value is neither."""
    if isinstance(value, Inert) and (parts := module_tensors(value)) is not None:
        parameters, buffers = parts
        once = {tensor: key for key, tensor in reversed(parameters.items())}  # a tied one is named by its first name
        trained = tuple(key for key, tensor in parameters.items() if tensor.requires_grad and once[tensor] == key)
        return Taken(name, {**parameters, **buffers}, trained)
    found = as_mapping(value) or {}
    for key, inner in found.items():
        if isinstance(inner, Inert) and inner.named.endswith("_rebuild_qtensor"):
            raise Unreadable(f"{what}: quantised weights, which have no values of their own to average: tensor {key}")
        if isinstance(inner, Inert) and "_rebuild_sparse" in inner.named:
            raise Unreadable(f"{what}: sparse weights are not read: tensor {key}")
    tensors = {key: inner for key, inner in found.items() if isinstance(inner, TensorOf)}
    # a state of random streams is of bytes alone
    return Taken(name, tensors) if any(inner.dtype.is_floating_point for inner in tensors.values()) else None


def take(value: Any, entry: str, what: str) -> Taken:
    """The weights of a checkpoint's value by `entry`: auto, raw, ema or a dotted key.

    NoWeights where there are none, Unreadable where the entry is unknown; both name the file `what`.
    """
    whole = as_mapping(value) or {}
    if entry not in ("auto", "raw", "ema"):
        return _dotted(whole, entry, what)
    if entry == "ema":
        names = [AVERAGED_BESIDE[1]] if all(name in whole for name in AVERAGED_BESIDE) else [*EMA]
    else:
        names = [*RAW]
    for name in names:
        if name in whole and (found := _state_dict(name, whole[name], what)) is not None:
            return found
    known = _entries(whole)
    if entry == "ema":
        has = ", ".join(known) or "none"
        raise Unreadable(f"{what}: entry must be among its entries with weights ({has}), got ema")
    found = _state_dict(TOP, value, what)
    if found is not None and not _is_optimizer(whole):
        return found
    if any(name not in OPTIMIZERS for name in known):
        raise Unreadable(f"{what}: entry must name one of its entries with weights ({', '.join(known)}), got {entry}")
    raise NoWeights(
        f"{what}: holds no weights of a model" + (", but an optimizer's state" if _optimizer(whole) else "")
    )


def _dotted(whole: dict[str, Any], entry: str, what: str) -> Taken:
    here: Any = whole
    for part in entry.split("."):
        inside = as_mapping(here) or {}
        if part not in inside:
            known = list(_entries(whole))
            raise Unreadable(f"{what}: entry: none named {shown(entry)}{nearest(entry, known)}")
        here = inside[part]
    found = _state_dict(entry, here, what)
    if found is None:
        raise Unreadable(f"{what}: entry must name weights, got {shown(entry)}, which holds none")
    return found


def _entries(whole: Mapping[str, Any], below: str = "", depth: int = 2) -> list[str]:
    """Dotted keys of all that looks like weights."""
    names: list[str] = []
    for key, inner in whole.items():
        if key in OPTIMIZERS or isinstance(inner, TensorOf):
            continue
        inside = as_mapping(inner)
        is_module = isinstance(inner, Inert) and module_tensors(inner) is not None
        if is_module or any(isinstance(one, TensorOf) for one in (inside or {}).values()):
            names.append(f"{below}{key}")
        elif inside is not None and depth > 1:
            names += _entries(inside, f"{below}{key}.", depth - 1)
    return names


def _is_optimizer(whole: Mapping[str, Any]) -> bool:
    return "param_groups" in whole and "state" in whole


def _optimizer(whole: Mapping[str, Any]) -> Any:
    if _is_optimizer(whole):
        return whole
    return next((whole[name] for name in OPTIMIZERS if name in whole), None)


def facts_of(value: Any) -> Facts:
    """What a checkpoint's value says of its step and epoch. An epoch of 0 is one that has been completed."""
    whole = as_mapping(value) or {}
    step = next((found for name in STEPS if (found := _whole(whole.get(name))) is not None), None)
    epoch = _whole(whole.get("epoch"))
    return Facts(step=step, epoch=None if epoch is None else epoch + 1, optimized=optimized(value))


def optimized(value: Any) -> int | None:
    """How many tensors the optimizer of a checkpoint's value has; None where it has none."""
    found = _optimizer(as_mapping(value) or {})
    if isinstance(found, list) and found:
        found = found[0]
    groups = (as_mapping(found) or {}).get("param_groups")
    if not isinstance(groups, list):
        return None
    counts = [(as_mapping(group) or {}).get("params") for group in groups]
    return sum(len(count) for count in counts if isinstance(count, list)) or None


def _whole(value: Any) -> int | None:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if number is None or not math.isfinite(number) or number != int(number) or number < 0:
        return None
    return int(number)
