"""From the command line to composed values: Hydra composes, `resolve.py` and `config.py` validate.

Precedence: preset < suite < an entry of `bases` < `fast` < command line. Hydra's composition gives all but the
two in the middle; those are laid over it afterwards, leaf by leaf, except where the command line has spoken.
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, OverrideType, Quote, QuotedString, Sweep, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers.oc import env
from yaml import YAMLError

from harness.config import ModelConfig, ViewName
from harness.packages import CONF
from harness.planning.names import view_name
from harness.planning.vocabulary import kind_of
from harness.storage.masking import note_asked
from harness.validation import (
    SHOWN_CHARACTERS,
    ConfigError,
    Faults,
    as_given,
    below,
    nearest,
    reason,
    shown,
    validated,
)

NO_SUITE = "adhoc"
"""the suite of a command that names none"""
BASE_GROUPS = {"model": "timm", "dataset": "source", "optimizer": "_target_", "federation": "clients"}
LIST_GROUPS = {**BASE_GROUPS, "method": "_target_"}
"""Groups of which several presets may be chosen, each with the key that all of its presets have: a suite's values for a
preset that is not chosen lack it."""
SINGLE_GROUPS = ("tracker", "engine", "suite")
LONGEST_LINE = 500
"""characters of another library's error that are shown at most"""
OPEN_MAPPINGS = ("kwargs", "parameters")
"""what takes any key: options of a timm model and of sbatch"""
AMBIGUOUS = "[]{}(),'\""
"""characters that may make a value another thing than a text"""
PREFIXES = {"": OverrideType.CHANGE, "+": OverrideType.ADD, "++": OverrideType.FORCE_ADD, "~": OverrideType.DEL}
"""of keys, in Hydra's grammar"""
Values = dict[str, Any]
KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    overrides: tuple[str, ...]
    config_dirs: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Composition:
    """What Hydra composed of a request."""

    values: Values
    suite: str
    overridden: set[KeyPath]
    """keys that the command line has spoken of"""
    choices: dict[str, list[str]]
    """the presets that an entry of `bases` takes where it names none, by group"""
    chosen: dict[str, list[str]]
    """these and the presets that entries of `bases` name"""
    view: str
    """the name of what is shown of it"""
    refused: frozenset[str] = frozenset()
    """keys and groups of the command line whose values were refused: what follows from them is not known"""


def available(group: str, config_dirs: Iterable[Path] = ()) -> dict[str, Path]:
    """Presets of a group by name: the project's own, and those in folders given by --config-dir."""
    own = {p.stem: p for folder in config_dirs for p in sorted((folder / group).glob("*.yaml"))}
    return {**_shipped(group), **own}


@cache
def _shipped(group: str) -> Mapping[str, Path]:
    return MappingProxyType({p.stem: p for p in sorted((CONF / group).glob("*.yaml"))})


def _named_twice(config_dirs: Iterable[Path]) -> list[str]:
    """A line per preset whose name two folders have, of which one would be taken for the other."""
    lines = []
    for group in (*LIST_GROUPS, *SINGLE_GROUPS):
        known = dict(_shipped(group))
        for path in (path for folder in config_dirs for path in sorted((folder / group).glob("*.yaml"))):
            other = known.setdefault(path.stem, path)
            if other != path:
                where = "the project" if other.is_relative_to(CONF) else other
                lines.append(f"{group}: preset {path.stem!r} of {path} must have another name, {where} has one of it")
    return lines


