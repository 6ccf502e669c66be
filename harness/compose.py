"""From the command line to a validated `Study`: Hydra composes, the dataclasses of `config.py` validate.

Precedence: preset < suite < an entry of `bases` < `fast` < command line. Hydra's composition gives all but the
two in the middle; those are laid over it afterwards, leaf by leaf, except where the command line has spoken.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config import (
    BaseConfig,
    ConfigError,
    DatasetConfig,
    EngineConfig,
    EvaluateConfig,
    MethodConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    Settings,
    Study,
    TrackerConfig,
    check_bool,
    check_whole,
    from_mapping,
    nearest,
)

MANDATORY = {"model": "timm", "dataset": "source", "optimizer": "_target_", "method": "_target_"}
"""Many-choice groups, and the key that tells a chosen preset from a suite's value for one that is not chosen."""
SINGLE = ("tracker", "engine", "suite")
REDO = ("failed", "stale", "base", "all")
Values = dict[str, Any]
Path_ = tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    overrides: tuple[str, ...]
    config_dirs: tuple[Path, ...] = ()


def available(group: str, config_dirs: Iterable[Path] = ()) -> dict[str, Path]:
    """Presets of a group by name: the project's own, and those in folders given by --config-dir."""
    folders = [Path(str(files("conf"))), *config_dirs]
    return {p.stem: p for folder in folders for p in sorted((folder / group).glob("*.yaml"))}


def _load(path: Path) -> Values:
    loaded = OmegaConf.to_container(OmegaConf.load(path))
    return {str(k): v for k, v in loaded.items()} if isinstance(loaded, dict) else {}


def _names(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]


def _parse(overrides: Iterable[str]) -> list[Override]:
    parsed = []
    for text in overrides:
        if text in ("-m", "--multirun") or text.startswith("hydra"):
            raise ConfigError(
                f"{text} is not used here: give a list, such as model=[resnet18,test_vit] or seeds=[0,1,2]"
            )
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            raise ConfigError(f"not of the form key=value: {text!r}") from None
        if override.is_sweep_override():
            raise ConfigError(f"{text} is a sweep: give a list instead, such as model=[resnet18,test_vit]")
        parsed.append(override)
    return parsed


def _choices(parsed: list[Override], suite: Values, config: Values) -> dict[str, list[str]]:
    """The chosen presets of every many-choice group: command line before suite before config.yaml."""
    chosen: dict[str, list[str]] = {}
    for source in (config.get("defaults", []), suite.get("defaults", [])):
        for entry in source:
            for key, value in entry.items() if isinstance(entry, dict) else ():
                group = key.removeprefix("override").strip().lstrip("/")
                if group in MANDATORY:
                    chosen[group] = _names(value)
    spoken = {o.key_or_group: _names(o.value()) for o in parsed if o.key_or_group in MANDATORY}
    for entry in suite.get("bases") or []:
        for group in ("model", "dataset", "optimizer"):
            if group in entry and group not in spoken:
                name = str(entry[group])
                first = entry is suite["bases"][0]
                chosen[group] = [name] if first else [*chosen[group], *([] if name in chosen[group] else [name])]
    for group, names in spoken.items():
        chosen[group] = names
    return chosen


def _register(chosen: dict[str, list[str]], config_dirs: Iterable[Path]) -> None:
    """Make `all` and timm's own names stand where a preset may, and refuse every other unknown name."""
    store = ConfigStore.instance()
    for group, names in chosen.items():
        presets = available(group, config_dirs)
        store.store(group=group, name="all", node={"defaults": sorted(presets)})
        for name in names:
            if name in presets or name == "all":
                continue
            if group != "model":
                raise ConfigError(f"{group}: no preset named {name!r}{nearest(name, presets)}")
            from harness.problem.models import is_timm_model, timm_names

            if not is_timm_model(name):
                raise ConfigError(
                    f"model: no preset and no timm model named {name!r}{nearest(name, [*presets, *timm_names()])}"
                )
            blank = ModelConfig(name.replace(".", "_"), name)
            values = {k: v for k, v in vars(blank).items() if k != "name"}
            store.store(group="model", name=name, node={blank.name: values})


def _flatten(values: Mapping[str, Any], path: Path_ = ()) -> Iterator[Path_]:
    for key, value in values.items():
        yield (*path, str(key))
        if isinstance(value, Mapping):
            yield from _flatten(value, (*path, str(key)))


def _check_keys(parsed: list[Override], composed: Values) -> None:
    """Every overridden key must exist; `+` may add below an open mapping, which validation then checks."""
    known = {".".join(p) for p in _flatten(composed)}
    groups = (*MANDATORY, *SINGLE)
    for override in parsed:
        key = override.key_or_group
        if key in groups or key in known or override.is_add():
            continue
        group, _, rest = key.partition(".")
        preset = rest.split(".")[0]
        if group in MANDATORY and preset not in composed[group]:
            raise ConfigError(f"{key}: {preset!r} is not among the chosen {group}s ({', '.join(composed[group])})")
        raise ConfigError(f"no key named {key!r}{nearest(key, known | set(groups))}")


