"""What a command line asks for, resolved: bases, each with its methods, and how to run them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.config import RECALIBRATED, BaseConfig, EvaluateConfig, Settings, StatisticsConfig, TuneConfig
from harness.planning.methods import FittedMethod


@dataclass(frozen=True)
class Experiment:
    """A resolved configuration, every value checked."""

    settings: Settings
    evaluate: EvaluateConfig
    bases: tuple[tuple[BaseConfig, tuple[FittedMethod, ...]], ...]
    command: str
    composed: dict[str, Any]
    """what Hydra composed, before entries of `bases` and `fast` were laid over it: what was asked for, for the plan"""
    tune: TuneConfig
    statistics: StatisticsConfig
    notes: tuple[str, ...] = ()
    """what a person must know of the settings, one line each"""
    added: tuple[str, ...] = ()
    """controls that were not asked for, and are here for comparison"""
    stated: dict[str, set[str]] = field(default_factory=dict)
    """by such a control the parameters that the suite or the command line state; all others follow its method's"""
    entries: tuple[tuple[str, str, str, dict[str, Any]], ...] = ()
    """model, dataset and optimizer of every base but its seed, and its values with all laid over them"""
    plain: str = RECALIBRATED
    """the method that stands for plain training"""
