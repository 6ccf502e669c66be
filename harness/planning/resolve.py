"""From composed values to a validated `Study`: bases, methods and settings, every one checked before training."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

from harness.config import (
    ENGINES,
    BaseConfig,
    ConfigError,
    DatasetConfig,
    EngineConfig,
    EvaluateConfig,
    MethodConfig,
    ModelConfig,
    OptimizerConfig,
    RayConfig,
    ScheduleConfig,
    Settings,
    SlurmConfig,
    Study,
    TrackerConfig,
    TuneConfig,
    check_bool,
    check_choice,
    check_whole,
    from_mapping,
    nearest,
)
from harness.planning.compose import (
    MANDATORY,
    KeyPath,
    Request,
    Values,
    as_names,
    available,
    compose_values,
    entry_choice,
    lay,
    load_yaml,
)
from harness.planning.methods import check_allowed, check_fits, make_importable, method_config
from harness.planning.tuned import lay_tuned
from harness.problem.datasets import check_sizes
from harness.problem.optimizers import check_optimizer, schedule

REDO = ("failed", "stale", "base", "all")
BASE_KEYS = (
    "epochs",
    "batch_size",
    "batches_per_epoch",
    "precision",
    "compile",
    "memory_format",
    "deterministic",
)


def _lay_over(values: Values, laid: Values, spoken: set[KeyPath]) -> None:
    """Lay values over a composition; below a group, `each` stands for every chosen preset, and what is for a preset
    that is not chosen is left out."""
    for group in MANDATORY:
        for name, content in (laid.get(group) or {}).items():
            for chosen in values[group] if name == "each" else {str(name)} & values[group].keys():
                lay(values[group][chosen], content, spoken, (group, chosen))
    lay(values, {key: value for key, value in laid.items() if key not in MANDATORY}, spoken)


def _lay_fast(values: Values, own: Values, spoken: set[KeyPath]) -> None:
    """The smallest version: what fast.yaml says, what every chosen method says, and `own`, of an entry of `bases`."""
    _lay_over(values, load_yaml(Path(str(files("conf"))) / "fast.yaml"), spoken)
    for name, preset in values["method"].items():
        lay(preset, preset.get("fast") or {}, spoken, ("method", name))
    _lay_over(values, own, spoken)
    if ("seeds",) not in spoken:
        values["seeds"] = values["seeds"][:1]


def _drop_unchosen(values: Values, config_dirs: Iterable[Path]) -> None:
    """Drop a suite's values for presets that are not chosen, after checking that such presets exist."""
    for group, key in MANDATORY.items():
        presets = available(group, config_dirs)
        for name in list(values[group]):
            if not isinstance(values[group][name], dict):
                raise ConfigError(f"{group}.{name} must be a mapping, got {values[group][name]!r}")
            if key not in values[group][name]:
                if name not in presets:
                    raise ConfigError(f"{group}: no preset named {name!r}{nearest(name, presets)}")
                del values[group][name]


ENTRY_KEYS = ("model", "dataset", "optimizer", "epochs", "batch_size", "method")


def _check_entry(where: str, entry: Values, config_dirs: Iterable[Path]) -> None:
    """ConfigError where an entry of `bases`, or the mapping below its `fast`, has a key or a preset that is none."""
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} must be a mapping, got {entry!r}")
    known = ENTRY_KEYS if where.endswith(".fast") else (*ENTRY_KEYS, "fast")
    for key in entry:
        if key not in known:
            raise ConfigError(f"{where} has no key {key!r}{nearest(str(key), known)}")
    methods = available("method", config_dirs)
    for name in entry.get("method") or {}:
        if name not in methods:
            raise ConfigError(f"{where}.method: no preset named {name!r}{nearest(name, methods)}")


def _entries(
    values: Values, spoken: set[KeyPath], choices: dict[str, list[str]], config_dirs: Iterable[Path]
) -> Iterator[tuple[str, str, str, Values]]:
    """(model, dataset, optimizer, values) of every base but its seed, in the plan's order, `fast` laid over them."""
    if values["bases"] is None:
        own = copy.deepcopy(values)
        if values["fast"]:
            _lay_fast(own, {}, spoken)
        for model in values["model"]:
            for dataset in values["dataset"]:
                for optimizer in values["optimizer"]:
                    yield model, dataset, optimizer, copy.deepcopy(own)
        return

    def named(entry: Values, group: str) -> list[str]:
        """What an entry names, or the choice of its suite or the command line."""
        name, _ = entry_choice(entry, group)
        if name is not None and (group,) not in spoken:
            if name not in values[group]:
                raise ConfigError(f"bases: {group} must be a preset that {group}= chooses, got {name!r}")
            return [name]
        return list(values[group]) if "all" in choices[group] else choices[group]

    found = False
    for index, entry in enumerate(values["bases"]):
        _check_entry(f"bases[{index}]", entry, config_dirs)
        fast = {} if entry.get("fast") is None else entry["fast"]
        _check_entry(f"bases[{index}].fast", fast, config_dirs)
        model = str(entry_choice(entry, "model")[0]).replace(".", "_")
        if model not in values["model"]:
            continue
        found = True
        for dataset in named(entry, "dataset"):
            for optimizer in named(entry, "optimizer"):
                own = copy.deepcopy(values)
                laid = {key: entry[key] for key in ("epochs", "batch_size", "method") if key in entry}
                for group in ("model", "dataset", "optimizer"):
                    name, content = entry_choice(entry, group)
                    laid[group] = {"each" if name is None else name.replace(".", "_"): content}
                _lay_over(own, laid, spoken)
                if values["fast"]:
                    _lay_fast(own, fast, spoken)
                yield model, dataset, optimizer, own
    if not found:
        known = ", ".join(str(entry_choice(entry, "model")[0]) for entry in values["bases"])
        raise ConfigError(f"model must be among the suite's bases ({known}), got {', '.join(values['model'])}")


