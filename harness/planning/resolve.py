"""From composed values to a validated `Experiment`: bases, methods and settings, all checked before training."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterable, Set
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import yaml

from harness.config import (
    ENGINES,
    MOST_EPOCHS,
    OWN,
    RECALIBRATED,
    BaseConfig,
    DatasetConfig,
    EngineConfig,
    EngineName,
    EvaluateConfig,
    FederationConfig,
    FlowerConfig,
    ModelConfig,
    OptimizerConfig,
    RayConfig,
    ScheduleConfig,
    Settings,
    SlurmConfig,
    StatisticsConfig,
    Text,
    TrackerConfig,
    TrajectoryConfig,
    TuneConfig,
)
from harness.packages import CONF
from harness.planning.adopted import (
    adopted_base,
    adopted_runs,
    check_callable,
    check_evaluation,
    check_given,
    check_replays,
    plain_control,
    with_defaults,
    with_policy,
)
from harness.planning.compose import (
    BASE_GROUPS,
    LIST_GROUPS,
    NO_SUITE,
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
from harness.planning.controls import Controls, add_controls, without
from harness.planning.experiment import Entry, Experiment
from harness.planning.methods import (
    RESERVED,
    FittedMethod,
    check_allowed,
    make_importable,
    method_config,
    resolved_method,
    shares,
    with_lengths,
)
from harness.planning.norms import check_batch_size, check_own_batch_size, suits
from harness.planning.slots import finds_cuda
from harness.planning.tuned import overlay_tuned
from harness.planning.vocabulary import BaseEntry, FastEntry, TopLevel, check_seeds
from harness.problem.datasets import assumed, completed, most_train_images, train_images
from harness.problem.optimizers import check_optimizer, schedule
from harness.problem.partition import check_clients
from harness.validation import (
    ConfigError,
    Faults,
    check_names,
    field_types,
    from_mapping,
    nearest,
    shown,
    too_long,
    validated,
)

if TYPE_CHECKING:
    from harness.checkpoints.registry import Named
    from harness.checkpoints.runs import AdoptedRun

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
    faults = Faults()
    for group, key in LIST_GROUPS.items():
        presets, values = available(group, config_dirs), composed.values[group]
        names = [name for chosen in composed.chosen[group] for name in (presets if chosen == "all" else [chosen])]
        chosen = {name.replace(".", "_") if name not in presets else name for name in names}
        for name in chosen:
            if name not in values or key not in values[name]:
                faults.lines.append(f"{group}.{name}.{key} must be given")
        for name in values.keys() - chosen:
            if name not in presets:
                faults.lines.append(f"{group}: no preset named {name!r}{nearest(name, presets)}")
            del values[name]
    faults.check()


def _entry_values(where: str, kind: type[BaseEntry] | type[FastEntry], entry: Values, methods: Iterable[str]) -> Values:
    """What an entry of `bases`, or its `fast`, lays over a composition, but for its presets; ConfigError where it has a
    key, a value or a method's preset that is none."""
    from_mapping(kind, where, entry)
    check_seeds(f"{where}.seeds", entry.get("seeds") or [])
    unknown = [
        f"{where}.{key}: no preset named {name!r}{nearest(name, methods)}"
        for key in ("method", "without")
        for name in entry.get(key) or ()
        if name not in methods
    ]
    if unknown:
        raise ConfigError(*unknown)
    return {key: entry[key] for key in ("epochs", "batch_size", "seeds", "method") if entry.get(key) is not None}


def _entry_presets(where: str, entry: Values) -> Values:
    """The values of an entry for its presets, by group and name."""
    laid = {}
    for group in BASE_GROUPS:
        name, content = entry_choice(entry, group, where)
        if group == "model" and name is None:
            raise ConfigError(f"{where}.model must name a model, got {shown(entry['model'])}")
        laid[group] = {"each" if name is None else name.replace(".", "_"): content}
    return laid


