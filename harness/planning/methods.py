"""Methods from their presets: the class behind `_target_`, a setting's types, and what a method declares of itself.

What this project's own methods declare follows from their sources and settings, and is kept in the user's cache under
both: a plan whose settings were planned before imports no method, and so no torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.causes import own_line
from harness.config import MOST_EPOCHS, BaseConfig, MethodConfig, Text
from harness.method import Branch, Brancher, Exchange, Federation, Method, Observer, Reconstruction
from harness.packages import HOME, METHODS, other_methods, pin_methods
from harness.planning.compose import one_line
from harness.planning.vocabulary import LengthBounds, check_search_entry
from harness.storage.cache import remembered
from harness.storage.keys import source_digest
from harness.validation import (
    ConfigError,
    Faults,
    check_names,
    check_parameter,
    from_mapping,
    nearest,
    parameter_types,
    shown,
    validated,
)

RESERVED = ("_target_", "batchnorm", "search", "fast", "control", "lengths")
FURTHER = 50
"""epochs of a longer base, at most, in which a method is tried that does not fit its base"""
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
    federated: bool = False
    """whether it runs on a federation, and nowhere else"""
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
            f"{key} must lie in {' or in '.join([*packages, 'a folder given by --config-dir'])}, "
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
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise ConfigError(f"{key} must be a class that defines {' and '.join(missing)}, got {target!r}")
    return found


def with_lengths(name: str, values: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """A preset's values, and those of its `fast`, with whole numbers in place of shares of so many epochs.

    Parameters that `lengths` names are numbers of epochs or of what grows with them: a whole number is meant as it is,
    so that 1 is one epoch, and a number above 0 and below 1 is that share of the base's epochs, rounded half up and
    brought within the bounds that `lengths` gives; within a list each is above the one before. ConfigError where it is
    another number.
    """
    key, faults = f"method.{name}", Faults()
    lengths = validated(f"{key}.lengths", dict[str, dict[str, Any]] | None, values.get("lengths")) or {}
    whole = dict(values)
    places = {key: whole}
    if isinstance(whole.get("fast"), Mapping):
        places[f"{key}.fast"] = whole["fast"] = dict(whole["fast"])
    for parameter, given in lengths.items():
        bounds = faults.tried(from_mapping, LengthBounds, f"{key}.lengths.{parameter}", given)
        for place, inner in places.items():
            if bounds is not None and parameter in inner:
                with faults.gathered():
                    inner[parameter] = _whole(f"{place}.{parameter}", inner[parameter], epochs, bounds)
    faults.check()
    return whole


def _whole(key: str, value: Any, epochs: int, bounds: LengthBounds) -> Any:
    """A length as a whole number; what is neither a number nor a list stays as it is, for its class to judge."""
    if isinstance(value, list):
        found: list[Any] = []
        for one in value:
            number = _whole(key, one, epochs, bounds)
            follows = isinstance(one, float) and found and isinstance(found[-1], int)
            found.append(max(number, found[-1] + 1) if follows else number)
        return found
    if not isinstance(value, float):
        return value
    if not 0 < value < 1:
        raise ConfigError(f"{key} must be a whole number, or a share of the epochs above 0 and below 1, got {value}")
    number = max(math.floor(round(value * epochs, 9) + 0.5), bounds.least)
    return number if bounds.most is None else min(number, bounds.most)


def shares(values: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The parameters that a preset gives as shares of the epochs, by name: the share, and the number of `with_lengths`.

    Both may be lists.
    """
    lengths = values.get("lengths") or {}
    return {name: (values[name], whole[name]) for name in lengths if name in values and values[name] != whole[name]}


def method_config(name: str, values: Mapping[str, Any]) -> MethodConfig:
    """A method's setting from its preset's values, defaults filled in.

    ConfigError, with all that is wrong, where parameters, those of `fast` or entries of `search` are unknown or of
    another type. Whether the class takes the values, `fit_method` and `make_method` find out.
    """
    key, faults = f"method.{name}", Faults()
    target = validated(f"{key}._target_", Text, values.get("_target_"))
    cls = _method_class(name, target)
    types, defaults = parameter_types(cls), inspect.signature(cls).parameters
    fast = faults.tried(validated, f"{key}.fast", dict[str, Any] | None, values.get("fast")) or {}
    for place, given in ((key, values), (f"{key}.fast", fast)):
        with faults.gathered():
            check_names(place, given, [*types, *RESERVED] if place == key else types)
        for parameter in (parameter for parameter in types if parameter in given):
            with faults.gathered():
                check_parameter(f"{place}.{parameter}", types[parameter], given[parameter])
    for parameter, declared in defaults.items():
        if parameter not in values and declared.default is declared.empty:
            faults.lines.append(f"{key}.{parameter} must be given")
    params = {parameter: values.get(parameter, declared.default) for parameter, declared in defaults.items()}
    search = faults.tried(validated, f"{key}.search", dict[str, Any] | None, values.get("search")) or {}
    for place, named in (("search", search), ("lengths", values.get("lengths") or {})):
        for parameter in named:
            if parameter not in params:
                faults.lines.append(f"{key}.{place}: no parameter named {parameter!r}{nearest(parameter, params)}")
    for parameter in [parameter for parameter in search if parameter in params]:
        with faults.gathered():
            check_search_entry(f"{key}.search.{parameter}", search[parameter])
    own = faults.tried(
        MethodConfig, name, target, params, values.get("batchnorm", "recalibrate"), {}, values.get("control")
    )
    faults.check()
    assert own is not None
    return dataclasses.replace(own, search=search)


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
        line = one_line(error)
        if line.startswith("a branch "):
            raise ConfigError(f"{key}: {line}, on a base of {epochs} epochs") from error
        if line.startswith("epochs ") and "epochs" not in config.params:  # the base's
            raise ConfigError(f"{line} (method {config.name})") from error
        raise ConfigError(f"{key}.{line}") from error
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
    federated = isinstance(made, Brancher) and made.federated
    return FittedMethod(config, made.kind, cadence, needs, branch, own_batch, read, made.memory_floats, federated)