def compose_values(request: Request) -> tuple[Values, str, set[Path_], dict[str, list[str]]]:
    """Hydra's composition as plain values, the suite's name, the leaves that the command line spoke of, and
    the groups it chose from."""
    parsed = _parse(request.overrides)
    for override in parsed:
        if override.key_or_group in SINGLE and override.value() is not None:
            presets = available(override.key_or_group, request.config_dirs)
            if str(override.value()) not in presets:
                raise ConfigError(
                    f"{override.key_or_group}: no preset named {override.value()!r}{nearest(str(override.value()), presets)}"
                )
    suite = next(
        (str(o.value()) for o in reversed(parsed) if o.key_or_group == "suite" and o.value() is not None), None
    )
    suite_values = {} if suite is None else _load(available("suite", request.config_dirs)[suite])
    config = _load(Path(str(files("conf"))) / "config.yaml")
    chosen = _choices(parsed, suite_values, config)
    _register(chosen, request.config_dirs)
    search = ",".join(f"'file://{folder.resolve()}'" for folder in request.config_dirs)
    groups = [f"{group}=[{','.join(names)}]" for group, names in chosen.items()]
    groups += [o.input_line or "" for o in parsed if o.key_or_group in SINGLE]
    groups += [f"hydra.searchpath=[{search}]"]
    GlobalHydra.instance().clear()
    with initialize_config_module("conf", version_base="1.3"):
        try:
            _check_keys(parsed, _container(compose("config", overrides=groups)))
            values = [o.input_line or "" for o in parsed if o.key_or_group not in (*MANDATORY, *SINGLE)]
            composed = _container(compose("config", overrides=[*groups, *values]))
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(" ".join(str(error).split())) from error
    spoken = {tuple(o.key_or_group.split(".")) for o in parsed}
    return composed, suite or "adhoc", spoken, chosen


def _container(config: Any) -> Values:
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(k): v for k, v in container.items()}


def lay(target: Values, values: Mapping[str, Any], spoken: set[Path_], path: Path_ = ()) -> None:
    """Lay values over a composition in place, leaf by leaf, except where the command line has spoken."""
    for key, value in values.items():
        here = (*path, str(key))
        if here in spoken:
            continue
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            lay(target[key], value, spoken, here)
        else:
            target[key] = copy.deepcopy(value)


def _lay_fast(values: Values, spoken: set[Path_]) -> None:
    fast = _load(Path(str(files("conf"))) / "fast.yaml")
    for group in ("model", "dataset"):
        each = fast.pop(group)["each"]
        for name in values[group]:
            lay(values[group][name], each, spoken, (group, name))
    lay(values, fast, spoken)
    for name, preset in values["method"].items():
        lay(preset, preset.get("fast") or {}, spoken, ("method", name))
    if ("seeds",) not in spoken:
        values["seeds"] = values["seeds"][:1]


def _drop_unchosen(values: Values, config_dirs: Iterable[Path]) -> None:
    """Drop a suite's values for presets that are not chosen, after checking that such presets exist."""
    for group, key in MANDATORY.items():
        presets = available(group, config_dirs)
        for name in list(values[group]):
            if key not in (values[group][name] or {}):
                if name not in presets:
                    raise ConfigError(f"{group}: no preset named {name!r}{nearest(name, presets)}")
                del values[group][name]


def _entries(values: Values, spoken: set[Path_], config_dirs: Iterable[Path]) -> Iterator[tuple[str, str, str, Values]]:
    """(model, dataset, optimizer, values) of every base but its seed, in the plan's order."""
    if values["bases"] is None:
        for model in values["model"]:
            for dataset in values["dataset"]:
                for optimizer in values["optimizer"]:
                    yield model, dataset, optimizer, values
        return
    known = ("model", "dataset", "optimizer", "epochs", "batch_size", "method")
    methods = available("method", config_dirs)
    found = False
    for index, entry in enumerate(values["bases"]):
        for key in entry:
            if key not in known:
                raise ConfigError(f"bases[{index}] has no key {key!r}{nearest(str(key), known)}")
        for name in entry.get("method") or {}:
            if name not in methods:
                raise ConfigError(f"bases[{index}].method: no preset named {name!r}{nearest(name, methods)}")
        model = str(entry["model"]).replace(".", "_")
        if model not in values["model"]:
            continue
        found = True
        own = copy.deepcopy(values)
        lengths = {k: entry[k] for k in ("epochs", "batch_size") if k in entry}
        chosen = {k: v for k, v in (entry.get("method") or {}).items() if k in own["method"]}
        lay(own, {**lengths, "method": chosen}, spoken)
        for dataset in [str(entry["dataset"])] if "dataset" in entry and ("dataset",) not in spoken else own["dataset"]:
            for optimizer in (
                [str(entry["optimizer"])] if "optimizer" in entry and ("optimizer",) not in spoken else own["optimizer"]
            ):
                yield model, dataset, optimizer, own
    if not found:
        raise ConfigError(
            f"model must be among the suite's bases ({', '.join(str(e['model']) for e in values['bases'])}), "
            f"got {', '.join(values['model'])}"
        )


