"""The reference of the configuration: every key with its type, bounds, default and meaning, from its class and YAML."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
import typing
from typing import Any

from presets import Preset, group, read
from prose import as_markdown, table
from pydantic import TypeAdapter

from harness import config
from harness.packages import CONF
from harness.planning.vocabulary import TopLevel

PRESETS = (
    ("model", "Models", config.ModelConfig, "model.<preset>"),
    ("dataset", "Data", config.DatasetConfig, "dataset.<preset>"),
    ("optimizer", "Optimizers", None, "optimizer.<preset>"),
    ("federation", "Federations", config.FederationConfig, "federation.<preset>"),
)
PARTS = (
    ("evaluate", "Evaluation", config.EvaluateConfig),
    ("trajectory", "Recorded weights", config.TrajectoryConfig),
    ("statistics", "Statistics", config.StatisticsConfig),
    ("tune", "Tuning", config.TuneConfig),
)
CHOICES = re.compile(r"^\w+( \| \w+)+(: |$)")
"""what a comment begins with where it says the choices, which stand in a column of their own"""
MANY = 10**9
"""a bound from which on it need not be said"""
ELSEWHERE = (
    "model",
    "dataset",
    "optimizer",
    "federation",
    "method",
    "tracker",
    "engine",
    *(name for name, *_ in PARTS),
)


def configuration_page() -> str:
    """All keys, by what they belong to."""
    whole = read(CONF / "config.yaml")
    text = [
        "# Configuration",
        "",
        "Any key can stand on the command line (`epochs=60`, `optimizer.sgd_momentum.lr=0.1`) or in a suite's YAML. "
        "A value that is out of bounds, or a key that is misspelt, is refused in one line before anything trains.",
        "",
        "`model`, `dataset`, `optimizer`, `federation` and `method` take a preset, a list of them, or `all`.",
        "",
        "## The file",
        "",
        "`conf/config.yaml` is the whole vocabulary:",
        "",
        "```yaml",
        (CONF / "config.yaml").read_text(encoding="utf-8").rstrip(),
        "```",
        "",
        "## Top level",
        "",
        _keys(TopLevel, whole, "", skip=ELSEWHERE),
        "",
    ]
    for name, title, of in PARTS:
        part = Preset(name, "", whole.values.get(name) or {}, _below(whole, name))
        text += [
            f"## {title}",
            "",
            as_markdown(inspect.getdoc(of) or ""),
            "",
            _keys(of, part, f"{name}.", skip=("trials",)),
            "",
        ]
    text += ["## Presets", "", "What can be chosen, and the keys of each below its name.", ""]
    for name, title, of, prefix in PRESETS:
        found = group(name)
        text += [f"### {title}", "", _choices(found), ""]
        if of is not None:
            text += [_keys(of, Preset(name, "", {}, {}), f"{prefix}.", skip=("name",)), ""]
    text += [
        "An optimizer's other keys are the arguments of its `_target_`, any class of `torch.optim`. `rates` is the "
        "grid on which `tune method=base` searches. Its schedule:",
        "",
        _keys(config.ScheduleConfig, Preset("", "", {}, {}), "optimizer.<preset>.schedule."),
        "",
        "### Methods",
        "",
        "See [Methods](../methods/index.md) for each with its parameters. Every preset has these keys beside them:",
        "",
        table(
            ["key", "meaning"],
            [
                ["`_target_`", "the class, such as `baselines.swa.SWA`"],
                [
                    "`batchnorm`",
                    "`recalibrate` (on training images), `as_is` (as in training), `averaged` (the method's)",
                ],
                ["`control`", "the method that it is compared with beside `base_recalibrated`, or null"],
                [
                    "`search`",
                    "what `tune` varies: per parameter `{type: int, low: 2, high: 40, log: true}`, `float` likewise, "
                    "or `{type: categorical, choices: [a, b]}`",
                ],
                ["`fast`", "values for `fast=true`"],
                ["`lengths`", "parameters that may be shares of the epochs, each with `least` and `most`"],
            ],
        ),
        "",
        "### Suites",
        "",
        _choices(group("suite")),
        "",
        "A suite is a YAML with the keys of this page. Its `bases` is a list of entries: "
        "`{model, dataset, optimizer, epochs, batch_size, seeds, method: {name: {values}}, "
        "without: [methods], fast: {...}}`; `traindyn show suite=quick` prints one in full.",
        "",
        "## Engines",
        "",
    ]
    for name, of in config.ENGINES.items():
        preset = read(CONF / "engine" / f"{name}.yaml")
        text += [
            f"### {name}",
            "",
            as_markdown(f"{preset.purpose}."),
            "",
            _keys(of, preset, "engine.", skip=("name",)),
            "",
        ]
    tracker = read(CONF / "tracker" / "wandb.yaml")
    text += [
        "## Trackers",
        "",
        "`tracker=wandb`, `tracker=csv` (plain files) or `tracker=none`.",
        "",
        _keys(config.TrackerConfig, tracker, "tracker.", skip=("name",)),
        "",
        "## What fast=true lays over a suite",
        "",
        "```yaml",
        (CONF / "fast.yaml").read_text(encoding="utf-8").rstrip(),
        "```",
    ]
    return "\n".join(text)


def _below(whole: Preset, name: str) -> dict[str, str]:
    return {key.removeprefix(f"{name}."): text for key, text in whole.comments.items() if key.startswith(f"{name}.")}


def _choices(found: dict[str, Preset]) -> str:
    rows = [[f"`{preset.name}`", as_markdown(preset.purpose.rstrip("."))] for preset in found.values()]
    return table(["preset", "what it is"], rows)


def _keys(of: type, preset: Preset, prefix: str, skip: tuple[str, ...] = ()) -> str:
    """A table of a class's keys: the comment behind the value in YAML says what it means, or else the class does."""
    hints = typing.get_type_hints(of, include_extras=True)
    told = _docstrings(of)
    rows = []
    for name, hint in hints.items():
        if name in skip or typing.get_origin(hint) is typing.ClassVar:
            continue
        value = preset.values.get(name, getattr(of, name, ""))
        meaning = CHOICES.sub("", preset.comments.get(name, "")) or told.get(name, "")
        default = (
            ""
            if value == "" or not isinstance(value, str | int | float | bool | list | type(None))
            else f"`{_shown(value)}`"
        )
        rows.append([f"`{prefix}{name}`", _bounds(hint), default, as_markdown(" ".join(meaning.split()))])
    return table(["key", "takes", "default", "meaning"], rows)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _docstrings(of: type) -> dict[str, str]:
    """The strings below the fields of a class and of those that it inherits from."""
    found: dict[str, str] = {}
    for one in reversed(of.__mro__[:-1]):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(one))).body[0].body  # type: ignore[attr-defined]
        except (OSError, TypeError):
            continue
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = str(text.value.value)
    return found


