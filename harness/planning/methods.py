"""Classes behind `_target_`, and methods made from their settings."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.config import ConfigError, MethodConfig, nearest
from harness.method import Brancher, Method, Observer, Reconstruction

RESERVED = ("_target_", "batchnorm", "search", "fast")
OWN_PACKAGES = ("baselines",)


def make_importable(folders: Iterable[Path]) -> None:
    """Let the modules in folders given by --config-dir be imported; ConfigError where one is no folder."""
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir must be a folder, got {folder}")
        if str(folder.resolve()) not in sys.path:
            sys.path.append(str(folder.resolve()))


def check_allowed(key: str, target: str, folders: Iterable[Path], packages: Iterable[str] = OWN_PACKAGES) -> None:
    """A `_target_` may name this project's packages, and modules in the folders given by --config-dir."""
    top = target.split(".")[0]
    if top in packages:
        return
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        raise ConfigError(f"{key} must name an importable class, got {target!r}: no module named {top!r}")
    if not any(Path(spec.origin).resolve().is_relative_to(folder.resolve()) for folder in folders):
        raise ConfigError(
            f"{key} must lie in {', '.join(packages)} or in a folder given by --config-dir, "
            f"got {target!r} in {spec.origin}"
        )


def load_class(key: str, target: str) -> type[Any]:
    """The class that a `_target_` names."""
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{key} must name an importable class, got {target!r}: {error}") from error
    if not inspect.isclass(found):
        raise ConfigError(f"{key} must name a class, got {target!r}")
    return found


def method_config(name: str, values: Mapping[str, Any]) -> MethodConfig:
    """A method's setting from its preset's values, checked by making one; defaults filled in."""
    key = f"method.{name}"
    cls = load_class(f"{key}._target_", values["_target_"])
    if not issubclass(cls, Observer | Reconstruction | Brancher):
        raise ConfigError(f"{key}._target_ must be an Observer, Reconstruction or Brancher, got {values['_target_']!r}")
    known = inspect.signature(cls).parameters
    params = {k: v for k, v in values.items() if k not in RESERVED}
    for parameter in params:
        if parameter not in known:
            raise ConfigError(f"{key} has no key {parameter!r}{nearest(parameter, [*known, *RESERVED[1:]])}")
    for parameter, spec in known.items():
        if parameter not in params and spec.default is spec.empty:
            raise ConfigError(f"{key}.{parameter} must be given")
    params = {p: params.get(p, spec.default) for p, spec in known.items()}
    config = MethodConfig(
        name, values["_target_"], params, values.get("batchnorm", "recalibrate"), dict(values.get("search") or {})
    )
    method = make_method(config)
    if config.batchnorm == "averaged" and not method.proposes_buffers:
        raise ConfigError(
            f"{key}.batchnorm must be recalibrate or as_is for a method that models no buffers, got averaged"
        )
    return config


def make_method(config: MethodConfig) -> Method:
    """A fresh method; ConfigError naming the key where a parameter is refused."""
    cls = load_class(f"method.{config.name}._target_", config.target)
    try:
        method: Method = cls(**config.params)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"method.{config.name}.{error}") from error
    return method


def check_fits(config: MethodConfig, epochs: int) -> None:
    """ConfigError, naming the key, where a setting does not fit a base of so many epochs."""
    made = make_method(config)
    try:
        made.needs(epochs)
        prefix = made.branch(epochs).prefix if isinstance(made, Brancher) else 0
    except ValueError as error:
        raise ConfigError(f"method.{config.name}.{error}") from error
    if prefix > epochs:
        raise ConfigError(f"method.{config.name} must leave its base at an epoch of at most {epochs}, got {prefix}")


def as_plain(config: Any) -> dict[str, Any]:
    """A configuration dataclass as a plain dictionary."""
    return dataclasses.asdict(config)
