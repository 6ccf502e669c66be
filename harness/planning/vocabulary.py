"""What a composition holds: its top level, entries of `bases`, and entries of a method's `search`, with their types.

The values of a chosen preset have classes of their own in `harness/config.py`; those that lie in `bases` or `fast` are
laid over a preset first and checked as a part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from harness.config import (
    ENGINES,
    Count,
    DatasetConfig,
    Epochs,
    EvaluateConfig,
    FederationConfig,
    FilePath,
    MethodConfig,
    ModelConfig,
    Name,
    Number,
    Options,
    Save,
    Seed,
    Text,
    TrackerConfig,
    TrajectoryConfig,
    TuneConfig,
    ViewName,
)
from harness.validation import ConfigError, Validated, check_choice, field_types, from_mapping, shown

PARTS = {"tracker": TrackerConfig, "evaluate": EvaluateConfig, "tune": TuneConfig, "trajectory": TrajectoryConfig}
"""classes of the top level's mappings that are the same whatever is chosen"""
GROUPS = {"model": ModelConfig, "dataset": DatasetConfig, "federation": FederationConfig, "method": MethodConfig}
"""classes of presets whose keys are the classes' own"""
OF_CLASSES = ("name", "target", "params")
"""fields of these that are no keys"""
Presets = dict[str, dict[str, Any]]
"""values of presets by their names"""


Seeds = Annotated[list[Seed], Field(min_length=1)]


@dataclass(frozen=True)
class TopLevel(Validated):
    """What a composition holds before entries of `bases`, `fast` and `tuned` are laid over it."""

    model: Presets
    dataset: Presets
    optimizer: Presets
    federation: Presets
    method: Presets
    tracker: dict[str, Any]
    engine: dict[str, Any]
    evaluate: dict[str, Any]
    trajectory: dict[str, Any]
    tune: dict[str, Any]
    statistics: dict[str, Any]
    name: ViewName | None
    adopted: Name | None
    bases: Annotated[list[dict[str, Any]], Field(min_length=1)] | None
    seeds: Seeds
    epochs: Epochs
    batch_size: Count
    batches_per_epoch: Count | None
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["float32", "bfloat16"]
    compile: bool
    memory_format: Literal["channels_last", "contiguous"]
    deterministic: bool
    results_dir: FilePath
    save: Save
    redo: Text | list[Text] | None
    trials: int | None
    tuned: bool
    fast: bool

    def check(self) -> None:
        check_seeds("seeds", self.seeds)


def check_seeds(key: str, seeds: list[int]) -> None:
    """ConfigError where a seed is named twice."""
    if len(set(seeds)) != len(seeds):
        raise ConfigError(f"{key} must all be different, got {shown(seeds)}")


def kind_of(key: str) -> Any | None:
    """The annotated type of a key of the command line; None where it is a preset's own, which its class declares."""
    match key.split("."):
        case [name]:
            return field_types(TopLevel).get(name)
        case ["engine", name]:
            return {k: kind for cls in ENGINES.values() for k, kind in field_types(cls).items()}.get(name)
        case ["tracker" | "evaluate" | "tune" | "trajectory" as part, name]:
            return field_types(PARTS[part]).get(name)
        case ["optimizer" | "method", _, "_target_"]:
            return Text
        case ["model" | "dataset" | "federation" | "method" as group, _, name] if name not in OF_CLASSES:
            return field_types(GROUPS[group]).get(name)
    return None


Choice = Text | dict[str, Options]
"""A preset's name, or one name with a mapping of values; `each` stands for whichever preset is chosen."""


@dataclass(frozen=True, kw_only=True)
class EntryValues(Validated):
    """What an entry of `bases` and its `fast` may say beside presets."""

    epochs: Epochs | None = None
    batch_size: Count | None = None
    method: dict[str, Options] | None = None


@dataclass(frozen=True, kw_only=True)
class FastEntry(EntryValues):
    """What an entry of `bases` lays over itself with fast=true: presets are chosen already, and have values by name."""

    model: dict[str, Options] | None = None
    dataset: dict[str, Options] | None = None
    optimizer: dict[str, Options] | None = None
    federation: dict[str, Options] | None = None


@dataclass(frozen=True, kw_only=True)
class BaseEntry(EntryValues):
    """An entry of `bases`: a model, what it is trained on and with, and values of its own."""

    model: Choice
    dataset: Choice | None = None
    optimizer: Choice | None = None
    federation: Choice | None = None
    fast: dict[str, Any] | None = None
    seeds: Seeds | None = None
    without: list[Text] | None = None
    """methods that are left out on this base, unless the command line chooses methods"""


@dataclass(frozen=True)
class WholeRange(Validated):
    """A range of whole numbers in a method's `search`, both ends included."""

    low: Annotated[int, Field(gt=-(2**53), lt=2**53)]
    high: Annotated[int, Field(gt=-(2**53), lt=2**53)]
    log: bool = False


@dataclass(frozen=True)
class RealRange(Validated):
    """A range of numbers in a method's `search`, both ends included."""

    low: Annotated[Number, Field(gt=-1e300, lt=1e300)]
    high: Annotated[Number, Field(gt=-1e300, lt=1e300)]
    log: bool = False


@dataclass(frozen=True)
class Choices(Validated):
    """The values that a parameter is searched among."""

    choices: Annotated[list[bool | int | float | str | None], Field(min_length=1)]


@dataclass(frozen=True)
class LengthBounds(Validated):
    """What a length of a method comes to at least and at most, where it is given as a share of the epochs."""

    least: Count = 1
    most: Count | None = None


SEARCHES: dict[str, type[WholeRange | RealRange | Choices]] = {
    "int": WholeRange,
    "float": RealRange,
    "categorical": Choices,
}
"""what an entry of a method's `search` holds beside its `type`, by that type"""


def check_search_entry(key: str, entry: Any) -> None:
    """ConfigError where an entry of a method's `search`, at `key`, is none or its range is empty."""
    if not isinstance(entry, dict) or "type" not in entry:
        raise ConfigError(f"{key} must be a mapping with the key type, got {shown(entry)}")
    check_choice(f"{key}.type", entry["type"], SEARCHES)
    found = from_mapping(SEARCHES[entry["type"]], key, {name: v for name, v in entry.items() if name != "type"})
    if isinstance(found, Choices):
        return
    if found.low > found.high:
        raise ConfigError(f"{key} must not be empty: low must be at most high = {found.high}, got {found.low}")
    if found.log and found.low <= 0:
        raise ConfigError(f"{key}.low must be above 0 on a logarithmic scale, got {found.low}")
