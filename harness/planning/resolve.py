"""From composed values to a validated `Experiment`: bases, methods and settings, all checked before training."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml

from harness.config import (
    ENGINES,
    BaseConfig,
    DatasetConfig,
    EngineConfig,
    EngineName,
    Epochs,
    EvaluateConfig,
    ModelConfig,
    OptimizerConfig,
    RayConfig,
    ScheduleConfig,
    Settings,
    SlurmConfig,
    StatisticsConfig,
    Text,
    TrackerConfig,
    TuneConfig,
)
from harness.packages import CONF
from harness.planning.compose import (
    LIST_GROUPS,
    Composition,
    KeyPath,
    Request,
    Values,
    as_names,
    available,
    compose_values,
    entry_choice,
    load_yaml,
    overlay,
)
from harness.planning.experiment import Experiment
from harness.planning.methods import RESERVED, FittedMethod, check_allowed, make_importable, resolved_method
from harness.planning.slots import finds_cuda
from harness.planning.tuned import overlay_tuned
from harness.planning.vocabulary import BaseEntry, FastEntry, TopLevel, check_seeds
from harness.problem.datasets import check_sizes
from harness.problem.optimizers import check_optimizer, schedule
from harness.validation import ConfigError, check_names, check_whole_numbers, from_mapping, nearest, shown, validated

REDO_CHOICES = ("failed", "stale", "base", "all")
BASE_KEYS = (
    "epochs",
    "batch_size",
    "batches_per_epoch",
    "precision",
    "compile",
    "memory_format",
    "deterministic",
)


def _overlay_presets(values: Values, laid: Values, overridden: set[KeyPath]) -> None:
    """Lay values over a composition; below a group, `each` stands for every chosen preset, and what is for a preset
    that is not chosen is left out."""
    for group in LIST_GROUPS:
        for name, content in (laid.get(group) or {}).items():
            for chosen in values[group] if name == "each" else {str(name)} & values[group].keys():
                overlay(values[group][chosen], content, overridden, (group, chosen))
    overlay(values, {key: value for key, value in laid.items() if key not in LIST_GROUPS}, overridden)


def _overlay_fast(values: Values, own: Values, overridden: set[KeyPath]) -> None:
    """The smallest version: what fast.yaml says, what every chosen method says, and `own`, of an entry of `bases`."""
    _overlay_presets(values, load_yaml(CONF / "fast.yaml"), overridden)
    for name, preset in values["method"].items():
        fast = validated(f"method.{name}.fast", dict[str, Any] | None, preset.get("fast")) or {}
        overlay(preset, fast, overridden, ("method", name))
    _overlay_presets(values, own, overridden)
    if ("seeds",) not in overridden:
        values["seeds"] = values["seeds"][:1]


def _drop_unchosen(composed: Composition, config_dirs: Iterable[Path]) -> None:
    """Drop a suite's values for presets that are not chosen, after checking that such presets exist."""
    for group, key in LIST_GROUPS.items():
        presets, values = available(group, config_dirs), composed.values[group]
        names = [name for chosen in composed.chosen[group] for name in (presets if chosen == "all" else [chosen])]
        chosen = {name.replace(".", "_") if name not in presets else name for name in names}
        for name in chosen:
            if name not in values or key not in values[name]:
                raise ConfigError(f"{group}.{name}.{key} must be given")
        for name in values.keys() - chosen:
            if name not in presets:
                raise ConfigError(f"{group}: no preset named {name!r}{nearest(name, presets)}")
            del values[name]


def _entry_values(where: str, kind: type[BaseEntry] | type[FastEntry], entry: Values, methods: Iterable[str]) -> Values:
    """What an entry of `bases`, or its `fast`, lays over a composition, but for its presets; ConfigError where it has a
    key, a value or a method's preset that is none."""
    from_mapping(kind, where, entry)
    check_seeds(f"{where}.seeds", entry.get("seeds") or [])
    for key in ("method", "without"):
        for name in entry.get(key) or ():
            if name not in methods:
                raise ConfigError(f"{where}.{key}: no preset named {name!r}{nearest(name, methods)}")
    return {key: entry[key] for key in ("epochs", "batch_size", "seeds", "method") if entry.get(key) is not None}


