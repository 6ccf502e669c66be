"""The final model of a cell that was run with `save=final`."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from harness.config import (
    BaseConfig,
    ConfigError,
    DatasetConfig,
    FederationConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from harness.problem.models import build_model, check_name
from harness.storage.inside import is_file
from harness.storage.store import Record, Store
from harness.storage.tensors import read_unsealed
from harness.validation import reason


def base_from_record(record: Record) -> BaseConfig:
    """The base's configuration as it was recorded, but for pretrained weights, in whose place others were recorded.

    ConfigError where it is none that a command would take, such as of a model that timm would look up on a hub.
    """
    try:
        values = dict(record["config"]["base"])
        optimizer, model = dict(values.pop("optimizer")), {**values.pop("model"), "pretrained": False}
        schedule = ScheduleConfig(**optimizer.pop("schedule"))
        base = BaseConfig(
            model=ModelConfig(**model),
            dataset=DatasetConfig(**values.pop("dataset")),
            optimizer=OptimizerConfig(schedule=schedule, **optimizer),
            federation=FederationConfig(**values.pop("federation", {})),
            **values,
        )
        check_name(base.model)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"cell {record['cell_key']} must hold the configuration of its base: {reason(error)}"
        ) from error
    return base


def load_model(results_dir: Path | str, cell_key: str) -> nn.Module:
    """The ready model of a cell, on the CPU in evaluation mode, its BatchNorm as the cell was evaluated.

    All that it holds was stored with the cell, so that pretrained weights that training began at need not be here.

    ConfigError where the cell is unknown, was run without `save=final` or is of no model that a command would take.
    """
    store = Store(Path(results_dir))
    record = store.record(cell_key)
    if record is None:
        raise ConfigError(f"cell_key must be a cell of {results_dir}, got {cell_key!r}")
    path = store.cell_folder(cell_key) / "weights.safetensors"
    if not is_file(path):
        raise ConfigError(f"cell {cell_key} holds no weights: run its suite with save=final")
    base = base_from_record(record)
    model = build_model(base.model, base.dataset, base.seed)
    tensors, _ = read_unsealed(path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ConfigError(f"{path} must hold the weights of the cell's model: {reason(error)[:500]}") from error
    return model.eval()