def _entries(composed: Composition, config_dirs: Iterable[Path], controls: Controls, faults: Faults) -> list[Entry]:
    """Every base but its seed, in the plan's order, `fast` laid over them; entries of `bases` with faults left out."""
    values, overridden, choices = composed.values, composed.overridden, composed.choices
    if values["bases"] is None:
        own = copy.deepcopy(values)
        if values["fast"]:
            _overlay_fast(own, {}, overridden)
        return [
            Entry._make((*names, copy.deepcopy(own)))
            for names in itertools.product(*(values[group] for group in BASE_GROUPS))
        ]

    selects = faults.tried(_selecting, values, overridden)
    if selects is None:
        return []

    def named(entry: Values, group: str) -> list[str]:
        """What an entry names, or the choice of its suite or the command line; nothing where that is another entry."""
        name, _ = entry_choice(entry, group)
        if name is not None and group in selects:
            return [name] if name in values[group] else []
        if name is not None and (group,) not in overridden:
            if name not in values[group]:
                raise ConfigError(f"bases: {group} must be a preset that {group}= chooses, got {name!r}")
            return [name]
        return list(values[group]) if "all" in choices[group] else choices[group]

    found, methods, made = False, available("method", config_dirs), list[Entry]()
    for index, entry in enumerate(values["bases"]):
        where = f"bases[{index}]"
        with faults.gathered():
            laid = _entry_values(where, BaseEntry, entry, methods) | _entry_presets(where, entry)
            fast = entry.get("fast") or {}
            _entry_values(f"{where}.fast", FastEntry, fast, methods)
            (model,) = laid["model"]
            if model not in values["model"]:
                continue
            found = True
            others = (named(entry, group) for group in BASE_GROUPS if group != "model")
            for names in itertools.product([model], *others):
                own = copy.deepcopy(values)
                _overlay_presets(own, laid, overridden)
                if values["fast"]:
                    _overlay_fast(own, fast, overridden)
                for name in without(entry, ("method",) in overridden, controls):
                    own["method"].pop(name, None)
                _add(made, Entry._make((*names, own)))
    if not found and not faults:
        known = ", ".join(str(entry_choice(entry, "model")[0]) for entry in values["bases"])
        faults.lines.append(f"model must be among the suite's bases ({known}), got {', '.join(values['model'])}")
    return made


def _selecting(values: Values, overridden: set[KeyPath]) -> set[str]:
    """The groups in which the command line names what entries of `bases` name, and so chooses among them; ConfigError
    where it names something else beside."""
    entries = [entry for entry in values["bases"] if entry_choice(entry, "model")[0] in values["model"]]
    found = set()
    for group in BASE_GROUPS.keys() - {"model"}:
        named = dict.fromkeys(entry_choice(entry, group)[0] for entry in entries)
        others = [name for name in values[group] if name not in named]
        if (group,) in overridden and len(others) < len(values[group]):
            if others and None not in named:
                known = ", ".join(map(str, named))
                raise ConfigError(f"{group} must be among the suite's bases ({known}), got {', '.join(others)}")
            found.add(group)
    return found


def _add(made: list[Entry], entry: Entry) -> None:
    """Add an entry, or to one that differs in nothing but methods those that it lacks: where the command line names
    what no entry does, several may come to one."""
    own = entry.values
    for other in made:
        known = other.values
        if other.names == entry.names and all(known[key] == own[key] for key in own if key != "method"):
            known["method"].update(
                {name: values for name, values in own["method"].items() if name not in known["method"]}
            )
            return
    made.append(entry)


def _device(asked: Literal["auto", "cpu", "cuda"], engine: EngineConfig) -> Literal["cpu", "cuda"]:
    """`cpu` or `cuda`; engines beyond this machine compute where their `gpus` are."""
    if isinstance(engine, FlowerConfig) and asked == "cuda":
        raise ConfigError("device must be cpu or auto with engine=flower, whose clients compute on the CPU, got cuda")
    if isinstance(engine, FlowerConfig):
        return "cpu"
    found = asked != "cpu" and (engine.gpus > 0 if isinstance(engine, SlurmConfig | RayConfig) else finds_cuda())
    if asked == "cuda" and not found and engine.name != "local":
        raise ConfigError(f"engine.gpus must be above 0 for device=cuda, got 0 with engine={engine.name}")
    if asked == "cuda" and not found:
        raise ConfigError("device must be cpu or auto where no CUDA device is found, got cuda")
    if asked == "auto":
        return "cuda" if found else "cpu"
    return asked


