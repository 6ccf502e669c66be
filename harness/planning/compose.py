"""From the command line to composed values: Hydra composes, `resolve.py` and `config.py` validate.

Precedence: preset < suite < an entry of `bases` < `fast` < command line. Hydra's composition gives all but the
two in the middle; those are laid over it afterwards, leaf by leaf, except where the command line has spoken.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config import ConfigError, ModelConfig, nearest

MANDATORY = {"model": "timm", "dataset": "source", "optimizer": "_target_", "method": "_target_"}
"""Many-choice groups, and the key that tells a chosen preset from a suite's value for one that is not chosen."""
SINGLE = ("tracker", "engine", "suite")
Values = dict[str, Any]
KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    overrides: tuple[str, ...]
    config_dirs: tuple[Path, ...] = ()


def available(group: str, config_dirs: Iterable[Path] = ()) -> dict[str, Path]:
    """Presets of a group by name: the project's own, and those in folders given by --config-dir."""
    folders = [Path(str(files("conf"))), *config_dirs]
    return {p.stem: p for folder in folders for p in sorted((folder / group).glob("*.yaml"))}


def load_yaml(path: Path) -> Values:
    loaded = OmegaConf.to_container(OmegaConf.load(path))
    return {str(k): v for k, v in loaded.items()} if isinstance(loaded, dict) else {}


def as_names(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]


def _parse(overrides: Iterable[str]) -> list[Override]:
    parsed = []
    for text in overrides:
        if text in ("-m", "--multirun") or text.startswith("hydra"):
            raise ConfigError(
                f"{text} is not used here: give a list, such as model=[resnet18,test_vit] or seeds=[0,1,2]"
            )
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            raise ConfigError(f"not of the form key=value: {text!r}") from None
        if override.is_sweep_override() and override.key_or_group in SINGLE:
            raise ConfigError(f"{override.key_or_group} must be one name, got {text.partition('=')[2]}")
        if override.is_sweep_override():
            raise ConfigError(f"{text} is a sweep: give a list instead, such as model=[resnet18,test_vit]")
        parsed.append(override)
    return parsed


def _choices(parsed: list[Override], suite: Values, config: Values) -> dict[str, list[str]]:
    """The chosen presets of every many-choice group, entries of `bases` aside: command line before suite before
    config.yaml."""
    chosen: dict[str, list[str]] = {}
    for source in (config.get("defaults", []), suite.get("defaults", [])):
        for entry in source:
            for key, value in entry.items() if isinstance(entry, dict) else ():
                group = key.removeprefix("override").strip().lstrip("/")
                if group in MANDATORY:
                    chosen[group] = as_names(value)
    for override in parsed:
        if override.key_or_group in MANDATORY:
            value = override.value()
            if override.is_delete() or value is None or value == []:
                raise ConfigError(f"{override.key_or_group} must name at least 1 preset, got {override.input_line}")
            chosen[override.key_or_group] = as_names(value)
    return chosen


def entry_choice(entry: Mapping[str, Any], group: str, where: str = "bases") -> tuple[str | None, Values]:
    """The preset of a group that an entry of `bases` names, None where it names none, and values for it.

    `name` or `{name: {values}}`; `{each: {values}}` is for whichever preset is chosen.
    """
    value = entry.get(group)
    if not isinstance(value, Mapping):
        return (None if value is None else str(value)), {}
    if len(value) != 1 or not all(isinstance(values, Mapping) for values in value.values()):
        raise ConfigError(f"{where}.{group} must be a name, or one name with a mapping of values, got {value!r}")
    ((name, values),) = value.items()
    return (None if name == "each" else str(name)), dict(values)


def _with_entries(choices: dict[str, list[str]], parsed: list[Override], suite: Values) -> dict[str, list[str]]:
    """The choices and what the entries of `bases` name, where the command line has not chosen."""
    entries = suite.get("bases") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return choices  # refused when values are checked
    chosen = dict(choices)
    for group in {"model", "dataset", "optimizer"} - {o.key_or_group for o in parsed}:
        found = [entry_choice(entry, group, f"bases[{index}]")[0] for index, entry in enumerate(entries)]
        named = [name for name in found if name is not None]
        others = [] if len(named) == len(entries) > 0 else choices[group]
        chosen[group] = list(dict.fromkeys([*others, *named]))
    return chosen


