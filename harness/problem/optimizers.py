"""Optimizers by their class in `torch.optim`, and learning-rate schedules as factors over epochs."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import sys
from collections.abc import Iterable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from harness.config import OptimizerConfig, ScheduleConfig
from harness.method import Schedule
from harness.storage.cache import remembered
from harness.storage.keys import source_digest
from harness.validation import ConfigError, check_names, check_parameter, nearest, parameter_types, reason

if TYPE_CHECKING:
    import torch


def _optimizer_class(config: OptimizerConfig) -> type[torch.optim.Optimizer]:
    """The class that `_target_` names: one of `torch.optim`, or of a module that the caller has imported."""
    import torch

    key = f"optimizer.{config.name}._target_"
    module, _, name = config.target.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    if not inspect.isclass(found) or not issubclass(found, torch.optim.Optimizer) or found is torch.optim.Optimizer:
        raise ConfigError(
            f"{key} must be an optimizer of torch.optim, got {config.target!r}{nearest(name, _own_names())}"
        )
    closure = inspect.signature(found.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(f"{key} must step without a closure, got {config.target!r}")
    return found


def _own_names() -> list[str]:
    import torch

    return [
        n
        for n, c in vars(torch.optim).items()
        if inspect.isclass(c) and issubclass(c, torch.optim.Optimizer) and n != "Optimizer"
    ]


def make_optimizer(config: OptimizerConfig, parameters: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
    """A fresh optimizer over `parameters`, its rate the schedule's full rate."""
    return _optimizer_class(config)(list(parameters), **config.params)


def check_optimizer(config: OptimizerConfig) -> None:
    """ConfigError where the class, a parameter's name, its type or its value is refused.

    What one of torch's own classes has once taken is remembered for this version of torch, so that it need not be
    imported to be asked again.
    """
    if not config.target.startswith("torch.optim."):
        _try_out(config)
        return
    follows_from = [config.target, config.params, version("torch"), source_digest("harness.problem.optimizers")]
    key = hashlib.sha256(json.dumps(follows_from, sort_keys=True, default=repr).encode()).hexdigest()
    remembered("optimizers", key, lambda: _try_out(config), plain=lambda _: "taken", read=lambda _: None)


def _try_out(config: OptimizerConfig) -> None:
    """As `check_optimizer`, by asking the class."""
    cls = _optimizer_class(config)
    key = f"optimizer.{config.name}"
    known = {name: kind for name, kind in parameter_types(cls).items() if name != "params"}
    check_names(key, config.params, known)
    for name, value in config.params.items():
        check_parameter(f"{key}.{name}", known[name], value)
    error = _refusal(cls, config.params)
    if error is None:
        return
    said = reason(error)
    for name, value in config.params.items():
        if _refusal(cls, {k: v for k, v in config.params.items() if k != name}) is None:
            raise ConfigError(
                f"{key}.{name} must be a value that {cls.__name__} takes, got {value!r}: {said}"
            ) from error
    raise ConfigError(f"{key}: {said}") from error


def _refusal(cls: type[torch.optim.Optimizer], params: dict[str, Any]) -> Exception | None:
    """What a class says against parameters; one-dimensional weights, such as biases, must be welcome.

    The optimizer that is tried out takes its weights by plain assignment: torch's own `add_param_group` imports torch's
    compiler, which takes longer than all other checks together.
    """

    import torch

    def take(tried: torch.optim.Optimizer, group: dict[str, Any]) -> None:
        tried.param_groups.append({**tried.defaults, **group})

    try:
        type(cls.__name__, (cls,), {"add_param_group": take})([torch.zeros(1, requires_grad=True)], **params)
    except Exception as error:
        return error
    return None


def schedule(config: ScheduleConfig, epochs: int) -> Schedule:
    """The factor of the learning rate after e of `epochs` epochs, e fractional and taken at the END of a step.

    Taken there, warm-up never gives a first step of rate 0; the last step of a cosine has it instead. Linear
    warm-up e/w while e < w, then 1, or with `cosine` 0.5 (1 + cos(pi (e - w)/(E - w))) (Loshchilov and Hutter
    2017, eq. 5, without restarts). Raises ConfigError where the warm-up leaves no epoch.
    """
    warmup = config.warmup_epochs
    if warmup >= epochs:
        raise ConfigError(f"optimizer.schedule.warmup_epochs must be below epochs ({epochs}), got {warmup}")

    def factor(e: float) -> float:
        if e < warmup:
            return e / warmup
        if config.name == "none":
            return 1.0
        progress = min((e - warmup) / (epochs - warmup), 1.0)
        return 0.5 * (1.0 + math.cos(math.pi * progress))

    return factor