def _settings(values: Values, suite: str, view: str) -> Settings:
    faults = Faults()
    redo = () if values["redo"] is None else tuple(as_names(values["redo"]))
    for name in redo:
        if name not in (*REDO_CHOICES, *values["method"]):
            faults.lines.append(f"redo must name failed, stale, base, all or a chosen method, got {name!r}")
    trajectory = faults.tried(from_mapping, TrajectoryConfig, "trajectory", values["trajectory"])
    tracker = faults.tried(from_mapping, TrackerConfig, "tracker", values["tracker"])
    engine = faults.tried(_engine, values["engine"])
    faults.check()
    assert tracker is not None
    assert engine is not None
    assert trajectory is not None
    return Settings(
        suite=suite,
        results_dir=str(Path(values["results_dir"]).absolute()),
        tracker=tracker,
        engine=engine,
        trajectory=trajectory,
        save=values["save"],
        redo=redo,
        view=view,
    )


def _statistics(values: Values, config_dirs: tuple[Path, ...]) -> StatisticsConfig:
    """What is to be decided; ConfigError where it names a method that is no preset."""
    found = from_mapping(StatisticsConfig, "statistics", values)
    presets = available("method", config_dirs)
    unknown = [
        f"statistics.primary[{index}]: no method named {name!r}{nearest(name, presets)}"
        for index, entry in enumerate(found.primary or [])
        for name in ([entry] if isinstance(entry, str) else [*entry, *entry.values()])
        if name not in presets
    ]
    if unknown:
        raise ConfigError(*unknown)
    return found


def _engine(values: Values) -> EngineConfig:
    name = validated("engine.name", EngineName, values.get("name"))
    return from_mapping(ENGINES[name], "engine", values)


def _optimizer(name: str, values: Values, epochs: int | None) -> OptimizerConfig:
    """An optimizer and its schedule from a preset's values, whose keys are checked against its class; whether the
    schedule fits the epochs, where these are known."""
    key, faults = f"optimizer.{name}", Faults()
    target = validated(f"{key}._target_", Text, values["_target_"])
    params = {k: v for k, v in values.items() if k not in ("_target_", "schedule", "rates")}
    shape = faults.tried(from_mapping, ScheduleConfig, f"{key}.schedule", values.get("schedule", {}))
    config = faults.tried(OptimizerConfig, name, target, params, shape or ScheduleConfig(), values.get("rates"))
    if config is None:
        faults.check()
    assert config is not None
    faults.tried(check_optimizer, config)
    if epochs is not None:
        faults.tried(schedule, config.schedule, epochs)
    faults.check()
    return config


def _methods(
    values: Values,
    epochs: int | None,
    config_dirs: tuple[Path, ...],
    controls: Controls,
    notes: list[str],
    faults: Faults,
    suited: FederationConfig | None = None,
) -> tuple[FittedMethod, ...]:
    """The chosen methods and the controls that they need, each built to ask what it declares for so many epochs; where
    these are not known, only the types of their parameters are checked. Methods with `faults` are left out, and lines
    on lengths given as shares go to `notes`; where all are asked for, those that do not run on `suited` too."""
    presets = available("method", config_dirs)
    said: dict[str, list[str]] = {}

    def checked(name: str, preset: Values) -> Values:
        """The values of a preset, its lengths whole numbers."""
        key = f"method.{name}._target_"
        check_allowed(key, validated(key, Text, preset["_target_"]), config_dirs)
        return with_lengths(name, preset, MOST_EPOCHS if epochs is None else epochs)

    def check_control(name: str, control: str | None) -> None:
        if control is not None and control not in presets:
            raise ConfigError(f"method.{name}.control: no method named {control!r}{nearest(control, presets)}")

    def resolved(name: str, preset: Values) -> FittedMethod:
        assert epochs is not None
        whole = checked(name, preset)
        found = resolved_method(name, preset, epochs)
        for parameter, (share, number) in shares(preset, whole).items():
            of = said.setdefault(f"{parameter} {share} is {number}", [])
            of += [name] if name not in of else []
        check_control(name, found.config.control)
        return replace(found, changed=_changed(name, preset, presets[name]))

    fitted: list[FittedMethod] = []
    for name, preset in values["method"].items():
        if name in controls.names:
            continue
        with faults.gathered():
            if epochs is None:
                check_control(name, method_config(name, checked(name, preset)).control)
            else:
                fitted.append(resolved(name, preset))
    if suited is not None:
        fitted = [method for method in fitted if suits(suited, method)]
        names = {method.name for method in fitted}
        kept = {what: [name for name in of if name in names] for what, of in said.items()}
        said = {what: of for what, of in kept.items() if of}
    fitted = [*controls.fit(values["method"], tuple(fitted), resolved)]
    if said:
        notes.append(f"of {epochs} epochs " + ", ".join(f"{what} ({', '.join(of)})" for what, of in said.items()))
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


