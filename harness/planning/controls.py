"""The controls of chosen methods, which are there by themselves.

Beside the chosen methods run the recalibrated base, what a method names as its `control`, and the controls of
`statistics.primary`, where these only watch epochs or rebuild the run: that costs a replay. A control that trains on
its own or watches every step is named instead, and has to be chosen.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config import RECALIBRATED, StatisticsConfig
from harness.planning.compose import Composition, KeyPath, Values, available, load_yaml, overlay
from harness.planning.methods import RESERVED, FittedMethod
from harness.validation import ConfigError

PLAIN = {"base", RECALIBRATED}
"""the base itself: where nothing else is chosen, there is nothing to compare"""


@dataclass
class Controls:
    """The controls that were added to a composition, and what becomes of them on its bases."""

    names: tuple[str, ...] = ()
    stated: dict[str, set[str]] = field(default_factory=dict)
    """by control the parameters that the suite or the command line state; all others follow the method's"""
    primary: tuple[tuple[str, str], ...] = ()
    kept: dict[str, dict[str, None]] = field(default_factory=dict)
    """by control that is there the methods that it is for"""
    left_out: dict[str, str] = field(default_factory=dict)
    """by control that is not there the reason"""
    plain: str = RECALIBRATED
    """the control of all"""

    def of(self, methods: Iterable[FittedMethod]) -> dict[str, FittedMethod | None]:
        """The added controls that methods of one base need, each with the first method that names it; None for the
        recalibrated base, which is for all."""
        found: dict[str, FittedMethod | None] = {}
        for method in methods:
            if method.name in self.names:
                continue
            if method.name not in PLAIN:
                found.setdefault(self.plain, None)
            own = [method.config.control, *(control for name, control in self.primary if name == method.name)]
            for control in own:
                if control is not None:
                    found.setdefault(control, method)
        return {name: method for name, method in found.items() if name in self.names}

    def fit(
        self,
        presets: Mapping[str, Values],
        methods: tuple[FittedMethod, ...],
        resolved: Callable[[str, Values], FittedMethod],
    ) -> tuple[FittedMethod, ...]:
        """The methods of one base with the controls that they need, where these cost a replay and fit the base.

        `presets`: the values of all, by name; `resolved` builds a method of its values.
        """
        added: list[FittedMethod] = []
        for name, method in self.of(methods).items():
            if name not in presets:  # `without` leaves it out
                continue
            try:
                control = self._like(name, presets[name], method, resolved)
            except ConfigError as error:
                self.left_out.setdefault(name, str(error))
                continue
            if control.kind == "reconstruction" or (control.kind == "observer" and control.cadence == "epoch"):
                added.append(control)
                self.kept.setdefault(name, {}).setdefault("all" if method is None else method.name)
            else:
                how = "it trains on its own" if control.kind == "brancher" else "it watches every step"
                self.left_out.setdefault(name, f"{how}, method=[...,{name}] adds it")
        begin = next((place for place, method in enumerate(methods, 1) if method.name == "base"), 0)
        first = [control for control in added if control.name == self.plain]
        return (*methods[:begin], *first, *methods[begin:], *(c for c in added if c.name != self.plain))

    def _like(
        self, name: str, preset: Values, method: FittedMethod | None, resolved: Callable[[str, Values], FittedMethod]
    ) -> FittedMethod:
        """A control with the parameters that it has in common with its method, such as a warm-up's length; in a control
        of another kind these mean something else, and it has its own."""
        params = {} if method is None else method.config.params
        common = {key: params[key] for key in (preset.keys() & params.keys()) - self.stated[name] - {*RESERVED}}
        try:
            control = resolved(name, {**preset, **common})
        except ConfigError:
            control = resolved(name, preset)
            if method is None or control.kind == method.kind:
                raise
        return resolved(name, preset) if method is not None and control.kind != method.kind else control

    def notes(self) -> Iterator[str]:
        """What is added and what is not, a line each."""
        if self.kept:
            words = [
                name if "all" in methods else f"{name} (of {', '.join(methods)})" for name, methods in self.kept.items()
            ]
            yield f"controls added: {', '.join(words)}"
        missing = {name: reason for name, reason in self.left_out.items() if name not in self.kept}
        if missing:
            yield f"controls not added: {'; '.join(f'{name}: {reason}' for name, reason in missing.items())}"


def add_controls(
    composed: Composition, statistics: StatisticsConfig, config_dirs: tuple[Path, ...], plain: str = RECALIBRATED
) -> Controls:
    """Put the presets of controls that are missing among a composition's methods, in place; `plain`: that of all."""
    methods, chosen = composed.values["method"], composed.chosen["method"]
    presets = available("method", config_dirs)
    if "all" in chosen or set(chosen) <= PLAIN:
        return Controls()
    primary = tuple(statistics.comparisons(())) if statistics.primary is not None else ()
    entries = [of for entry in composed.values["bases"] or () if isinstance(of := entry.get("method"), dict)]
    own = [values for of in (methods, *entries) for name in chosen if isinstance(values := of.get(name), dict)]
    named = [control for values in own if isinstance(control := values.get("control"), str)]
    named += [control for method, control in primary if method in chosen]
    missing = [name for name in dict.fromkeys([plain, *named]) if name in presets and name not in chosen]
    stated: dict[str, set[str]] = {}
    for name in missing:
        preset, values = load_yaml(presets[name]).get(name), methods.get(name) or {}
        if not isinstance(preset, dict) or "_target_" not in preset:
            continue  # it builds on another preset, and has to be chosen
        everywhere = [values, *(given for of in entries if isinstance(given := of.get(name), dict))]
        stated[name] = {key for given in everywhere for key in given} - {*RESERVED}
        whole = copy.deepcopy(preset)
        overlay(whole, values, set[KeyPath]())
        methods[name] = whole
    composed.chosen["method"] = [*chosen, *stated]
    return Controls(tuple(stated), stated, primary, plain=plain)


def without(entry: Mapping[str, Any], methods_chosen: bool, controls: Controls) -> list[str]:
    """The methods that an entry of `bases` leaves out: where the command line chooses methods, added controls alone."""
    return [name for name in entry.get("without") or () if not methods_chosen or name in controls.names]
