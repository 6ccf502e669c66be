"""Methods from their presets: the class behind `_target_`, a setting's types, and what a method declares of itself.

What this project's own methods declare follows from their sources and settings, and is kept in the user's cache under
both: a plan whose settings were planned before imports no method, and so no torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.causes import own_line
from harness.config import MOST_EPOCHS, MethodConfig, Text
from harness.method import Branch, Brancher, Method, Observer, Reconstruction
from harness.packages import HOME, METHODS, other_methods, pin_methods
from harness.planning.compose import one_line
from harness.planning.vocabulary import check_search_entry
from harness.storage.cache import remembered
from harness.storage.keys import source_digest
from harness.validation import ConfigError, check_names, check_parameter, nearest, parameter_types, shown, validated

RESERVED = ("_target_", "batchnorm", "search", "fast", "control")
OWN_PACKAGES = (METHODS,)
pin_methods()


@dataclass(frozen=True)
class FittedMethod:
    """A setting of a method for bases of so many epochs, with what the method declares there."""

    config: MethodConfig
    kind: str
    cadence: str | int | None
    """an observer's"""
    needs: tuple[int, int] | None
    """first and last t of the stored snapshots that it reads"""
    branch: Branch | None
    """a brancher's"""
    batch_size: int | None
    """a brancher's own, None where it has the base's"""
    epochs_read: int
    """the last epoch of its base that an observer or a reconstruction reads"""
    memory_floats: Callable[[int], int]
    """float32 values held beside a model of so many weights"""
    changed: dict[str, Any] = dataclasses.field(default_factory=dict)
    """the parameters that were given other values than the preset's"""

    @property
    def name(self) -> str:
        return self.config.name


def make_importable(folders: Iterable[Path]) -> None:
    """Let the modules in folders given by --config-dir be imported; ConfigError where one is no folder."""
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir must be a folder, got {folder}")
        if str(folder.resolve()) not in sys.path:
            sys.path.append(str(folder.resolve()))


def check_allowed(key: str, target: str, folders: Iterable[Path], packages: Iterable[str] = OWN_PACKAGES) -> None:
    """ConfigError where a `_target_` lies neither in this project's packages nor in a folder given by --config-dir."""
    top = target.split(".")[0]
    if top == METHODS and (other := other_methods()) is not None:
        raise ConfigError(f"{key} must lie in {HOME / METHODS}, but another {METHODS} was imported before: {other}")
    if top in packages:
        return
    spec = importlib.util.find_spec(top) if top.isidentifier() else None
    if spec is None or spec.origin is None:
        raise ConfigError(f"{key} must name an importable class, got {target!r}: no module named {top!r}")
    if not any(Path(spec.origin).resolve().is_relative_to(folder.resolve()) for folder in folders):
        raise ConfigError(
            f"{key} must lie in {', '.join(packages)} or in a folder given by --config-dir, "
            f"got {target!r} in {spec.origin}"
        )


def load_class(key: str, target: str) -> type[Any]:
    """The class that a `_target_` names; ConfigError where it cannot be imported or is no class."""
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ConfigError(f"{key} must name an importable class, got {target!r}: {_placed(error)}") from error
    if not inspect.isclass(found):
        raise ConfigError(f"{key} must name a class, got {target!r}")
    return found


def _placed(error: Exception) -> str:
    """What an exception says, with the line of a person's own code that it comes from."""
    where = own_line(error)
    return one_line(error) if where is None else f"{one_line(error)} (at {where})"


def _method_class(name: str, target: str) -> type[Method]:
    key = f"method.{name}._target_"
    found = load_class(key, target)
    if not issubclass(found, Observer | Reconstruction | Brancher):
        raise ConfigError(f"{key} must be an Observer, Reconstruction or Brancher, got {target!r}")
    return found


def method_config(name: str, values: Mapping[str, Any]) -> MethodConfig:
    """A method's setting from its preset's values, defaults filled in.

    ConfigError where a parameter, one of `fast` or an entry of `search` is unknown or of another type. Whether the
    class takes the values, `fit_method` and `make_method` find out.
    """
    key = f"method.{name}"
    target = validated(f"{key}._target_", Text, values.get("_target_"))
    cls = _method_class(name, target)
    types, defaults = parameter_types(cls), inspect.signature(cls).parameters
    fast = values.get("fast")
    for place, given in ((key, values), (f"{key}.fast", validated(f"{key}.fast", dict[str, Any] | None, fast) or {})):
        check_names(place, given, [*types, *RESERVED] if place == key else types)
        for parameter in given.keys() & types.keys():
            check_parameter(f"{place}.{parameter}", types[parameter], given[parameter])
    for parameter, declared in defaults.items():
        if parameter not in values and declared.default is declared.empty:
            raise ConfigError(f"{key}.{parameter} must be given")
    params = {parameter: values.get(parameter, declared.default) for parameter, declared in defaults.items()}
    search = validated(f"{key}.search", dict[str, Any] | None, values.get("search")) or {}
    for parameter, entry in search.items():
        if parameter not in params:
            raise ConfigError(f"{key}.search: no parameter named {parameter!r}{nearest(parameter, params)}")
        check_search_entry(f"{key}.search.{parameter}", entry)
    return MethodConfig(name, target, params, values.get("batchnorm", "recalibrate"), search, values.get("control"))