def resolved_method(name: str, values: Mapping[str, Any], epochs: int) -> FittedMethod:
    """A preset's values as a setting for bases of so many epochs; ConfigError, naming the key, where they are refused.

    Lengths may be shares of the epochs (`with_lengths`). Of this project's own methods only what was never asked before
    is found out by building one.
    """
    target = validated(f"method.{name}._target_", Text, values.get("_target_"))
    whole = with_lengths(name, values, epochs)

    def find() -> FittedMethod:
        config = method_config(name, whole)
        try:
            return fit_method(config, epochs)
        except ConfigError as error:
            raise ConfigError(*_all_refusals(config, values, epochs, str(error))) from error

    def find_own() -> FittedMethod:
        fitted = find()
        return dataclasses.replace(fitted, memory_floats=partial(_memory_floats, fitted.config))

    if target.split(".")[0] not in OWN_PACKAGES:
        return find()
    asked = {"name": name, "values": whole, "epochs": epochs}
    return remembered("methods", _key(target, asked), find_own, _plain, _read)


def _all_refusals(config: MethodConfig, values: Mapping[str, Any], epochs: int, first: str) -> list[str]:
    """What a class has against the values of a setting in so many epochs, one line each.

    A class refuses one value at a time: those after the first are found with the class's own default in its place, as
    far as they do not follow from that.
    """
    defaults = inspect.signature(_method_class(config.name, config.target)).parameters
    setting, refusals, replaced, line = config, list[str](), set[str](), first
    while (named := re.match(rf"method\.{re.escape(config.name)}\.(\w+) ", line)) and named[1] in config.params:
        if replaced & set(re.findall(r"\w+", line)):
            break
        refusals.append(line + _what_fits(setting, named[1], values, epochs))
        replaced.add(named[1])
        default = defaults[named[1]].default
        if default is inspect.Parameter.empty:
            break
        setting = dataclasses.replace(setting, params={**setting.params, named[1]: default})
        try:
            fit_method(setting, epochs)
            break
        except ConfigError as error:
            line = str(error)
    return refusals or [first]


def _what_fits(setting: MethodConfig, parameter: str, values: Mapping[str, Any], epochs: int) -> str:
    """The end of a refusal of a parameter: which share of the epochs it is, and in how many epochs the setting fits;
    nothing where the parameter is a length that was given as a number, whose bound tells."""
    given = shares(values, with_lengths(setting.name, values, epochs))
    if parameter in (values.get("lengths") or {}) and parameter not in given and values.get(parameter) is not None:
        return ""
    said = f", {given[parameter][0]} of {epochs} epochs" if parameter in given else ""
    with contextlib.suppress(ConfigError):
        make_method(setting)
        for more in range(epochs + 1, epochs + 1 + FURTHER):
            whole = with_lengths(setting.name, values, more)
            longer = dataclasses.replace(setting, params=setting.params | {name: whole[name] for name in given})
            with contextlib.suppress(ConfigError):
                fit_method(longer, more)
                return f"{said}; it fits from epochs={more} on"
    return said


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
        federated=stored["federated"],
    )


def check_exchange(base: BaseConfig, config: MethodConfig) -> None:
    """ConfigError, naming the key, where an exchange does not run on a base's federation, or with its optimizer."""
    made, federation = make_method(config), base.federation
    assert isinstance(made, Exchange)
    asked = Federation(federation.clients, federation.taking_part, federation.local_epochs)
    try:
        made.check(asked, base.optimizer.target, base.optimizer.params)
    except (ValueError, ArithmeticError) as error:
        raise ConfigError(f"method.{config.name}.{one_line(error)}") from error


def _memory_floats(config: MethodConfig, N: int) -> int:
    """What a setting holds beside a model of N weights, in float32 values, remembered like the rest."""
    key = _key(config.target, {"params": config.params, "N": N})
    return remembered("method-memory", key, lambda: make_method(config).memory_floats(N), plain=int, read=int)


def as_plain(config: Any) -> dict[str, Any]:
    """A configuration dataclass as a plain dictionary."""
    return dataclasses.asdict(config)
