"""Adopted runs in a plan: what stands for a model, a data set and an optimizer that this project does not know."""

from __future__ import annotations

from harness.checkpoints.runs import AdoptedRun
from harness.config import BaseConfig, ConfigError
from harness.planning.compose import Request
from harness.planning.methods import FittedMethod, make_method
from harness.planning.resolve import resolve


def classifier(model: str, dataset: str) -> BaseConfig:
    """A base of a timm classifier and a data set that are known here; ConfigError where one of them is not."""
    asked = (f"model={model}", f"dataset={dataset}", "method=base", "tracker=none")
    bases = resolve(Request(asked), "", compares=False).bases
    if len(bases) != 1:
        raise ConfigError(f"model and dataset must name one of each, got model={model} dataset={dataset}")
    return bases[0][0]


def check_replays(method: FittedMethod, run: AdoptedRun) -> None:
    """ConfigError, naming the method, where it cannot be replayed from an adopted run's snapshots."""
    key = f"method.{method.name}"
    if method.kind == "brancher":
        raise ConfigError(f"{key} must not train on its own, as an adopted run can only be read")
    if method.cadence not in (None, "epoch"):
        raise ConfigError(f"{key} must watch snapshots, as an adopted run has no steps between them")
    made = make_method(method.config)
    if made.needs_probe:
        raise ConfigError(f"{key} must not ask for the loss on a probe, which is of images that are not known here")
    first = method.needs[0] if method.needs is not None else 1
    if not run.has_initial and (first == 0 or method.config.params.get("include_initial") is True):
        raise ConfigError(f"{key} must not read w(0), which was not adopted (initial=FILE gives it)")
    if made.needs_even_steps and not run.is_even:
        low, high = min(run.gaps), max(run.gaps)
        raise ConfigError(f"{key} must have snapshots at equal distances, got {low:g} to {high:g} {run.unit}s apart")
