"""Search spaces: a method's `search` mapping, fitted to the epochs of its bases.

An entry is {type: int | float, low, high, log} or {type: categorical, choices}. A preset's own range is meant for runs
of every length: what does not fit a base is cut off, and said. A range that was asked for has to fit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from harness.config import ConfigError, MethodConfig
from harness.planning.methods import fit_method

GRID_LEAST = 2
"""values of a parameter in the coarsest grid"""


@dataclass(frozen=True)
class Space:
    """The parameters of a method that are searched, and where."""

    distributions: dict[str, BaseDistribution]

    @property
    def size(self) -> int | None:
        """Settings in the space; None where they cannot be counted."""
        sizes = [_values(distribution) for distribution in self.distributions.values()]
        return None if any(values is None for values in sizes) else math.prod(len(v) for v in sizes if v is not None)

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Whether a setting lies in the space."""
        return all(
            d._contains(d.to_internal_repr(params[name])) if _same_type(d, params[name]) else False
            for name, d in self.distributions.items()
        )

    def plain(self) -> dict[str, str]:
        """The space in words, to be compared and shown."""
        return {name: describe(distribution) for name, distribution in self.distributions.items()}

    def grid(self, points: int | None) -> list[dict[str, Any]]:
        """The finest grid with at most `points` settings (but at least 2 values each), every choice in it."""
        axes: dict[str, list[Any]] = {}
        count = GRID_LEAST
        while True:
            finer = {name: _axis(distribution, count) for name, distribution in self.distributions.items()}
            grown = [len(axis) for axis in finer.values()] != [len(axis) for axis in axes.values()]
            too_many = points is not None and math.prod(len(axis) for axis in finer.values()) > points
            if axes and (too_many or not grown):
                break
            axes, count = finer, count + 1
            if points is None and count > 10:
                break
        return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def describe(distribution: BaseDistribution) -> str:
    """`2..50 (log)` or `projected | chain`."""
    if isinstance(distribution, CategoricalDistribution):
        return " | ".join(map(str, distribution.choices))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return f"{distribution.low}..{distribution.high}" + (" (log)" if distribution.log else "")


def _same_type(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return isinstance(value, int | float) and not isinstance(value, bool)


def _values(distribution: BaseDistribution) -> list[Any] | None:
    """All values of a distribution that has finitely many."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    return list(range(distribution.low, distribution.high + 1)) if isinstance(distribution, IntDistribution) else None


def _axis(distribution: BaseDistribution, count: int) -> list[Any]:
    """At most `count` values of a range, evenly spaced on its scale; every choice of a categorical."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = float(distribution.low), float(distribution.high)
    places = [i / (count - 1) for i in range(count)]
    if distribution.log:
        values = [low * (high / low) ** place for place in places]
    else:
        values = [low + (high - low) * place for place in places]
    values[-1] = high
    return list(dict.fromkeys(round(v) for v in values)) if isinstance(distribution, IntDistribution) else values


def _distribution(entry: Mapping[str, Any]) -> BaseDistribution:
    if entry["type"] == "categorical":
        return CategoricalDistribution(entry["choices"])
    kind = IntDistribution if entry["type"] == "int" else FloatDistribution
    return kind(entry["low"], entry["high"], log=entry.get("log", False))


@dataclass(frozen=True)
class _Fitting:
    """Which values of one parameter some setting of the others goes with, in a base of so many epochs."""

    method: MethodConfig
    epochs: int
    others: dict[str, tuple[Any, ...]]
    """values that the other searched parameters may take: their defaults and the ends of their ranges, whole and cut"""

    def refusal(self, name: str, value: Any) -> str | None:
        """Why no setting with this value fits; None where one does."""
        others = {other: values for other, values in self.others.items() if other != name}
        first: str | None = None
        for values in itertools.product(*others.values()):
            params = {**self.method.params, **dict(zip(others, values, strict=True)), name: value}
            try:
                fit_method(replace(self.method, params=params), self.epochs)
            except ConfigError as error:
                first = first or str(error).removeprefix(f"method.{self.method.name}.")
            else:
                return None
        return first


def _ends(entry: Mapping[str, Any]) -> list[Any]:
    return list(entry["choices"]) if entry["type"] == "categorical" else [entry["low"], entry["high"]]


def make_space(
    method: MethodConfig, epochs: int, own: Mapping[str, Any], chosen: list[str] | None
) -> tuple[Space, list[str]]:
    """The space of a method on bases of so many epochs, and what was cut off, one line each.

    `own` is the preset's `search` as its file has it; `chosen` names the parameters to search, None all. ConfigError
    where a range that was asked for does not fit.
    """
    key = f"method.{method.name}.search"
    searched = {name: entry for name, entry in method.search.items() if chosen is None or name in chosen}
    fitting, cut = _fit(method, epochs, searched)
    distributions: dict[str, BaseDistribution] = {}
    lines = []
    for name, entry in searched.items():
        refusals = [(value, fitting.refusal(name, value)) for value in _ends(entry)]
        refused = next(((value, why) for value, why in refusals if why is not None), None)
        if refused is not None and entry != own.get(name):
            raise ConfigError(
                f"{key}.{name} must stay within what a base of {epochs} epochs allows, got {refused[0]!r}: {refused[1]}"
            )
        fitted = cut[name]
        if fitted is not None:
            distributions[name] = _distribution(fitted)
        if refused is not None:
            kept = f"it keeps {method.params[name]!r}" if fitted is None else describe(_distribution(fitted))
            lines.append(f"{method.name}.{name}: {describe(_distribution(entry))} becomes {kept}: {refused[1]}")
    return Space(distributions), lines


def _fit(
    method: MethodConfig, epochs: int, searched: Mapping[str, Mapping[str, Any]]
) -> tuple[_Fitting, dict[str, dict[str, Any] | None]]:
    """What fits of every entry, cut until no cut makes room for more of another.

    A dimension of 20 goes with a warm-up of 20 epochs, which is an end of the warm-up's range once that is cut.
    """
    cut: dict[str, dict[str, Any] | None] = {name: dict(entry) for name, entry in searched.items()}
    for _ in range(len(searched) + 1):
        others = {}
        for name, entry in searched.items():
            kept = cut[name]
            ends = [*_ends(entry), *([] if kept is None else _ends(kept))]
            others[name] = tuple(dict.fromkeys([method.params[name], *ends]))
        fitting = _Fitting(method, epochs, others)
        found = {name: _cut(entry, fitting, name) for name, entry in searched.items()}
        if found == cut:
            break
        cut = found
    return fitting, cut


def _cut(entry: Mapping[str, Any], fitting: _Fitting, name: str) -> dict[str, Any] | None:
    """The part of an entry that fits; None where nothing does, or where a range of real numbers cannot be cut."""
    if all(fitting.refusal(name, value) is None for value in _ends(entry)):
        return dict(entry)
    if entry["type"] == "float":
        return None
    whole = entry["choices"] if entry["type"] == "categorical" else range(entry["low"], entry["high"] + 1)
    kept = list(_fitting_values(whole, fitting, name))
    if not kept:
        return None
    return {**entry, "choices": kept} if entry["type"] == "categorical" else {**entry, "low": kept[0], "high": kept[-1]}


def _fitting_values(values: Any, fitting: _Fitting, name: str) -> Iterator[Any]:
    return (value for value in values if fitting.refusal(name, value) is None)
