"""Optimizers by their class in `torch.optim`, and learning-rate schedules as factors over epochs."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from harness.config import OptimizerConfig, ScheduleConfig
from harness.method import Schedule
from harness.packages import installed
from harness.storage.cache import remembered
from harness.storage.keys import source_digest
from harness.validation import ConfigError, Faults, check_names, check_parameter, nearest, parameter_types, reason

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
    follows_from = [config.target, config.params, installed("torch"), source_digest("harness.problem.optimizers")]
    key = hashlib.sha256(json.dumps(follows_from, sort_keys=True, default=repr).encode()).hexdigest()
    remembered("optimizers", key, lambda: _try_out(config), plain=lambda _: "taken", read=lambda _: None)


def _try_out(config: OptimizerConfig) -> None:
    """As `check_optimizer`, by asking the class."""
    cls = _optimizer_class(config)
    key = f"optimizer.{config.name}"
    known = {name: kind for name, kind in parameter_types(cls).items() if name != "params"}
    params, faults = dict(config.params), Faults()
    with faults.gathered():
        check_names(key, params, known)
    for name, value in config.params.items():
        if name in known:
            with faults.gathered():
                check_parameter(f"{key}.{name}", known[name], value)
                continue
        del params[name]
    while (error := _refusal(cls, params)) is not None and (params or not faults):
        said = reason(error)
        refused = next((name for name in params if _is_about(cls, params, name, said)), None)
        if refused is None:
            faults.lines += [] if faults else [f"{key}: {said}"]
            break
        value = params.pop(refused)
        faults.lines.append(f"{key}.{refused} must be a value that {cls.__name__} takes, got {value!r}: {said}")
    faults.check()


def _is_about(cls: type[torch.optim.Optimizer], params: dict[str, Any], name: str, said: str) -> bool:
    """Whether what a class says against parameters is about the one of that name: without it, it says nothing, or
    something else of another value."""
    error = _refusal(cls, {k: v for k, v in params.items() if k != name})
    return error is None or (reason(error) != said and not isinstance(error, TypeError))


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

    Taken there, warm-up never gives a first step of rate 0; the last step of a decay to 0 has it instead. Linear
    warm-up e/w while e < w (not for `one_cycle`), then with p = (e - w)/(E - w), the share of what is left:

    - constant: 1
    - cosine: f + (1 - f) 0.5 (1 + cos(pi p)) (Loshchilov and Hutter 2017, eq. 5, without restarts), f = `final`
    - linear: 1 - (1 - f) p
    - wsd: 1 up to the last share `decay` of the run, then f + (1 - f) s(u) with u the share of the decay that has
      passed; `shape` s: linear 1 - u, sqrt 1 - sqrt(u), square 1 - u^2, cosine 0.5 (1 + cos(pi u)) (Hu et al. 2024;
      Hägele et al. 2024)
    - step: `gamma` to the power of how many `milestones`, as shares of the run, have passed; the last step before a
      milestone belongs to what was before
    - one_cycle: a cosine from 1/25 to 1 over the share `rise`, then one down to f (Smith and Topin 2019, as torch's)

    ConfigError where the warm-up leaves no epoch, or `wsd` none between warm-up and decay.
    """
    warmup, name, values = config.warmup_epochs, config.name, config.values
    if warmup >= epochs:
        raise ConfigError(f"optimizer.schedule.warmup_epochs must be below epochs ({epochs}), got {warmup}")
    final = float(values.get("final", 0.0))
    start = epochs * (1 - values["decay"]) if name == "wsd" else 0.0
    if name == "wsd" and start < warmup:
        raise ConfigError(
            f"optimizer.schedule.decay must leave the warm-up of {warmup:g} epochs, at most {1 - warmup / epochs:g}, "
            f"got {values['decay']}"
        )

    def factor(e: float) -> float:
        if e < warmup:
            return e / warmup
        progress = min((e - warmup) / (epochs - warmup), 1.0)
        if name == "cosine":
            fall = 0.5 * (1.0 + math.cos(math.pi * progress))
            return fall if final == 0 else final + (1.0 - final) * fall
        if name == "linear":
            return 1.0 - (1.0 - final) * progress
        if name == "wsd":
            passed = min(max(e - start, 0.0) / (epochs - start), 1.0)
            return final + (1.0 - final) * _SHAPES[values["shape"]](passed)
        if name == "step":
            return float(values["gamma"] ** sum(e > share * epochs + 1e-9 for share in values["milestones"]))
        if name == "one_cycle":
            return _one_cycle(progress, values["rise"], final)
        return 1.0

    return factor


_SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda u: 1.0 - u,
    "sqrt": lambda u: 1.0 - math.sqrt(u),
    "square": lambda u: 1.0 - u * u,
    "cosine": lambda u: 0.5 * (1.0 + math.cos(math.pi * u)),
}


def _one_cycle(progress: float, rise: float, final: float) -> float:
    first, low, high = (
        (progress / rise, 1 / 25, 1.0) if progress < rise else ((progress - rise) / (1 - rise), 1.0, final)
    )
    return high + (low - high) * 0.5 * (1.0 + math.cos(math.pi * first))