def _check_top(values: Values) -> None:
    known = set(_load(Path(str(files("conf"))) / "config.yaml")) - {"defaults"} | set(MANDATORY) | {"tracker", "engine"}
    for key in values:
        if key not in known:
            raise ConfigError(f"no key named {key!r}{nearest(key, known)}")
    check_bool("fast", values["fast"])
    seeds = values["seeds"]
    if not isinstance(seeds, list) or not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds must be a list of at least 1 different whole number, got {seeds!r}")
    for seed in seeds:
        check_whole("seeds", seed, 0)


def _device(asked: str) -> str:
    import torch

    found = torch.cuda.is_available()
    if asked == "cuda" and not found:
        raise ConfigError("device must be cpu or auto where no CUDA device is found, got cuda")
    if asked == "auto":
        return "cuda" if found else "cpu"
    return asked


def _settings(values: Values, suite: str) -> Settings:
    redo = values["redo"]
    redo = () if redo is None else tuple(_names(redo))
    for name in redo:
        if name not in (*REDO, *values["method"]):
            raise ConfigError(f"redo must name failed, stale, base, all or a chosen method, got {name!r}")
    trajectory = values["trajectory"]
    if set(trajectory) != {"keep"}:
        raise ConfigError(f"trajectory has the key keep only, got {', '.join(trajectory)}")
    return Settings(
        suite=suite,
        results_dir=str(Path(values["results_dir"]).absolute()),
        tracker=from_mapping(TrackerConfig, "tracker", values["tracker"]),
        engine=from_mapping(EngineConfig, "engine", values["engine"]),
        trajectory_keep=trajectory["keep"],
        save=values["save"],
        redo=redo,
    )


def _optimizer(name: str, values: Values) -> OptimizerConfig:
    from harness.problem.optimizers import check_optimizer

    params = {k: v for k, v in values.items() if k not in ("_target_", "schedule")}
    schedule = from_mapping(ScheduleConfig, f"optimizer.{name}.schedule", values.get("schedule") or {})
    config = OptimizerConfig(name, values["_target_"], params, schedule)
    check_optimizer(config)
    return config


def _methods(values: Values, epochs: int, config_dirs: tuple[Path, ...]) -> tuple[MethodConfig, ...]:
    from harness.presets import check_allowed, make_method, method_config

    configs = []
    for name, preset in values["method"].items():
        check_allowed(f"method.{name}._target_", preset["_target_"], config_dirs)
        config = method_config(name, preset)
        try:
            make_method(config).needs(epochs)
        except ValueError as error:
            raise ConfigError(f"method.{name}.{error}") from error
        configs.append(config)
    return tuple(configs)


def resolve(request: Request, command: str) -> Study:
    """The validated study that the command line asks for; ConfigError in one line where it cannot be."""
    from harness.problem.datasets import check_sizes

    for folder in request.config_dirs:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir must be a folder, got {folder}")
        if str(folder.resolve()) not in sys.path:
            sys.path.append(str(folder.resolve()))
    values, suite, spoken, _ = compose_values(request)
    _check_top(values)
    _drop_unchosen(values, request.config_dirs)
    settings = _settings(values, suite)
    device = _device(values["device"])
    bases: list[tuple[BaseConfig, tuple[MethodConfig, ...]]] = []
    for model, dataset, optimizer, entry in _entries(values, spoken, request.config_dirs):
        own = copy.deepcopy(entry)
        if values["fast"]:
            _lay_fast(own, spoken)
        data = from_mapping(DatasetConfig, f"dataset.{dataset}", own["dataset"][dataset], name=dataset)
        check_sizes(data)
        check_whole("epochs", own["epochs"], 1)
        methods = _methods(own, own["epochs"], request.config_dirs)
        for seed in own["seeds"]:
            base = BaseConfig(
                model=from_mapping(ModelConfig, f"model.{model}", own["model"][model], name=model),
                dataset=data,
                optimizer=_optimizer(optimizer, own["optimizer"][optimizer]),
                seed=seed,
                device=device,
                **{
                    key: own[key]
                    for key in (
                        "epochs", "batch_size", "batches_per_epoch", "precision", "compile", "memory_format", "deterministic",
                    )
                },
            )  # fmt: skip
            bases.append((base, methods))
        evaluate = from_mapping(EvaluateConfig, "evaluate", own["evaluate"])
    return Study(settings, evaluate, tuple(bases), command, values)
