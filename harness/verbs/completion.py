"""Completion of `key=value` arguments from the YAML files of the configuration and the words of the help."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.packages import CONF
from harness.verbs.words import LISTED, NO_CONFIGURATION

LISTS = ("model", "dataset", "optimizer", "federation", "method")
SINGLES = ("suite", "tracker", "engine")
ALTERNATIVE = re.compile(r"([\w-]+)(?=$|[:,;]| \()")
"""one of the values that the comment of a line of YAML names, such as `save: none  # none | final: what it means`"""


def complete(prefix: str, parsed_args: Any = None, **_: Any) -> list[str]:
    """What an argument that begins with `prefix` may be, as argcomplete asks for it."""
    verb = getattr(parsed_args, "verb", "")
    folders = [CONF, *(getattr(parsed_args, "config_dir", None) or [])]
    key, equals, value = prefix.partition("=")
    if verb == "list" and not equals:
        return [*LISTED, "results_dir="]
    if verb in NO_CONFIGURATION:
        if key == "suite" and equals:
            return [f"suite={name}" for name in _views(getattr(parsed_args, "overrides", None) or [])]
        return [f"{name}=" for name in _keys_of_help(NO_CONFIGURATION[verb])]
    if equals:
        return [f"{key}={one}" for one in _values(key, value, folders)]
    found = [one for one in _keys(key, folders) if one.startswith(key)]
    while len(found) == 1 and found[0].endswith("."):  # a single one would be followed by a blank
        found = list(_keys(found[0], folders))
    return found


def _keys_of_help(text: str) -> list[str]:
    """The keys that a verb's help has a line for."""
    return re.findall(r"^  ([\w.]+)=", text, re.MULTILINE)


def _views(given: Iterable[str]) -> list[str]:
    """Views in the results folder that the command line names so far."""
    root = next((word.partition("=")[2] for word in given if word.startswith("results_dir=")), "results")
    return sorted(path.parent.name for path in Path(os.path.expanduser(root)).glob("suites/*/plan.json"))


def _presets(group: str, folders: Iterable[Path]) -> dict[str, Path]:
    return {path.stem: path for folder in folders for path in sorted((folder / group).glob("*.yaml"))}


def _load(path: Path) -> dict[str, Any]:
    import yaml

    try:
        loaded = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _top() -> dict[str, Any]:
    return {key: value for key, value in _load(CONF / "config.yaml").items() if key != "defaults"}


def _values(key: str, value: str, folders: list[Path]) -> Iterator[str]:
    """Values of a key: presets, also further ones in a list, or what its line of YAML names."""
    if key in LISTS + SINGLES:
        begun = value[: max(value.rfind("["), value.rfind(",")) + 1] if key in LISTS else ""
        names = [*_presets(key, folders), *(["all"] if key in LISTS else [])]
        yield from (f"{begun}{name}" for name in names)
        return
    files = [CONF / "config.yaml", *(path for path in (_file_of(key, folders),) if path is not None)]
    for path in reversed(files):
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, comment = line.partition("#")
            parts = comment.split(" | ")
            if name.partition(":")[0].strip() == key.rpartition(".")[2] and len(parts) > 1:
                yield from (found[1] for part in parts if (found := ALTERNATIVE.match(part.strip())))
                return
    if isinstance(_at(key, folders), bool):
        yield from ("true", "false")


def _file_of(key: str, folders: list[Path]) -> Path | None:
    """The preset that a dotted key is a value of."""
    group, _, rest = key.partition(".")
    if group in LISTS:
        return _presets(group, folders).get(rest.split(".")[0])
    return CONF / "tracker" / "wandb.yaml" if group == "tracker" else None


def _at(key: str, folders: list[Path]) -> Any:
    """What the configuration has at a dotted key; None where there is no such key."""
    group, *rest = key.split(".")
    if group in LISTS and rest:
        path = _presets(group, folders).get(rest[0])
        found: Any = {} if path is None else _load(path)
    elif group in ("tracker", "engine"):
        found = {name: value for path in _presets(group, folders).values() for name, value in _load(path).items()}
        found = {name: value for name, value in found.items() if name not in ("defaults", "name")}
    else:
        found, rest = _top(), [group, *rest]
    for name in rest:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _keys(prefix: str, folders: list[Path]) -> Iterator[str]:
    """Keys one level below the last dot of a prefix: `key=` for a value, `key.` for what has keys of its own."""
    above = prefix.rpartition(".")[0]
    if not above:
        yield from (f"{group}=" for group in LISTS + SINGLES)
        yield from (f"{group}." for group in (*LISTS, "tracker", "engine"))
        yield from (_ending(key, value) for key, value in _top().items())
    elif above in LISTS:
        yield from (f"{above}.{name}." for name in _presets(above, folders))
    else:
        found = _at(above, folders)
        yield from (
            f"{above}.{_ending(key, value)}" for key, value in (found.items() if isinstance(found, dict) else ())
        )


def _ending(key: str, value: Any) -> str:
    return f"{key}." if isinstance(value, dict) and value else f"{key}="
