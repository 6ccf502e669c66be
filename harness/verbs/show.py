"""`traindyn show`: a resolved configuration as YAML that is a suite, and gives the same plan when it is given back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import yaml

from harness.config import MethodConfig
from harness.planning.compose import BASE_GROUPS, LIST_GROUPS, SINGLE_GROUPS, Request, Values, available, load_yaml
from harness.planning.experiment import Entry, Experiment
from harness.planning.methods import with_lengths
from harness.planning.resolve import resolve
from harness.storage.masking import masked
from harness.validation import printable

NOT_OF_A_SUITE = (*LIST_GROUPS, *SINGLE_GROUPS, "bases", "results_dir", "name", "redo", "fast", "tuned")
"""top-level keys that stand elsewhere, say where and how to run, or are applied already"""
OF_AN_ENTRY = ("epochs", "batch_size", "seeds")


def suite_text(request: Request, command: str) -> str:
    """The suite that a command line asks for, `fast` and `tuned` laid over it; ConfigError as for a plan."""
    experiment = resolve(request, command)
    suite = _suite(experiment, request)
    defaults = [{f"override /{group}": names} for group, names in suite.pop("defaults").items()]
    secret = _without_secrets(suite)
    lines = [
        "# @package _global_",
        f"# {printable(command)}",
        "# Saved as DIR/suite/NAME.yaml it is a suite: traindyn run --config-dir DIR suite=NAME",
        *(f"# {key} is left out: it holds a secret" for key in secret),
    ]
    text = yaml.dump(
        _escaped({"defaults": defaults, **suite}), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120
    )
    return "\n".join(lines) + f"\n{text}"


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # yaml has no types
    """Mappings in lines, lists within one; nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_list(self, data: Any) -> yaml.Node:
        plain = not any(isinstance(value, dict) for value in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=plain)


_Dumper.add_representer(list, _Dumper.represent_list)


def _suite(experiment: Experiment, request: Request) -> Values:
    composed, entries = _without_controls(experiment, request)
    own = [entry.values for entry in entries]
    used = {
        **{group: [(entry.names[group], entry.values) for entry in entries] for group in BASE_GROUPS},
        "method": [(name, values) for values in own for name in values["method"]],
    }
    presets: dict[str, Values] = {
        group: {
            name: _common(
                composed[group][name], [values[group][name] for used_name, values in used[group] if used_name == name]
            )
            for name in dict.fromkeys(name for name, _ in used[group])
        }
        for group in (LIST_GROUPS if composed["adopted"] is None else ("method",))  # an adopted run has its own
    }
    chosen: dict[str, Any] = {
        group: [
            _choice(group, name, composed, request)
            for name in presets[group]
            if group != "method" or name not in experiment.added
        ]
        for group in presets
    }
    chosen |= {group: composed[group]["name"] for group in ("tracker", "engine")}
    suite: Values = {"defaults": chosen}
    if composed["bases"] is None or composed["adopted"] is not None:
        suite["bases"] = None
    else:
        suite["bases"] = [_entry(entry, presets, own[0], composed, request, experiment.added) for entry in entries]
    suite |= {key: value for key, value in own[0].items() if key not in NOT_OF_A_SUITE}
    for group in ("tracker", "engine"):
        suite[group] = {key: value for key, value in composed[group].items() if key != "name"}
    presets["method"] = {
        name: values for name, values in presets["method"].items() if values or name not in experiment.added
    }
    return suite | presets