def make_method(config: MethodConfig) -> Method:
    """A fresh method; ConfigError naming the key where a parameter is refused."""
    cls, key = _method_class(config.name, config.target), f"method.{config.name}"
    try:
        return cls(**config.params)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ConfigError(f"{key}.{one_line(error)}") from error
    except Exception as error:
        raise ConfigError(
            f"{key} must be made of these values, got {type(error).__name__}: {_placed(error)}"
        ) from error


def fit_method(config: MethodConfig, epochs: int) -> FittedMethod:
    """What a setting declares for bases of so many epochs; ConfigError, naming the key, where it does not fit them."""
    made, key = make_method(config), f"method.{config.name}"
    if config.batchnorm == "averaged" and not made.proposes_buffers:
        raise ConfigError(
            f"{key}.batchnorm must be recalibrate or as_is for a method that models no buffers, got averaged"
        )
    try:
        needs = made.needs(epochs)
        branch = made.branch(epochs) if isinstance(made, Brancher) else None
    except (ValueError, ArithmeticError) as error:
        raise ConfigError(f"{key}.{one_line(error)}") from error
    if branch is not None and branch.prefix > epochs:
        raise ConfigError(f"{key} must leave its base at an epoch of at most {epochs}, got {branch.prefix}")
    if branch is not None and branch.epochs > MOST_EPOCHS:
        raise ConfigError(f"{key} must train at most {MOST_EPOCHS} epochs of its own, got {shown(branch.epochs)}")
    cadence = made.cadence if isinstance(made, Observer) else None
    if cadence is not None and cadence != "epoch" and not (isinstance(cadence, int) and cadence >= 1):
        raise ConfigError(f"{key} must have a cadence of epoch or at least 1 step, got {shown(cadence)}")
    own_batch = made.batch_size if isinstance(made, Brancher) else None
    read = made.epochs_read(epochs)
    if not 0 <= read <= epochs:
        raise ConfigError(f"{key} must read its base up to an epoch of 0 to {epochs}, got {shown(read)}")
    return FittedMethod(config, made.kind, cadence, needs, branch, own_batch, read, made.memory_floats)


def resolved_method(name: str, values: Mapping[str, Any], epochs: int) -> FittedMethod:
    """A preset's values as a setting for bases of so many epochs; ConfigError, naming the key, where they are refused.

    Of this project's own methods only what was never asked before is found out by building one.
    """
    target = validated(f"method.{name}._target_", Text, values.get("_target_"))
    if target.split(".")[0] not in OWN_PACKAGES:
        return fit_method(method_config(name, values), epochs)

    def find() -> FittedMethod:
        fitted = fit_method(method_config(name, values), epochs)
        return dataclasses.replace(fitted, memory_floats=partial(_memory_floats, fitted.config))

    return remembered("methods", _key(target, {"name": name, "values": values, "epochs": epochs}), find, _plain, _read)


def _key(target: str, asked: dict[str, Any]) -> str:
    """Of a question to a method, under its source, the contract's and that of the checks here."""
    modules = (target.rpartition(".")[0], "harness.method", "harness.planning.methods")
    follows_from = {"target": target, "sources": [source_digest(module) for module in modules], **asked}
    return hashlib.sha256(json.dumps(follows_from, sort_keys=True, default=repr).encode()).hexdigest()


def _plain(fitted: FittedMethod) -> dict[str, Any]:
    shallow = {f.name: getattr(fitted, f.name) for f in dataclasses.fields(fitted) if f.name != "memory_floats"}
    return shallow | {
        "config": asdict(fitted.config),
        "branch": None if fitted.branch is None else asdict(fitted.branch),
    }


def _read(stored: dict[str, Any]) -> FittedMethod:
    """The inverse of `_plain`."""
    config, needs, branch = MethodConfig(**stored["config"]), stored["needs"], stored["branch"]
    return FittedMethod(
        config=config,
        kind=str(stored["kind"]),
        cadence=stored["cadence"],
        needs=None if needs is None else (int(needs[0]), int(needs[1])),
        branch=None if branch is None else Branch(**branch),
        batch_size=stored["batch_size"],
        epochs_read=int(stored["epochs_read"]),
        memory_floats=partial(_memory_floats, config),
    )


def _memory_floats(config: MethodConfig, N: int) -> int:
    """What a setting holds beside a model of N weights, in float32 values, remembered like the rest."""
    key = _key(config.target, {"params": config.params, "N": N})
    return remembered("method-memory", key, lambda: make_method(config).memory_floats(N), plain=int, read=int)


def as_plain(config: Any) -> dict[str, Any]:
    """A configuration dataclass as a plain dictionary."""
    return dataclasses.asdict(config)
