"""A classifier and a data set that this project knows, by the names of their presets."""

from __future__ import annotations

from harness.config import BaseConfig, ConfigError
from harness.planning.compose import Request
from harness.planning.resolve import resolve


def classifier(model: str, dataset: str) -> BaseConfig:
    """A base of a timm classifier and a data set that are known here; ConfigError where one of them is not."""
    asked = (f"model={model}", f"dataset={dataset}", "method=base", "tracker=none")
    bases = resolve(Request(asked), "", compares=False).bases
    if len(bases) != 1:
        raise ConfigError(f"model and dataset must name one of each, got model={model} dataset={dataset}")
    return bases[0][0]
