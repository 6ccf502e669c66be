"""The final model of a cell that was run with `save=final`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from harness.config import BaseConfig, ConfigError, DatasetConfig, ModelConfig, OptimizerConfig, ScheduleConfig
from harness.problem.models import build_model
from harness.storage.store import Record, Store


def base_from_record(record: Record) -> BaseConfig:
    """The base's configuration as it was recorded."""
    values = dict(record["config"]["base"])
    optimizer = dict(values.pop("optimizer"))
    schedule = ScheduleConfig(**optimizer.pop("schedule"))
    return BaseConfig(
        model=ModelConfig(**values.pop("model")),
        dataset=DatasetConfig(**values.pop("dataset")),
        optimizer=OptimizerConfig(schedule=schedule, **optimizer),
        **values,
    )


def load_model(results_dir: Path | str, cell_key: str) -> nn.Module:
    """The ready model of a cell, on the CPU in evaluation mode, its BatchNorm as the cell was evaluated.

    All that it holds was stored with the cell, so that pretrained weights that training began at need not be here.

    ConfigError where the cell is unknown or was run without `save=final`.
    """
    store = Store(Path(results_dir))
    record = store.record(cell_key)
    if record is None:
        raise ConfigError(f"cell_key must be a cell of {results_dir}, got {cell_key!r}")
    path = store.cell_folder(cell_key) / "weights.safetensors"
    if not path.exists():
        raise ConfigError(f"cell {cell_key} holds no weights: run its suite with save=final")
    base = base_from_record(record)
    model = build_model(replace(base.model, pretrained=False), base.dataset, base.seed)
    model.load_state_dict(load_file(path))
    return model.eval()