def _bounds(hint: Any) -> str:
    """What a key takes, in words, from the JSON schema of its type."""
    return _said(TypeAdapter(hint).json_schema())


def _said(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        kinds = dict.fromkeys(_said(one) for one in schema["anyOf"])
        found = [kind for kind in kinds if (kind, "number" in kinds) != ("whole number", True)]
        return " or ".join(found).replace("number", f"number{_range(schema)}", 1)
    if "enum" in schema:
        return " or ".join(f"`{_shown(one)}`" for one in schema["enum"])
    if "const" in schema:
        return f"`{_shown(schema['const'])}`"
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_said(schema.get('items', {}))}".removesuffix(" of anything")
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true` or `false`",
             "null": "`null`", "object": "mapping"}  # fmt: skip
    return names.get(str(kind), "anything") + _range(schema)


def _range(schema: dict[str, Any]) -> str:
    low, above = schema.get("minimum", schema.get("ge")), schema.get("exclusiveMinimum", schema.get("gt"))
    high, below = schema.get("maximum", schema.get("le")), schema.get("exclusiveMaximum", schema.get("lt"))
    parts = [f"from {low:,}" if low is not None else "", f"above {above:,}" if above is not None else ""]
    parts += [f"to {high:,}" if high is not None and high < MANY else ""]
    parts += [f"below {below:,}" if below is not None and below < MANY else ""]
    said = " ".join(part for part in parts if part)
    return f" {said}" if said else ""