def resolve(request: Request, command: str, compares: bool = True) -> Experiment:
    """The validated experiment that the command line asks for; ConfigError, with all that is wrong, where it cannot be.

    `compares`: whether methods are compared, so that their controls are there too.
    """
    make_importable(request.config_dirs)
    faults, request = Faults(), replace(request, overrides=with_defaults(request.overrides))
    composed = faults.tried(compose_values, request, faults)
    experiment = None if composed is None else faults.tried(validate, composed, request.config_dirs, command, compares)
    faults.check()
    assert experiment is not None
    return experiment


def _check_top_level(values: Values, faults: Faults) -> set[str]:
    """Hold the top level to its types, in place; what is refused has its value of config.yaml from then on, and is
    returned. ConfigError where it has none there."""
    defaults, refused = load_yaml(CONF / "config.yaml"), set()
    kinds = field_types(TopLevel)
    with faults.gathered():
        check_names("", values, kinds)
    for name, kind in kinds.items():
        if name in values:
            with faults.gathered():
                values[name] = validated(name, kind, values[name])
                continue
        else:
            faults.lines.append(f"{name} must be given")
        refused.add(name)
        if name not in defaults:
            faults.check()
        values[name] = defaults[name]
    with faults.gathered():
        TopLevel(**{name: values[name] for name in kinds})
    return refused


def validate(composed: Composition, config_dirs: tuple[Path, ...], command: str, compares: bool = True) -> Experiment:
    """The experiment that composed values say; ConfigError, with all that is wrong, where keys have no such value."""
    values, faults = composed.values, Faults()
    refused = composed.refused | _check_top_level(values, faults)
    statistics = faults.tried(_statistics, values["statistics"], config_dirs)
    controls, runs, plain = Controls(), None, RECALIBRATED
    if values["adopted"] is not None:
        runs = _adopted(composed, config_dirs, faults)
        plain = plain_control(from_mapping(EvaluateConfig, "evaluate", values["evaluate"]), runs[0])
    with faults.gathered():
        if compares and statistics is not None:
            controls = add_controls(composed, statistics, config_dirs, plain)
        if all(isinstance(own, dict) and own.get("clients") for own in values["federation"].values()):
            plain = "base"  # federated averaging: exchanges are not recalibrated, since nobody has all images
        _drop_unchosen(composed, config_dirs)
    if any(key not in preset for group, key in LIST_GROUPS.items() for preset in values[group].values()):
        faults.check()
    suite = composed.suite if runs is None or composed.suite != NO_SUITE else runs[0].name
    settings = faults.tried(_settings, values, suite, composed.view)
    tune = faults.tried(from_mapping, TuneConfig, "tune", values["tune"], trials=values["trials"])
    evaluate = faults.tried(from_mapping, EvaluateConfig, "evaluate", values["evaluate"])
    device = None if settings is None else faults.tried(_device, values["device"], settings.engine)
    entries = _entries(composed, config_dirs, controls, faults) if runs is None else [_own_entry(composed, runs)]
    notes: list[str] = []
    if values["tuned"] and settings is not None and tune is not None and not refused:
        notes += faults.tried(overlay_tuned, entries, settings, tune, composed.overridden, controls.names) or []
    bases: list[tuple[BaseConfig, tuple[FittedMethod, ...]]] = []
    everything = "all" in composed.chosen["method"]
    for entry in entries:
        with faults.gathered():
            if runs is None:
                bases += _bases(entry, device, refused, composed.overridden, config_dirs, controls, notes, everything)
            else:
                bases += _adopted_bases(entry, device, runs, config_dirs, controls, notes)
        evaluate = faults.tried(from_mapping, EvaluateConfig, "evaluate", entry.values["evaluate"])
    faults.lines += [
        line for line in too_long(values) if not any(f.split()[0] == line.split()[0] for f in faults.lines)
    ]
    faults.check()
    assert settings is not None
    assert tune is not None
    assert evaluate is not None
    assert statistics is not None
    if isinstance(settings.engine, FlowerConfig) and any(base.federation.clients == 0 for base, _ in bases):
        raise ConfigError(
            "engine=flower runs federations: federation must have clients, such as federation=iid_10, got none"
        )
    said = tuple(dict.fromkeys([*notes, *controls.notes()]))
    return Experiment(
        settings,
        evaluate,
        tuple(bases),
        command,
        values,
        tune,
        statistics,
        said,
        controls.names,
        controls.stated,
        tuple(entries),
        plain,
    )


