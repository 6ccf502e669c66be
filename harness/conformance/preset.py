"""Checks of a preset's file and of what its class says before anything runs."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.config import ConfigError
from harness.conformance.clauses import Clause, breach
from harness.conformance.tiny import Subject
from harness.planning.methods import RESERVED, load_class, make_method, method_config

SEARCH_KEYS = {"int": {"low", "high", "log"}, "float": {"low", "high", "log"}, "categorical": {"choices"}}
"""keys of a `search` entry beside `type`; `log` may be left out"""


def _imports(path: Path, module: str) -> Iterator[str]:
    """Absolute names of what a module's source imports, functions and type checking included."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            parent = importlib.util.resolve_name(dots + (node.module or ""), package) if dots else node.module or ""
            yield from (f"{parent}.{alias.name}" for alias in node.names)


def _source(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return None
    origin = None if spec is None else spec.origin
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def _sources(module: str) -> dict[str, Path]:
    """A method's module and all it imports of its own: within its package, or single files in its folder."""
    package = module.split(".")[0]
    top = _source(package)
    found: dict[str, Path] = {}
    queue = [module]
    while queue:
        name = queue.pop()
        path = None if name in found else _source(name)
        if path is None or top is None:
            continue
        if name.split(".")[0] == package or path.parent == top.parent:
            found[name] = path
            for imported in _imports(path, name):
                queue += [imported, imported.rpartition(".")[0]]
    return found


class PresetChecks:
    """Checks for every kind."""

    def test_parameters_construct(self, subject: Subject) -> None:
        """The preset's own values, and those it has under `fast`, are parameters that the class takes."""
        fast = subject.values.get("fast") or {}
        for values in (subject.values, {**subject.values, **fast}):
            config = method_config(subject.cell.method.name, values)
            given = {name: value for name, value in values.items() if name not in RESERVED}
            assert given.items() <= config.params.items(), breach(Clause.PARAMETERS, f"{given} become {config.params}")
        unknown = set(fast) - set(config.params)
        assert not unknown, breach(Clause.PARAMETERS, f"fast has {', '.join(sorted(unknown))}")

    def test_unknown_parameter_is_refused(self, subject: Subject) -> None:
        """With the name that was probably meant."""
        known = sorted(subject.cell.method.params)
        wrong, meant = (f"{known[0]}x", known[0]) if known else ("no_such_parameter", "batchnorm")
        with pytest.raises(ConfigError) as refusal:
            method_config(subject.cell.method.name, {**subject.values, wrong: 1})
        refused, _, offered = str(refusal.value).partition(";")
        assert wrong in refused, breach(Clause.PARAMETERS, f"{wrong} is not named in {refusal.value}")
        assert meant in offered, breach(Clause.PARAMETERS, f"{meant} is not offered in {refusal.value}")

    def test_fast_values_fit_the_tiny_base(self, subject: Subject) -> None:
        """`needs` depends on the parameters and the epochs alone, and lies within the run."""
        first, last = subject.needs
        assert subject.make().needs(subject.epochs) == subject.cell.needs, breach(Clause.NEEDS, "it changes")
        assert first >= 0, breach(Clause.NEEDS, f"{first}..{last} begins before 0")
        assert last <= subject.epochs, breach(Clause.FITS, f"{first}..{last} in a base of {subject.epochs} epochs")

    def test_memory_is_a_count(self, subject: Subject) -> None:
        count = subject.make().memory_floats(subject.base.N)
        assert isinstance(count, int), breach(Clause.MEMORY, f"{count!r} is not a whole number")
        assert count >= 0, breach(Clause.MEMORY, f"{count} is below 0")

    def test_search_space_names_parameters(self, subject: Subject) -> None:
        """Each entry of `search` has a known type and an order of bounds, and the class takes both ends.

        Beside the preset's other values, or beside the lowest or highest of the other entries, which may bound it.
        """
        method, space = subject.cell.method, subject.values.get("search") or {}
        for name in space:
            what = f"method.{method.name}.search.{name} is not one of them"
            assert name in method.params, breach(Clause.PARAMETERS, what)
        ends = {name: self._ends(f"method.{method.name}.search.{name}", entry) for name, entry in space.items()}
        beside = [{}, {name: values[0] for name, values in ends.items()}, {n: v[-1] for n, v in ends.items()}]
        for name, values in ends.items():
            for value in values:
                refusals = [self._refusal(subject, {**others, name: value}) for others in beside]
                what = f"method.{method.name}.search.{name} allows {value!r}: {refusals[0]}"
                assert None in refusals, breach(Clause.PARAMETERS, what)

    @staticmethod
    def _refusal(subject: Subject, values: dict[str, Any]) -> ConfigError | None:
        try:
            make_method(method_config(subject.cell.method.name, {**subject.values, **values}))
        except ConfigError as error:
            return error
        return None

    @staticmethod
    def _ends(key: str, entry: dict[str, Any]) -> list[Any]:
        """The values that a search entry names."""
        kind = entry.get("type")
        assert kind in SEARCH_KEYS, f"{key}.type must be one of {', '.join(SEARCH_KEYS)}, got {kind!r}"
        unknown = set(entry) - {"type"} - SEARCH_KEYS[kind]
        assert not unknown, f"{key} has no key {', '.join(sorted(unknown))}"
        if kind == "categorical":
            assert len(entry["choices"]) > 0, f"{key}.choices must have at least 1 value, got none"
            return list(entry["choices"])
        low, high, log = entry["low"], entry["high"], entry.get("log", False)
        number = int if kind == "int" else (int, float)
        assert isinstance(low, number), f"{key}.low must be of type {kind}, got {low!r}"
        assert isinstance(high, number), f"{key}.high must be of type {kind}, got {high!r}"
        assert low < high, f"{key}.low must be below high = {high}, got {low}"
        assert isinstance(log, bool), f"{key}.log must be true or false, got {log!r}"
        assert not log or low > 0, f"{key}.low must be above 0 on a logarithmic scale, got {low}"
        return [low, high]

    def test_imports_only_the_contract(self, subject: Subject) -> None:
        module = load_class("_target_", subject.cell.method.target).__module__
        for name, path in _sources(module).items():
            for imported in _imports(path, name):
                own = imported.split(".")[0] != "harness"
                allowed = imported.split(".")[:2] in (["harness", "method"], ["harness", "snapshots"])
                assert own or allowed, breach(Clause.IMPORTS, f"{path.name} imports {imported}")