def _check_top(values: Values) -> None:
    known = (
        set(load_yaml(Path(str(files("conf"))) / "config.yaml")) - {"defaults"} | set(MANDATORY) | {"tracker", "engine"}
    )
    for key in values:
        if key not in known:
            raise ConfigError(f"no key named {key!r}{nearest(key, known)}")
    check_bool("fast", values["fast"])
    check_bool("tuned", values["tuned"])
    bases = values["bases"]
    if bases is not None and not (isinstance(bases, list) and all(isinstance(e, dict) and "model" in e for e in bases)):
        raise ConfigError(f"bases must be a list of mappings with the key model, got {bases!r}")
    seeds = values["seeds"]
    if not isinstance(seeds, list) or not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds must be a list of at least 1 whole number, all different, got {seeds!r}")
    for seed in seeds:
        check_whole("seeds", seed, 0)


def _device(asked: str, engine: EngineConfig) -> str:
    """`cpu` or `cuda`; engines beyond this machine compute where their `gpus` are."""
    import torch

    check_choice("device", asked, ("auto", "cpu", "cuda"))
    found = engine.gpus > 0 if isinstance(engine, SlurmConfig | RayConfig) else torch.cuda.is_available()
    if asked == "cuda" and not found and engine.name != "local":
        raise ConfigError(f"engine.gpus must be above 0 for device=cuda, got 0 with engine={engine.name}")
    if asked == "cuda" and not found:
        raise ConfigError("device must be cpu or auto where no CUDA device is found, got cuda")
    if asked == "auto":
        return "cuda" if found else "cpu"
    return asked


def _settings(values: Values, suite: str) -> Settings:
    redo = values["redo"]
    redo = () if redo is None else tuple(as_names(redo))
    for name in redo:
        if name not in (*REDO, *values["method"]):
            raise ConfigError(f"redo must name failed, stale, base, all or a chosen method, got {name!r}")
    trajectory = values["trajectory"]
    if not isinstance(trajectory, dict) or set(trajectory) != {"keep"}:
        raise ConfigError(f"trajectory must be a mapping with the key keep only, got {trajectory!r}")
    if not values["results_dir"]:
        raise ConfigError(f"results_dir must name a folder, got {values['results_dir']!r}")
    return Settings(
        suite=suite,
        results_dir=str(Path(values["results_dir"]).absolute()),
        tracker=from_mapping(TrackerConfig, "tracker", values["tracker"]),
        engine=_engine(values["engine"]),
        trajectory_keep=trajectory["keep"],
        save=values["save"],
        redo=redo,
    )


def _engine(values: object) -> EngineConfig:
    name = values.get("name") if isinstance(values, dict) else None
    return from_mapping(ENGINES.get(str(name), EngineConfig), "engine", values)


def _optimizer(name: str, values: Values, epochs: int) -> OptimizerConfig:
    params = {k: v for k, v in values.items() if k not in ("_target_", "schedule")}
    shape = from_mapping(ScheduleConfig, f"optimizer.{name}.schedule", values.get("schedule") or {})
    config = OptimizerConfig(name, values["_target_"], params, shape)
    check_optimizer(config)
    schedule(config.schedule, epochs)
    return config


def _methods(values: Values, epochs: int, config_dirs: tuple[Path, ...]) -> tuple[MethodConfig, ...]:
    configs = []
    for name, preset in values["method"].items():
        check_allowed(f"method.{name}._target_", preset["_target_"], config_dirs)
        config = method_config(name, preset)
        check_fits(config, epochs)
        configs.append(config)
    return tuple(configs)


def resolve(request: Request, command: str) -> Study:
    """The validated study that the command line asks for; ConfigError in one line where it cannot be."""
    make_importable(request.config_dirs)
    values, suite, spoken, choices = compose_values(request)
    _check_top(values)
    _drop_unchosen(values, request.config_dirs)
    settings = _settings(values, suite)
    tune = from_mapping(TuneConfig, "tune", values["tune"], trials=values["trials"])
    device = _device(values["device"], _engine(values["engine"]))
    bases: list[tuple[BaseConfig, tuple[MethodConfig, ...]]] = []
    entries = list(_entries(values, spoken, choices, request.config_dirs))
    notes = lay_tuned(entries, settings, tune, spoken) if values["tuned"] else []
    for model, dataset, optimizer, own in entries:
        data = from_mapping(DatasetConfig, f"dataset.{dataset}", own["dataset"][dataset], name=dataset)
        check_sizes(data)
        check_whole("epochs", own["epochs"], 1)
        methods = _methods(own, own["epochs"], request.config_dirs)
        shape = from_mapping(ModelConfig, f"model.{model}", own["model"][model], name=model)
        steps = _optimizer(optimizer, own["optimizer"][optimizer], own["epochs"])
        rest = {key: own[key] for key in BASE_KEYS}
        for seed in own["seeds"]:
            base = BaseConfig(model=shape, dataset=data, optimizer=steps, seed=seed, device=device, **rest)
            bases.append((base, methods))
        evaluate = from_mapping(EvaluateConfig, "evaluate", own["evaluate"])
    return Study(settings, evaluate, tuple(bases), command, values, tune, tuple(notes))