Runs: TypeAlias = "tuple[Named, list[AdoptedRun]]"


def _adopted(composed: Composition, config_dirs: tuple[Path, ...], faults: Faults) -> Runs:
    """The runs of the name that is asked for; ConfigError where there is none, or keys do not go with it."""
    values = composed.values
    faults.lines += check_given(composed.overridden)
    asked = values["seeds"] if ("seeds",) in composed.overridden and not values["tuned"] else None
    faults.check()
    runs = adopted_runs(values["results_dir"], values["adopted"], asked)
    evaluate = faults.tried(from_mapping, EvaluateConfig, "evaluate", values["evaluate"])
    if evaluate is not None:
        faults.tried(check_evaluation, evaluate, runs[0])
        faults.tried(check_callable, evaluate, config_dirs)
    faults.check()
    return runs


def _own_entry(composed: Composition, runs: Runs) -> Entry:
    """What an entry of `bases` would be for an adopted run."""
    named, own = runs[0], copy.deepcopy(composed.values)
    own |= {"epochs": runs[1][0].epochs, "seeds": [run.seed for run in runs[1]]}
    return Entry(named.name, OWN if named.dataset is None else named.dataset, OWN, "none", own)


def _adopted_bases(
    entry: Entry,
    device: Literal["cpu", "cuda"] | None,
    runs: Runs,
    config_dirs: tuple[Path, ...],
    controls: Controls,
    notes: list[str],
) -> list[tuple[BaseConfig, tuple[FittedMethod, ...]]]:
    """An adopted run's bases, one of each seed, with the methods that can follow it."""
    named, found = runs
    own, faults = entry.values, Faults()
    evaluate = from_mapping(EvaluateConfig, "evaluate", own["evaluate"])
    bases: list[tuple[BaseConfig, tuple[FittedMethod, ...]]] = []
    for run in [run for run in found if run.seed in own["seeds"]]:
        methods = []
        for method in _methods(own, run.epochs, config_dirs, controls, notes, faults):
            added, tried = method.name in controls.names, Faults()
            kept = tried.tried(with_policy, method, evaluate)
            if kept is not None:
                tried.tried(check_replays, kept, run)
            if added:
                notes += [f"controls not added: {line}" for line in tried.lines]
            else:
                faults.lines += tried.lines
            methods += [kept] if kept is not None and not tried.lines else []
        bases.append((adopted_base(named, run, device or "cpu"), tuple(methods)))
    faults.lines = list(dict.fromkeys(faults.lines))
    faults.check()
    if (
        evaluate.is_own
        and evaluate.buffers == "last"
        and any("running_var" in own.name for run in found for own in run.buffers)
    ):
        notes.append("running statistics are the last snapshot's own: evaluate.buffers=recalibrate takes them anew")
    return bases