def _entry_presets(where: str, entry: Values) -> Values:
    """The values of an entry for its presets, by group and name."""
    laid = {}
    for group in ("model", "dataset", "optimizer"):
        name, content = entry_choice(entry, group, where)
        if group == "model" and name is None:
            raise ConfigError(f"{where}.model must name a model, got {shown(entry['model'])}")
        laid[group] = {"each" if name is None else name.replace(".", "_"): content}
    return laid


def _entries(composed: Composition, config_dirs: Iterable[Path]) -> Iterator[tuple[str, str, str, Values]]:
    """(model, dataset, optimizer, values) of every base but its seed, in the plan's order, `fast` laid over them."""
    values, overridden, choices = composed.values, composed.overridden, composed.choices
    if values["bases"] is None:
        own = copy.deepcopy(values)
        if values["fast"]:
            _overlay_fast(own, {}, overridden)
        for model in values["model"]:
            for dataset in values["dataset"]:
                for optimizer in values["optimizer"]:
                    yield model, dataset, optimizer, copy.deepcopy(own)
        return

    def named(entry: Values, group: str) -> list[str]:
        """What an entry names, or the choice of its suite or the command line."""
        name, _ = entry_choice(entry, group)
        if name is not None and (group,) not in overridden:
            if name not in values[group]:
                raise ConfigError(f"bases: {group} must be a preset that {group}= chooses, got {name!r}")
            return [name]
        return list(values[group]) if "all" in choices[group] else choices[group]

    found, methods = False, available("method", config_dirs)
    for index, entry in enumerate(values["bases"]):
        where = f"bases[{index}]"
        laid = _entry_values(where, BaseEntry, entry, methods) | _entry_presets(where, entry)
        fast = entry.get("fast") or {}
        _entry_values(f"{where}.fast", FastEntry, fast, methods)
        (model,) = laid["model"]
        if model not in values["model"]:
            continue
        found = True
        for dataset in named(entry, "dataset"):
            for optimizer in named(entry, "optimizer"):
                own = copy.deepcopy(values)
                _overlay_presets(own, laid, overridden)
                if values["fast"]:
                    _overlay_fast(own, fast, overridden)
                for name in () if ("method",) in overridden else entry.get("without") or ():
                    own["method"].pop(name, None)
                yield model, dataset, optimizer, own
    if not found:
        known = ", ".join(str(entry_choice(entry, "model")[0]) for entry in values["bases"])
        raise ConfigError(f"model must be among the suite's bases ({known}), got {', '.join(values['model'])}")


def _device(asked: Literal["auto", "cpu", "cuda"], engine: EngineConfig) -> Literal["cpu", "cuda"]:
    """`cpu` or `cuda`; engines beyond this machine compute where their `gpus` are."""
    found = asked != "cpu" and (engine.gpus > 0 if isinstance(engine, SlurmConfig | RayConfig) else finds_cuda())
    if asked == "cuda" and not found and engine.name != "local":
        raise ConfigError(f"engine.gpus must be above 0 for device=cuda, got 0 with engine={engine.name}")
    if asked == "cuda" and not found:
        raise ConfigError("device must be cpu or auto where no CUDA device is found, got cuda")
    if asked == "auto":
        return "cuda" if found else "cpu"
    return asked


def _settings(values: Values, suite: str) -> Settings:
    redo = () if values["redo"] is None else tuple(as_names(values["redo"]))
    for name in redo:
        if name not in (*REDO_CHOICES, *values["method"]):
            raise ConfigError(f"redo must name failed, stale, base, all or a chosen method, got {name!r}")
    check_names("trajectory", values["trajectory"], ("keep",))
    if "keep" not in values["trajectory"]:
        raise ConfigError("trajectory.keep must be given")
    return Settings(
        suite=suite,
        results_dir=str(Path(values["results_dir"]).absolute()),
        tracker=from_mapping(TrackerConfig, "tracker", values["tracker"]),
        engine=_engine(values["engine"]),
        trajectory_keep=values["trajectory"]["keep"],
        save=values["save"],
        redo=redo,
    )


def _statistics(values: Values, config_dirs: tuple[Path, ...]) -> StatisticsConfig:
    """What is to be decided; ConfigError where it names a method that is no preset."""
    found = from_mapping(StatisticsConfig, "statistics", values)
    presets = available("method", config_dirs)
    for index, entry in enumerate(found.primary or []):
        for name in [entry] if isinstance(entry, str) else [*entry, *entry.values()]:
            if name not in presets:
                raise ConfigError(f"statistics.primary[{index}]: no method named {name!r}{nearest(name, presets)}")
    return found


