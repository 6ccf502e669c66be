"""What a command line asks for, resolved: bases, each with its methods, and how to run them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.config import RECALIBRATED, BaseConfig, EvaluateConfig, Settings, StatisticsConfig, TuneConfig
from harness.planning.methods import FittedMethod


class Entry(NamedTuple):
    """What bases that differ in their seeds alone have in common."""

    model: str
    dataset: str
    optimizer: str
    federation: str
    values: dict[str, Any]
    """with all laid over them"""

    @property
    def names(self) -> dict[str, str]:
        """The presets by group."""
        return {group: getattr(self, group) for group in ("model", "dataset", "optimizer", "federation")}

    @property
    def problem(self) -> str:
        """As `BaseConfig.problem` has it."""
        return "-".join([self.model, self.dataset, *([self.federation] if self.clients else []), self.optimizer])

    @property
    def clients(self) -> int:
        """Of the federation; 0 where there is none."""
        return int(self.values["federation"][self.federation]["clients"])


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
    entries: tuple[Entry, ...] = ()
    plain: str = RECALIBRATED
    """the method that stands for plain training"""
