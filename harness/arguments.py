"""Arguments of the verbs that resolve no configuration: `key=value` texts, held to the types of a class per verb."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import AfterValidator, Field

from harness.config import Count, FilePath, Name, Number, Seed, Text, TrackerConfig
from harness.planning.vocabulary import Seeds
from harness.results.columns import METRICS, OWN_NAME
from harness.validation import ConfigError, Faults, Validated, as_given, field_types, nearest, shown, validated

GRID = 61
"""most points of a loss landscape along one direction"""


def _grid_points(points: int) -> int:
    if points != 0 and not 3 <= points <= GRID:
        raise ValueError(f"0 or 3 to {GRID} points along each direction")
    return points


def _metric(name: str) -> str:
    """One that is known, or a name that a view's own evaluation may have, which is checked against it later."""
    if name not in METRICS and not re.fullmatch(f"(val|test)_{OWN_NAME}", name):
        raise ValueError(f"one of {', '.join(METRICS)}")
    return name


@dataclass(frozen=True, kw_only=True)
class Arguments(Validated):
    """What a verb was given; `spelled` has the keys that are not named like their field."""

    spelled: ClassVar[dict[str, str]] = {}
    results_dir: FilePath = "results"

    def key(self, name: str) -> str:
        return self.spelled.get(name, name)


@dataclass(frozen=True, kw_only=True)
class DoctorArguments(Arguments):
    """What `doctor` examines, and what it may change."""

    repair: bool = False
    free: bool = False


@dataclass(frozen=True, kw_only=True)
class MergeArguments(Arguments):
    """The folder that takes over, and the other one, which is only read."""

    spelled: ClassVar[dict[str, str]] = {"other": "from"}
    other: FilePath


@dataclass(frozen=True, kw_only=True)
class AdoptArguments(Arguments):
    """Which checkpoints are adopted, and how they are read."""

    spelled: ClassVar[dict[str, str]] = {"source": "from"}
    source: Text | list[Text]
    """a folder, a pattern, a file, a CSV, or a list of these; `{seed}` stands for each of `seeds`"""
    seeds: Seeds | None = None
    entry: Text = "auto"
    """auto, raw, ema, or a dotted key of what a checkpoint holds"""
    steps: Text | None = None
    """first:last:every, of those found"""
    initial: FilePath | None = None
    """a checkpoint of w(0)"""
    weights: list[Text] = field(default_factory=list)
    buffers: list[Text] = field(default_factory=list)
    """patterns of names that decide what a tensor is"""
    keep: Literal["link", "hardlink", "copy"] = "link"
    model: Text | None = None
    dataset: Text | None = None
    """of a classifier that this project knows, which it then evaluates itself"""

    def check(self) -> None:
        if (self.model is None) != (self.dataset is None):
            lacks = "model" if self.model is None else "dataset"
            raise ConfigError(f"{lacks} must be given where the other of model and dataset is, got null")
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds must all be different, got {shown(self.seeds)}")


@dataclass(frozen=True, kw_only=True)
class AnalyseArguments(Arguments):
    """How the dynamics of an adopted run are modelled and shown."""

    modes: Count = 10
    samples: Count = 1000
    """of post-hoc CMD"""
    figures: Literal["all", "none"] = "all"


@dataclass(frozen=True, kw_only=True)
class GiveArguments(Arguments):
    """Which weights are given, and where they go."""

    method: Name
    to: FilePath
    """a new path, or a new folder where it ends with a slash"""
    t: Count | None = None
    """a snapshot; None: the last"""
    seed: Seed | None = None
    dtype: Literal["source", "float32"] = "source"


@dataclass(frozen=True, kw_only=True)
class SyncArguments(Arguments):
    """A results folder, and what the command line says of the tracker."""

    tracker: dict[str, Any] = field(default_factory=dict)
    """values of `tracker.*`, `name` that of `tracker`"""


@dataclass(frozen=True, kw_only=True)
class OfView(Arguments):
    """What view a verb is for; of neither key the latest."""

    name: Text | None = None
    suite: Text | None = None
    """the view of a suite, which has its name"""

    @property
    def view(self) -> str | None:
        return self.name or self.suite


@dataclass(frozen=True, kw_only=True)
class PublishArguments(SyncArguments, OfView):
    """As for `sync`, of one view."""