def _without_controls(experiment: Experiment, request: Request) -> tuple[Values, list[Entry]]:
    """The composition and its entries, of whose added controls only that is left which does not follow by itself."""
    composed, files = experiment.composed, available("method", request.config_dirs)
    built: dict[tuple[str, str, str, str, int], dict[str, MethodConfig]] = {}
    for base, fitted in experiment.bases:
        key = (base.model.name, base.dataset.name, base.optimizer.name, base.federation.name, base.epochs)
        built.setdefault(key, {method.name: method.config for method in fitted})

    def own(methods: Values, epochs: int, found: Mapping[str, MethodConfig]) -> Values:
        return {
            name: _own_of_control(
                values, load_yaml(files[name])[name], experiment.stated[name], found.get(name), epochs
            )
            if name in experiment.added
            else values
            for name, values in methods.items()
        }

    reduced: list[Entry] = []
    for entry in experiment.entries:
        *names, values = entry
        found = built.get((*names, values["epochs"]), {})
        methods = own(values["method"], values["epochs"], found)
        reduced.append(entry._replace(values={**values, "method": methods}))
    return {**composed, "method": own(composed["method"], composed["epochs"], {})}, reduced


def _own_of_control(
    values: Values, preset: Values, stated: Set[str], built: MethodConfig | None, epochs: int
) -> Values:
    """The values of an added control that are stated, or are others than its preset's and not those of its method."""
    params = {} if built is None else built.params
    whole = with_lengths("", values, epochs)
    return {
        key: value
        for key, value in values.items()
        if key in stated or (value != preset.get(key) and (key not in params or params[key] == whole[key]))
    }


def _choice(group: str, name: str, composed: Values, request: Request) -> str:
    """What chooses a preset: its name, or the one that timm has for a model."""
    if group == "model" and name not in available(group, request.config_dirs):
        return str(composed[group][name]["timm"])
    return name


def _common(composed: Values, found: Sequence[Values]) -> Values:
    """Values of a preset over which those of every entry can be laid, which takes nothing away."""
    return found[0] if all(_lies_below(found[0], values) for values in found) else composed


def _lies_below(low: Any, high: Any) -> bool:
    if not isinstance(low, Mapping) or not isinstance(high, Mapping):
        return not isinstance(low, Mapping) or isinstance(high, Mapping) or not low
    return low.keys() <= high.keys() and all(_lies_below(low[key], high[key]) for key in low)


def _difference(low: Values, high: Values) -> Values:
    """What has to be laid over one mapping to make it the other."""
    found = {}
    for key, value in high.items():
        if key not in low or not isinstance(value, dict) or not isinstance(low[key], dict):
            if key not in low or low[key] != value or type(low[key]) is not type(value):
                found[key] = value
        elif inner := _difference(low[key], value):
            found[key] = inner
    return found


def _entry(
    entry: Entry,
    presets: Mapping[str, Values],
    first: Values,
    composed: Values,
    request: Request,
    added: Sequence[str],
) -> Values:
    """An entry of `bases`: its presets, and where its values are others than those of the suite."""
    made, values = Values(), entry.values
    for group, name in entry.names.items():
        choice, own = _choice(group, name, composed, request), _difference(presets[group][name], values[group][name])
        made[group] = {choice: own} if own else choice
    made |= {key: values[key] for key in OF_AN_ENTRY if values[key] != first[key]}
    methods = {name: _difference(presets["method"][name], own) for name, own in values["method"].items()}
    if any(methods.values()):
        made["method"] = {name: own for name, own in methods.items() if own}
    if missing := [name for name in dict.fromkeys([*presets["method"], *added]) if name not in values["method"]]:
        made["without"] = missing
    return made


def _without_secrets(suite: Values, path: str = "") -> list[str]:
    """Take the values that hold a secret out of a suite in place; their keys."""
    taken: list[str] = []
    for key, value in list(suite.items()):
        here = f"{path}{key}"
        if isinstance(value, dict):
            taken += _without_secrets(value, f"{here}.")
        elif masked({key: value})[key] != value:
            del suite[key]
            taken.append(here)
    return taken


def _escaped(value: Any) -> Any:
    """Values as YAML in which nothing is an interpolation."""
    if isinstance(value, str):
        return value.replace("${", r"\${")
    if isinstance(value, Mapping):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, Iterable):
        return [_escaped(inner) for inner in value]
    return value