def _bases(
    entry: Entry,
    device: Literal["cpu", "cuda"] | None,
    refused: Set[str],
    overridden: set[KeyPath],
    config_dirs: tuple[Path, ...],
    controls: Controls,
    notes: list[str],
    everything: bool,
) -> list[tuple[BaseConfig, tuple[FittedMethod, ...]]]:
    """An entry's bases, one of each seed, with their methods; lines on what followed from elsewhere go to `notes`.

    `everything`: all methods are asked for, of which those that do not run on the base's federation, or on none, are
    left out. ConfigError with all that is wrong, but for what would follow from keys that were `refused`.
    """
    model, dataset, optimizer, federation, own = entry
    faults, kinds = Faults(), field_types(BaseConfig)
    rest: Values = {key: faults.tried(validated, key, kinds[key], own[key]) for key in BASE_KEYS}
    unsure = any(key == "dataset" or key.startswith("dataset.") for key in refused)
    data = faults.tried(_data, dataset, own, overridden, notes, unsure)
    images = None
    if data is not None and not unsure:
        images = faults.tried(train_images, data) or Faults().tried(most_train_images, data)
    if data is not None and images is not None:
        if own["fast"]:
            _shrink_batches(rest, images, overridden)
        if not {"batch_size", "batches_per_epoch", "fast"} & refused:
            faults.tried(check_batch_size, data, rest["batch_size"], rest["batches_per_epoch"], images)
    of_epochs = {"epochs", "method", "fast", "tuned", "bases", *(("model",) if own["bases"] is not None else ())}
    epochs: int | None = None if of_epochs & refused else rest["epochs"]
    clients = faults.tried(
        from_mapping, FederationConfig, f"federation.{federation}", own["federation"][federation], name=federation
    )
    methods = _methods(own, epochs, config_dirs, controls, notes, faults, clients if everything else None)
    if data is not None and images is not None:
        for method in methods:
            faults.tried(check_own_batch_size, data, method, images)
    shape = faults.tried(from_mapping, ModelConfig, f"model.{model}", own["model"][model], name=model)
    steps = faults.tried(_optimizer, optimizer, own["optimizer"][optimizer], epochs)
    if data is not None and images is not None and clients is not None:
        faults.tried(check_clients, clients, data)
    if data is None or shape is None or steps is None or device is None or clients is None:
        faults.check()
        return []
    made = [
        faults.tried(BaseConfig, shape, data, steps, seed, device=device, federation=clients, **rest)
        for seed in own["seeds"]
    ]
    faults.check()
    return [(base, methods) for base in made if base is not None]


def _data(name: str, own: Values, overridden: set[KeyPath], notes: list[str], unsure: bool) -> DatasetConfig:
    """A data set from its preset's values and from its files, which say what is left out there.

    With `fast`, splits are of what it says at most. Where some of its values are `unsure`, the files are not asked.
    """
    key, values = f"dataset.{name}", own["dataset"][name]
    bounded = [size for size in ("val_size", "test_size") if own["fast"] and ("dataset", name, size) not in overridden]
    faults = Faults()
    faults.lines += too_long(values, key)
    faults.check()
    found = None if unsure else faults.tried(completed, key, values, bounded)
    whole, lines = (assumed(values), []) if found is None else found
    config = faults.tried(from_mapping, DatasetConfig, key, whole, name=name)
    faults.check()
    assert config is not None
    notes += [f"dataset {name}: {line}" for line in lines]
    return config


def _shrink_batches(rest: Values, images: int, overridden: set[KeyPath]) -> None:
    """With `fast`, batches are of as many images as there are at most, and as many as these give."""
    if ("batch_size",) not in overridden and rest["batch_size"] is not None:
        rest["batch_size"] = min(rest["batch_size"], images)
    if ("batches_per_epoch",) not in overridden and None not in (rest["batches_per_epoch"], rest["batch_size"]):
        rest["batches_per_epoch"] = max(1, min(rest["batches_per_epoch"], images // rest["batch_size"]))