@dataclass(frozen=True, kw_only=True)
class ReportArguments(OfView):
    """What to report on; column names are checked against the frame, later."""

    spelled: ClassVar[dict[str, str]] = {
        "columns": "tables.columns",
        "metric": "tables.metric",
        "target": "tables.target",
        "budget": "tables.budget",
        "landscape": "figures.landscape",
        "width": "figures.width",
        "title": "figures.title",
    }
    columns: str = ""
    metric: Annotated[str, AfterValidator(_metric)] | None = None
    """None: what the view compares by"""
    target: Annotated[Number, Field(gt=0, le=100)] | None = None
    """percent of validation accuracy"""
    budget: str = ""
    compare: FilePath | Literal[""] = ""
    figures: Literal["all", "none"] = "all"
    landscape: Annotated[int, AfterValidator(_grid_points)] = 0
    width: Literal["auto", "column", "text"] = "auto"
    """of every figure: one column of a paper, its text, or of these the one that suits the figure"""
    title: bool = True
    """whether figures have titles"""


Given = TypeVar("Given", bound=Arguments)


def read_arguments(cls: type[Given], verb: str, texts: Sequence[str]) -> Given:
    """A verb's arguments from `key=value` texts, the last of a key winning.

    A value is taken as the text that it is where its key is one for text, and read as YAML otherwise. ConfigError names
    every key that the verb does not take, and the bounds of all values that are refused.
    """
    kinds = {cls.spelled.get(name, name): (name, kind) for name, kind in field_types(cls).items()}
    tracked = {} if kinds.pop("tracker", None) is None else field_types(TrackerConfig)
    keys = {("tracker" if name == "name" else f"tracker.{name}"): (name, kind) for name, kind in tracked.items()}
    values: dict[str, Any] = {}
    tracker: dict[str, Any] = {}
    faults = Faults()
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in {**kinds, **keys}:
            takes = ", ".join([*(f"{known}=" for known in kinds), *(["tracker.*="] if keys else [])])
            near = nearest(key, [*kinds, *keys])
            faults.lines.append(
                f"{verb} takes {takes} only, got {shown(text)}{near if near.startswith('; nearest') else ''}"
            )
            continue
        into, (name, kind) = (values, kinds[key]) if key in kinds else (tracker, keys[key])
        with faults.gathered():
            into[name] = _read(key, kind, value)
    if keys:
        values["tracker"] = tracker
    given = {text.partition("=")[0] for text in texts}
    for key, (name, _) in kinds.items():
        own = cls.__dataclass_fields__[name]
        if key not in given and own.default is MISSING and own.default_factory is MISSING:
            faults.lines.append(f"{key} must be given")
    faults.check()
    return cls(**values)


def name_and_rest(verb: str, texts: Sequence[str]) -> tuple[str, list[str]]:
    """The name that a verb is given beside its `key=value` texts, and these; ConfigError where it is not one name."""
    words = [text for text in texts if "=" not in text]
    if len(words) != 1:
        raise ConfigError(f"{verb} takes one name and key=value pairs, got {', '.join(map(shown, words)) or 'no name'}")
    return validated("name", Name, words[0]), [text for text in texts if "=" in text]


def values_of_method(texts: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The values of `method.NAME.parameter=` among texts, of the method that `method=` names, and the other texts;
    ConfigError for those of another."""
    chosen = next((text.partition("=")[2] for text in reversed(texts) if text.startswith("method=")), "")
    values, rest = {}, []
    for text in texts:
        key, _, value = text.partition("=")
        parts = key.split(".")
        if parts[0] != "method" or len(parts) == 1:
            rest.append(text)
        elif len(parts) != 3 or parts[1] != chosen:
            raise ConfigError(f"{key} must be method.{chosen}.PARAMETER, of the method that is given")
        else:
            values[parts[2]] = _as_yaml(value)
    return values, rest


def _read(key: str, kind: Any, text: str) -> Any:
    """The value that a text stands for where a type is asked for."""
    with contextlib.suppress(ConfigError):
        return as_given(key, kind, text)
    return validated(key, kind, _as_yaml(text))


def _as_yaml(text: str) -> Any:
    """The value that YAML reads in a text; the text where it reads none."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