def _register(chosen: dict[str, list[str]], config_dirs: Iterable[Path]) -> None:
    """Make `all` and timm's own names stand where a preset may, and refuse every other unknown name."""
    store = ConfigStore.instance()
    for group, names in chosen.items():
        presets = available(group, config_dirs)
        store.store(group=group, name="all", node={"defaults": sorted(presets)})
        for name in names:
            if name in presets or name == "all":
                continue
            if group != "model":
                raise ConfigError(f"{group}: no preset named {name!r}{nearest(name, presets)}")
            from harness.problem.models import is_timm_model, timm_names

            if not is_timm_model(name):
                raise ConfigError(
                    f"model: no preset and no timm model named {name!r}{nearest(name, [*presets, *timm_names()])}"
                )
            blank = ModelConfig(name.replace(".", "_"), name)
            values = {k: v for k, v in vars(blank).items() if k != "name"}
            store.store(group="model", name=name, node={blank.name: values})


def _flatten(values: Mapping[str, Any], path: KeyPath = ()) -> Iterator[KeyPath]:
    for key, value in values.items():
        yield (*path, str(key))
        if isinstance(value, Mapping):
            yield from _flatten(value, (*path, str(key)))


def _check_keys(parsed: list[Override], composed: Values) -> None:
    """Every overridden key must exist; `+` may add below an open mapping, which validation then checks."""
    known = {".".join(p) for p in _flatten(composed)}
    groups = (*MANDATORY, *SINGLE)
    for override in parsed:
        key = override.key_or_group
        if key in groups or key in known or override.is_add() or _opens(key, known):
            continue
        group, _, rest = key.partition(".")
        preset = rest.split(".")[0]
        if group in MANDATORY and preset not in composed[group]:
            raise ConfigError(f"{key}: {preset!r} is not among the chosen {group}s ({', '.join(composed[group])})")
        raise ConfigError(f"no key named {key!r}{nearest(key, known | set(groups))}")


def _opens(key: str, known: set[str]) -> bool:
    """Whether a key that does not exist yet lies in a model's `kwargs`, which take any key."""
    return key not in known and key.rpartition(".")[0].endswith(".kwargs") and key.rpartition(".")[0] in known


def compose_values(request: Request) -> tuple[Values, str, set[KeyPath], dict[str, list[str]]]:
    """Hydra's composition as plain values, the suite's name, the leaves that the command line spoke of, and
    the presets that an entry of `bases` takes where it names none."""
    parsed = _parse(request.overrides)
    for override in parsed:
        if override.key_or_group in SINGLE and override.value() is not None:
            presets = available(override.key_or_group, request.config_dirs)
            if str(override.value()) not in presets:
                name = str(override.value())
                raise ConfigError(f"{override.key_or_group}: no preset named {name!r}{nearest(name, presets)}")
    suite = next(
        (str(o.value()) for o in reversed(parsed) if o.key_or_group == "suite" and o.value() is not None), None
    )
    suite_values = {} if suite is None else load_yaml(available("suite", request.config_dirs)[suite])
    config = load_yaml(Path(str(files("conf"))) / "config.yaml")
    choices = _choices(parsed, suite_values, config)
    chosen = _with_entries(choices, parsed, suite_values)
    _register(chosen, request.config_dirs)
    search = ",".join(f"'file://{folder.resolve()}'" for folder in request.config_dirs)
    groups = [f"{group}=[{','.join(names)}]" for group, names in chosen.items()]
    groups += [o.input_line or "" for o in parsed if o.key_or_group in SINGLE and o.value() is not None]
    groups += [f"hydra.searchpath=[{search}]"]
    GlobalHydra.instance().clear()
    with initialize_config_module("conf", version_base="1.3"):
        try:
            bare = _container(compose("config", overrides=groups))
            _check_keys(parsed, bare)
            known = {".".join(path) for path in _flatten(bare)}
            values = [
                ("+" if _opens(o.key_or_group, known) and not o.is_add() else "") + (o.input_line or "")
                for o in parsed
                if o.key_or_group not in (*MANDATORY, *SINGLE)
            ]
            composed = _container(compose("config", overrides=[*groups, *values]))
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(" ".join(str(error).split())) from error
    spoken = {tuple(o.key_or_group.split(".")) for o in parsed}
    return composed, suite or "adhoc", spoken, choices


def _container(config: Any) -> Values:
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(k): v for k, v in container.items()}


def lay(target: Values, values: Mapping[str, Any], spoken: set[KeyPath], path: KeyPath = ()) -> None:
    """Lay values over a composition in place, leaf by leaf, except where the command line has spoken."""
    for key, value in values.items():
        here = (*path, str(key))
        if here in spoken:
            continue
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            lay(target[key], value, spoken, here)
        else:
            target[key] = copy.deepcopy(value)