def _engine(values: Values) -> EngineConfig:
    name = validated("engine.name", EngineName, values.get("name"))
    return from_mapping(ENGINES[name], "engine", values)


def _optimizer(name: str, values: Values, epochs: int) -> OptimizerConfig:
    """An optimizer and its schedule from a preset's values, whose keys are checked against its class."""
    key = f"optimizer.{name}"
    target = validated(f"{key}._target_", Text, values["_target_"])
    params = {k: v for k, v in values.items() if k not in ("_target_", "schedule", "rates")}
    shape = from_mapping(ScheduleConfig, f"{key}.schedule", values.get("schedule", {}))
    config = OptimizerConfig(name, target, params, shape, values.get("rates"))
    check_optimizer(config)
    schedule(config.schedule, epochs)
    return config


def _methods(values: Values, epochs: int, config_dirs: tuple[Path, ...]) -> tuple[FittedMethod, ...]:
    """The chosen methods, each built once to ask what it declares for so many epochs."""
    fitted, presets = [], available("method", config_dirs)
    for name, preset in values["method"].items():
        key = f"method.{name}._target_"
        check_allowed(key, validated(key, Text, preset["_target_"]), config_dirs)
        found = resolved_method(name, preset, epochs)
        control = found.config.control
        if control is not None and control not in presets:
            raise ConfigError(f"method.{name}.control: no method named {control!r}{nearest(control, presets)}")
        fitted.append(replace(found, changed=_changed(name, preset, presets[name])))
    return tuple(fitted)


@lru_cache(maxsize=256)
def _preset_values(path: Path, written_ns: int, name: str) -> Values:
    """What a preset's own file, as it was written then, gives it; read by YAML's fast parser, since composition has
    checked the file."""
    own = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)).get(name)
    return own if isinstance(own, dict) else {}


def _changed(name: str, given: Values, path: Path) -> Values:
    """The parameters of a method that have other values than its preset's file gives them."""
    own = _preset_values(path, path.stat().st_mtime_ns, name)

    def as_in_file(key: str, value: Any) -> bool:
        there = own.get(key, own)
        with contextlib.suppress(ValueError):  # YAML's parser leaves 1e-3 a text
            there = float(there) if isinstance(there, str) and isinstance(value, float) else there
        return bool(there == value)

    return {key: value for key, value in given.items() if key not in RESERVED and not as_in_file(key, value)}


def resolve(request: Request, command: str) -> Experiment:
    """The validated experiment that the command line asks for; ConfigError in one line where it cannot be."""
    make_importable(request.config_dirs)
    return validate(compose_values(request), request.config_dirs, command)


def validate(composed: Composition, config_dirs: tuple[Path, ...], command: str) -> Experiment:
    """The experiment that composed values say; ConfigError in one line where a key has no such value."""
    values = composed.values
    values |= vars(from_mapping(TopLevel, "", values))
    _drop_unchosen(composed, config_dirs)
    settings = _settings(values, composed.suite)
    tune = from_mapping(TuneConfig, "tune", values["tune"], trials=values["trials"])
    evaluate = from_mapping(EvaluateConfig, "evaluate", values["evaluate"])
    statistics = _statistics(values["statistics"], config_dirs)
    device = _device(values["device"], settings.engine)
    entries = list(_entries(composed, config_dirs))
    notes = overlay_tuned(entries, settings, tune, composed.overridden) if values["tuned"] else []
    bases: list[tuple[BaseConfig, tuple[FittedMethod, ...]]] = []
    for model, dataset, optimizer, own in entries:
        data = from_mapping(DatasetConfig, f"dataset.{dataset}", own["dataset"][dataset], name=dataset)
        check_sizes(data)
        epochs = validated("epochs", Epochs, own["epochs"])
        methods = _methods(own, epochs, config_dirs)
        shape = from_mapping(ModelConfig, f"model.{model}", own["model"][model], name=model)
        steps = _optimizer(optimizer, own["optimizer"][optimizer], epochs)
        rest = {key: own[key] for key in BASE_KEYS}
        for seed in own["seeds"]:
            base = BaseConfig(model=shape, dataset=data, optimizer=steps, seed=seed, device=device, **rest)
            bases.append((base, methods))
        evaluate = from_mapping(EvaluateConfig, "evaluate", own["evaluate"])
    check_whole_numbers("", composed.values)
    return Experiment(settings, evaluate, tuple(bases), command, values, tune, statistics, tuple(notes))