def load_yaml(path: Path) -> Values:
    """The mapping that a file holds, its interpolations as they stand; ConfigError where it holds none."""
    state = path.stat()
    return copy.deepcopy(_loaded_yaml(path, state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=256)
def _loaded_yaml(path: Path, modified_ns: int, size: int) -> Values:
    """`load_yaml` of a file as it was at a time: a command asks for the same few again and again."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} must be a YAML file, got {one_line(error)}") from error
    return parsed_yaml(path, text)


def parsed_yaml(path: Path, text: str) -> Values:
    """The mapping that the text of a file holds, as `load_yaml` gives it."""
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
    except (YAMLError, OmegaConfBaseException, ValueError, OSError, RecursionError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a file that cannot be read; OmegaConf's own stands for a text or a number at the top
        raise ConfigError(f"{path} must be a YAML file, got {one_line(error)}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} must hold a mapping, got {shown(loaded)}")
    return {str(k): v for k, v in loaded.items()}


def one_line(error: BaseException) -> str:
    """What an exception says, on one line and with the key that it is about."""
    text, key = reason(error), None
    if isinstance(error, OmegaConfBaseException):
        text, key = error.msg or text, error.full_key
    line = " ".join(text.partition("full_key:")[0].split())
    return (f"{key}: {line}" if key else line)[:LONGEST_LINE]


def as_names(value: Any) -> list[str]:
    """A name or a list of names as a list."""
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]


def _literal(text: str, value: Any) -> Override:
    """An override with a value that Hydra's grammar does not read."""
    key = text.partition("=")[0]
    name = key.lstrip("+~")
    return Override(PREFIXES[key.removesuffix(name)], name, ValueType.ELEMENT, value, input_line=text)


def _override(text: str) -> Override:
    """One argument: a key for text takes the rest of it as it is, Hydra reads all others.

    What Hydra cannot read is text where that is unambiguous. ConfigError where it is not, with what must be quoted.
    """
    key, equals, value = text.partition("=")
    name = key.lstrip("+~")
    kind, prefix = kind_of(name), key.removesuffix(name)
    if not re.fullmatch(r"[^\s\[\]{}()'\",]+", name) or prefix not in PREFIXES or not (equals or prefix == "~"):
        spaces = "; there are no spaces around it" if text == "=" else ""
        raise ConfigError(f"not of the form key=value: {shown(text)}{spaces}")
    if "@" in name:
        raise ConfigError(f"not of the form key=value: {shown(text)}; a key has no @")
    if equals and kind is not None:
        with contextlib.suppress(ConfigError):
            return _literal(text, as_given(name, kind, value))
    try:
        override = OverridesParser.create().parse_override(f"{prefix}key{equals}{value}")
        override = replace(override, key_or_group=name, input_line=text)
        override.value()
    except (HydraException, ValueError, RecursionError) as error:
        return _literal(text, _otherwise(key, value, kind is not None or name in (*LIST_GROUPS, *SINGLE_GROUPS), error))
    if not override.is_sweep_override():
        return override
    if name in SINGLE_GROUPS:
        raise ConfigError(f"{name} must be one name, got {value}")
    if kind is None or name in LIST_GROUPS:
        as_list = "" if "(" in value else f": {key}=[{value}]"
        or_quoted = "" if name in LIST_GROUPS else f", or a text in quotes: {_in_shell(key, quoted(value))}"
        raise ConfigError(f"{text} is a sweep: give a list instead{as_list}{or_quoted}")
    return _literal(text, value)


def _otherwise(key: str, value: str, known: bool, error: Exception) -> Any:
    """What Hydra cannot read: a list or a mapping as YAML has it, or a text, for a key of a `known` type any other.

    ConfigError where it is neither, with Hydra's reason or the character that it takes within quotes only.
    """
    if value[:1] in ("[", "{"):
        try:
            return OmegaConf.to_container(OmegaConf.create(value))
        except (YAMLError, OmegaConfBaseException, ValueError, TypeError, RecursionError):
            raise ConfigError(f"{key} must be a list or a mapping, got {shown(value)}: {one_line(error)}") from None
    found = None if known else next((character for character in value if character in AMBIGUOUS), None)
    if found is not None:
        raise ConfigError(
            f"{key} takes {found} within quotes only: {_in_shell(key, quoted(value))}, got {shown(value)}"
        )
    return value


def _in_shell(key: str, value: str) -> str:
    """An argument as it is typed, where that is one line."""
    typed = shlex.quote(f"{key}={value}")
    return typed if typed.isprintable() and len(typed) <= SHOWN_CHARACTERS else f"'{key}=\"...\"'"


def quoted(text: str) -> str:
    """A text as Hydra's grammar reads it back, whatever its characters."""
    return QuotedString(text, Quote.double).with_quotes()


def _parse(overrides: Iterable[str], faults: Faults, refused: set[str]) -> list[Override]:
    """The arguments that can be read, with values of their keys' types; the keys of others are `refused`."""
    parsed = []
    for text in _whole(overrides, faults, refused):
        override = faults.tried(_parse_one, text)
        if override is None:
            refused.add(_key_of(text))
        else:
            parsed.append(override)
    return parsed


def _key_of(text: str) -> str:
    return text.partition("=")[0].lstrip("+~")


def _parse_one(text: str) -> Override:
    if text in ("-m", "--multirun") or text.startswith("hydra"):
        raise ConfigError(f"{text} is not used here: give a list, such as model=[resnet18,test_vit] or seeds=[0,1,2]")
    override = _override(text)
    key, value = override.key_or_group, override.value()
    if key in ("tracker", "engine") and (override.is_delete() or not isinstance(value, str)):
        raise ConfigError(f"{key} must be one name, got {shown(value)}")
    _check_plain(key, value)
    kind = None if override.is_delete() or key in (*LIST_GROUPS, *SINGLE_GROUPS) else kind_of(key)
    # what is null may follow from a data set's files, or be left out of a method
    left_out = value is None and key.startswith(("dataset.", "method."))
    if kind is not None and not left_out and "${" not in str(value):
        validated(key, kind, value)
    return override


def _whole(overrides: Iterable[str], faults: Faults, refused: set[str]) -> Iterator[str]:
    """The arguments but for those that a shell made of a list with spaces in it, which are a fault.

    `method=[base, swa]` without quotes comes as `method=[base,` and `swa]`.
    """
    waiting = list(overrides)
    while waiting:
        parts = [waiting.pop(0)]
        _, _, value = parts[0].partition("=")
        if value[:1] in ("[", "{"):
            while _open_brackets(" ".join(parts)) > 0 and waiting and "=" not in waiting[0]:
                parts.append(waiting.pop(0))
        whole = " ".join(parts)
        if len(parts) > 1 and _open_brackets(whole) == 0:
            refused.add(_key_of(whole))
            compact = "" if "{" in whole else f", or without spaces: {re.sub(r', +', ',', whole)}"
            faults.lines.append(
                f"{_key_of(whole)} came as {len(parts)} arguments, since a shell parts them at spaces: "
                f"write it in quotes: {shlex.quote(whole)}{compact}"
            )
        elif not value and _open_brackets(whole) < 0:
            faults.lines.append(
                f"{shown(whole)} is the end of a list that a shell parted at a space: write all of it in quotes, "
                "such as 'method=[base, swa]', or without spaces"
            )
        else:
            waiting = [*parts[1:], *waiting]
            yield parts[0]


def _open_brackets(text: str) -> int:
    """How many brackets a text opens and does not close, or closes (below 0) and does not open."""
    _, equals, value = text.partition("=")
    counts = Counter(value if equals else text)
    return counts["["] + counts["{"] - counts["]"] - counts["}"]


def _merge(below: Values, above: Mapping[str, Any]) -> Values:
    """Two mappings as one, leaf by leaf, `above` winning."""
    merged = copy.deepcopy(below)
    overlay(merged, above, set())
    return merged


def _suite_values(name: str, config_dirs: Iterable[Path], building: tuple[str, ...] = ()) -> Values:
    """What a suite's file and those that it builds on say, with the groups that they choose under `defaults`."""
    if name in building:
        raise ConfigError(f"suite {name} must not build on itself, got {' on '.join((*building, name))}")
    presets = available("suite", config_dirs)
    if name not in presets:
        raise ConfigError(f"suite: no preset named {name!r}{nearest(name, presets)}")
    own = load_yaml(presets[name])
    defaults = own.pop("defaults", [])
    if not isinstance(defaults, list):
        raise ConfigError(f"{presets[name]}: defaults must be a list, got {shown(defaults)}")
    values: Values = {}
    for parent in defaults:
        if isinstance(parent, str) and parent != "_self_":
            values = _merge(values, _suite_values(parent, config_dirs, (*building, name)))
    chosen = [*values.pop("defaults", []), *(entry for entry in defaults if isinstance(entry, dict))]
    return {**_merge(values, own), "defaults": chosen}


def _choices(parsed: list[Override], suite: Values, faults: Faults, refused: set[str]) -> dict[str, list[str]]:
    """The chosen presets of every many-choice group, entries of `bases` aside: command line before suite before
    config.yaml. Choices of none are faults, and their groups are `refused`."""
    config = load_yaml(CONF / "config.yaml")
    chosen: dict[str, list[str]] = {}
    for source in (config["defaults"], suite.get("defaults", [])):
        for entry in source:
            for key, value in entry.items() if isinstance(entry, dict) else ():
                group = str(key).removeprefix("override").strip().lstrip("/")
                if group in LIST_GROUPS:
                    chosen[group] = as_names(value)
    for override in parsed:
        if override.key_or_group in LIST_GROUPS:
            value = override.value()
            names = value if isinstance(value, list) else [value]
            if override.is_delete() or not names or not all(isinstance(name, str) and name for name in names):
                faults.lines.append(f"{override.key_or_group} must name at least 1 preset, got {override.input_line}")
                refused.add(override.key_or_group)
            else:
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
        raise ConfigError(f"{where}.{group} must be a name, or one name with a mapping of values, got {shown(value)}")
    ((name, values),) = value.items()
    return (None if name == "each" else str(name)), dict(values)


def _with_entries(choices: dict[str, list[str]], parsed: list[Override], suite: Values) -> dict[str, list[str]]:
    """The choices and what the entries of `bases` name, where the command line has not chosen."""
    entries = suite.get("bases") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return choices  # refused when values are checked
    chosen = dict(choices)
    for group in BASE_GROUPS.keys() - {o.key_or_group for o in parsed}:
        found = [entry_choice(entry, group, f"bases[{index}]")[0] for index, entry in enumerate(entries)]
        named = [name for name in found if name is not None]
        others = [] if len(named) == len(entries) > 0 else choices[group]
        chosen[group] = list(dict.fromkeys([*others, *named]))
    return chosen


def _register(chosen: dict[str, list[str]], config_dirs: Iterable[Path], faults: Faults) -> dict[str, list[str]]:
    """Make `all` and timm's own names stand where a preset may; every other unknown name is a fault.

    Returns the choices that are known; of a group of which none is, nothing.
    """
    store, known = ConfigStore.instance(), {}
    for group, names in chosen.items():
        presets = available(group, config_dirs)
        store.store(group=group, name="all", node={"defaults": sorted(presets)})
        known[group] = [name for name in names if faults.tried(_register_one, store, group, name, presets)]
    return known


def _as_folder(group: str, name: str) -> str:
    """What to write for a data set that is a folder of pictures."""
    if group != "dataset" or not os.path.isdir(os.path.expanduser(name)):
        return ""
    return f"; a folder of pictures is dataset=image_folder dataset.image_folder.root={shlex.quote(name)}"


def _register_one(store: ConfigStore, group: str, name: str, presets: Mapping[str, Path]) -> bool:
    """True where a preset of a group may have that name, which is made known to Hydra; ConfigError elsewhere."""
    if name in presets:
        _check_inner_name(group, name, presets[name])
        return True
    if name == "all":
        return True
    if group != "model":
        raise ConfigError(f"{group}: no preset named {name!r}{nearest(name, presets)}{_as_folder(group, name)}")
    from harness.problem.models import is_timm_model, timm_names

    if not is_timm_model(name):
        raise ConfigError(
            f"model: no preset and no timm model named {name!r}{nearest(name, [*presets, *timm_names()])}"
        )
    blank = ModelConfig(name.replace(".", "_"), name)
    values = {k: v for k, v in vars(blank).items() if k != "name"}
    store.store(group="model", name=name, node={blank.name: values})
    return True


def _check_inner_name(group: str, name: str, path: Path) -> None:
    """ConfigError where a preset's file holds values of another name than its own."""
    if path.is_relative_to(CONF):
        return
    held = load_yaml(path)
    if held and not held.keys() & {name, group, "defaults"}:
        raise ConfigError(f"{group}: {path} must hold the key {name}, as it is called, got {', '.join(map(str, held))}")


def _keys(values: Mapping[str, Any], path: KeyPath = ()) -> Iterator[str]:
    """Every key of a composition, dotted."""
    for key, value in values.items():
        here = (*path, str(key))
        yield ".".join(here)
        if isinstance(value, Mapping):
            yield from _keys(value, here)


def _is_open(key: str, known: set[str]) -> bool:
    """Whether a key that does not exist yet lies in a mapping that takes any key."""
    parent = key.rpartition(".")[0]
    return parent in known and parent.rpartition(".")[2] in OPEN_MAPPINGS


def _check_key(override: Override, composed: Values, known: set[str]) -> None:
    """ConfigError where an overridden key does not exist; `+` may add one, which validation then checks."""
    key = override.key_or_group
    if key in known or override.is_add() or (_is_open(key, known) and not override.is_delete()):
        return
    group, _, rest = key.partition(".")
    preset = rest.split(".")[0]
    if group in LIST_GROUPS and isinstance(composed[group], dict) and preset not in composed[group]:
        raise ConfigError(f"{key}: {preset!r} is not among the chosen {group}s ({', '.join(composed[group])})")
    raise ConfigError(f"no key named {key!r}{nearest(key, known | {*LIST_GROUPS, *SINGLE_GROUPS})}")


def _check_plain(key: str, value: Any) -> None:
    """ConfigError where within a value a mapping has a key that is no text, such as a number, or a sweep stands."""
    if isinstance(value, Sweep | Glob):
        raise ConfigError(f"{key} must hold no sweep, got {shown(value)}")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise ConfigError(f"{key} must have texts as keys, got {shown(name)}")
            _check_plain(below(key, name), inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_plain(f"{key}[{index}]", inner)


def _apply(config: DictConfig, override: Override) -> None:
    """Lay one value of the command line over a composition, or take one out of it."""
    key = override.key_or_group
    if override.is_delete():
        parent, _, name = key.rpartition(".")
        inner = OmegaConf.select(config, parent) if parent else config
        if override.value() not in (None, "", inner[name]):
            raise ConfigError(f"~{key} must have the value {shown(inner[name])} or none, got {shown(override.value())}")
        del inner[name]
        return
    value = override.value()
    _check_plain(key, value)
    # a mapping goes into a mapping; in any other place it stays as it was given, for its type to be refused by its key
    merges = isinstance(value, dict) and isinstance(OmegaConf.select(config, key), DictConfig)
    OmegaConf.update(config, key, value, merge=merges, force_add=True)


def _hydra(groups: list[str], parsed: list[Override], faults: Faults, refused: set[str]) -> tuple[Values, Values]:
    """One composition of the chosen groups, the command line's values over it, and what these change, by their keys;
    those of keys that do not exist are faults, but for keys of presets where the choice of these was `refused`."""
    GlobalHydra.instance().clear()
    OmegaConf.register_new_resolver("oc.env", _variable, replace=True)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            config = compose("config", overrides=groups)
            OmegaConf.set_struct(config, False)
            bare = _container(config, resolve=False)
            known = set(_keys(bare))
            for override in parsed:
                key = override.key_or_group
                if key.partition(".")[0] in refused and key not in known:
                    continue
                with faults.gathered():
                    _check_key(override, bare, known)
                    _apply(config, override)
                    continue
                refused.add(key)
            values = _container(config, resolve=True)
            _check_plain("", values)
            return values, {o.key_or_group: o.value() for o in parsed if _at(bare, o.key_or_group) != o.value()}
        except ConfigError:
            raise
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError, RecursionError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            interpolates = any("${" in str(override.value()) for override in parsed)
            hint = r"; \${ stands for ${ itself" if interpolates else ""
            raise ConfigError(f"{one_line(error)}{hint}") from error


def _variable(name: str, *default: str | None) -> str | None:
    """OmegaConf's own `oc.env`, whose values are masked like secrets."""
    if name in os.environ:
        note_asked(name)
    value: str | None = env(name, *default)
    return value


def _at(values: Values, key: str) -> Any:
    """The value at a dotted key, None where there is none."""
    found: Any = values
    for name in key.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _container(config: DictConfig, resolve: bool) -> Values:
    container = OmegaConf.to_container(config, resolve=resolve, throw_on_missing=resolve)
    assert isinstance(container, dict)
    return {str(k): v for k, v in container.items()}


def compose_values(request: Request, faults: Faults | None = None) -> Composition:
    """Hydra's composition of what was asked for, in plain values.

    What is wrong is gathered in `faults`, and the rest composed as if it had not been said; without `faults`, and where
    nothing can be composed, it is raised as a ConfigError: presets and keys that are none, values of another type.
    """
    found, refused = Faults() if faults is None else faults, set[str]()
    found.lines += _named_twice(request.config_dirs)
    parsed = _parse(request.overrides, found, refused)
    single = [o for o in parsed if o.key_or_group in SINGLE_GROUPS and not o.is_delete() and o.value() is not None]
    for override in list(single):
        group, name = override.key_or_group, str(override.value())
        presets = available(group, request.config_dirs)
        if name not in presets:
            found.lines.append(f"{group}: no preset named {name!r}{nearest(name, presets)}")
            refused.add(group)
            single.remove(override)
    suite = next((str(o.value()) for o in reversed(single) if o.key_or_group == "suite"), None)
    suite_values = {} if suite is None else _suite_values(suite, request.config_dirs)
    choices = _choices(parsed, suite_values, found, refused)
    asked = _with_entries(choices, parsed, suite_values)
    chosen = _register(asked, request.config_dirs, found)
    if "suite" in refused:  # whose choices and values are not known: what else is wrong is told by types alone
        found.check()
    defaults = _choices([], suite_values, found, refused)
    for group in (group for group in asked if chosen[group] != asked[group]):
        refused.add(group)
        chosen[group] = chosen[group] or _register({group: defaults[group]}, request.config_dirs, found)[group]
        if not chosen[group]:
            found.check()
        choices[group] = [name for name in choices[group] if name in chosen[group]] or chosen[group]
    search = ",".join(quoted(f"file://{folder.resolve()}") for folder in request.config_dirs)
    groups = [f"{group}=[{','.join(map(quoted, names))}]" for group, names in chosen.items()]
    groups += [f"{o.key_or_group}={quoted(str(o.value()))}" for o in single]
    groups += [f"hydra.searchpath=[{search}]"]
    rest = [o for o in parsed if o.key_or_group not in (*LIST_GROUPS, *SINGLE_GROUPS)]
    values, changed = _hydra(groups, rest, found, refused)
    given = found.tried(validated, "name", ViewName | None, values.get("name"))
    if faults is None:
        found.check()
    overridden = {tuple(o.key_or_group.split(".")) for o in parsed} - {tuple(key.split(".")) for key in refused}
    view = view_name(given, suite, chosen, changed)
    return Composition(values, suite or NO_SUITE, overridden, choices, chosen, view, frozenset(refused))


def overlay(target: Values, values: Mapping[str, Any], overridden: set[KeyPath], path: KeyPath = ()) -> None:
    """Lay values over a composition in place, leaf by leaf, except where the command line has spoken."""
    for key, value in values.items():
        here = (*path, str(key))
        if here in overridden:
            continue
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            overlay(target[key], value, overridden, here)
        else:
            target[key] = copy.deepcopy(value)
