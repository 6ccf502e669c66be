"""Validated configuration: what Hydra composed (`compose.py`) as frozen dataclasses that check themselves.

Every error is a `ConfigError` of one line that names key, bound and value, raised before anything trains.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """Bad input: one line naming key, bound and value."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; nearest: a, b` for an error that rejects `name`."""
    known = sorted(set(known))
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; nearest: {', '.join(close)}" if close else f"; one of: {', '.join(known[:20])}"


def check_at_least(key: str, value: Any, least: float) -> None:
    """`value` must be a number, and at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
        raise ConfigError(f"{key} must be at least {least}, got {value!r}")


def check_whole(key: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{key} must be a whole number, got {value!r}")
    check_at_least(key, value, least)


def check_choice(key: str, value: Any, choices: Iterable[Any]) -> None:
    choices = tuple(choices)
    if value not in choices:
        raise ConfigError(f"{key} must be one of {', '.join(map(str, choices))}, got {value!r}")


def check_bool(key: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{key} must be true or false, got {value!r}")


def from_mapping(cls: type[T], key: str, values: Any, **given: Any) -> T:
    """The dataclass `cls` from a composed mapping, refusing unknown and missing keys; `given` fields come from code."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{key} must be a mapping, got {values!r}")
    names = {f.name for f in fields(cls)} - set(given)  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise ConfigError(f"{key} has no key {name!r}{nearest(str(name), names)}")
    required = {p.name for p in inspect.signature(cls).parameters.values() if p.default is p.empty}
    for name in sorted(required - set(values) - set(given)):
        raise ConfigError(f"{key}.{name} must be given")
    return cls(**values, **given)


@dataclass(frozen=True)
class ModelConfig:
    """A timm model; what is None follows from the data set where the model takes it."""

    name: str
    timm: str
    pretrained: bool | str = False
    """false, true (timm's weights) or the path of a weights file"""
    img_size: int | None = None
    patch_size: int | None = None
    in_chans: int | None = None
    head_classes: int | None = None
    """outputs of the head, where more than the data set has classes"""
    stem: str = "default"
    """`small`: a 3x3 stride-1 first convolution and no max-pooling, for small images (ResNets)"""
    drop_rate: float | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    """anything else that the timm model takes"""

    def __post_init__(self) -> None:
        key = f"model.{self.name}"
        for name in ("img_size", "patch_size", "in_chans", "head_classes"):
            if getattr(self, name) is not None:
                check_whole(f"{key}.{name}", getattr(self, name), 1)
        check_choice(f"{key}.stem", self.stem, ("default", "small"))
        if not isinstance(self.pretrained, bool | str):
            raise ConfigError(f"{key}.pretrained must be true, false or a path, got {self.pretrained!r}")


@dataclass(frozen=True)
class DatasetConfig:
    """Where images come from, how they are split and augmented."""

    name: str
    source: str
    digest: str | None
    """SHA-256 of the genuine data; None where it is not declared, and keys follow from what is found"""
    channels: int
    size: int
    """height and width of the stored images"""
    classes: int
    mean: list[float]
    std: list[float]
    val_size: int
    train_size: int | None = None
    """images trained on; None: all that validation leaves"""
    test_size: int | None = None
    split_seed: int = 0
    root: str | None = None
    resize: int | None = None
    crop_padding: int = 0
    flip: bool = False
    crop_scale: float = 1.0
    """of a streamed data set: least share of an image that a random crop takes before it is resized"""
    workers: int = 0
    """of a streamed data set: processes that decode images for one job; 0: the job's own"""

    def __post_init__(self) -> None:
        key = f"dataset.{self.name}"
        check_whole(f"{key}.val_size", self.val_size, 1)
        check_whole(f"{key}.channels", self.channels, 1)
        check_whole(f"{key}.size", self.size, 1)
        check_whole(f"{key}.classes", self.classes, 1)
        check_whole(f"{key}.workers", self.workers, 0)
        if isinstance(self.crop_scale, bool) or not isinstance(self.crop_scale, int | float):
            raise ConfigError(f"{key}.crop_scale must be a number, got {self.crop_scale!r}")
        if not 0 < self.crop_scale <= 1:
            raise ConfigError(f"{key}.crop_scale must be above 0 and at most 1, got {self.crop_scale!r}")
        check_whole(f"{key}.crop_padding", self.crop_padding, 0)
        check_whole(f"{key}.split_seed", self.split_seed, 0)
        check_bool(f"{key}.flip", self.flip)
        for name in ("train_size", "test_size", "resize"):
            if getattr(self, name) is not None:
                check_whole(f"{key}.{name}", getattr(self, name), 1)
        if any(not value > 0 for value in self.std):
            raise ConfigError(f"{key}.std must be above 0 in every channel, got {self.std!r}")
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.channels:
                raise ConfigError(f"{key}.{name} must have {self.channels} values, got {getattr(self, name)!r}")

    @property
    def image_size(self) -> int:
        """Height and width of the images that a model sees."""
        return self.size if self.resize is None else self.resize


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning-rate schedule of a base, as a factor over its whole length."""

    name: str = "none"
    warmup_epochs: float = 0.0
    """linear from 0 to the full rate"""

    def __post_init__(self) -> None:
        check_choice("optimizer.schedule.name", self.name, ("none", "cosine"))
        check_at_least("optimizer.schedule.warmup_epochs", self.warmup_epochs, 0)


@dataclass(frozen=True)
class OptimizerConfig:
    name: str
    target: str
    params: dict[str, Any]
    schedule: ScheduleConfig = ScheduleConfig()


BATCHNORM_POLICIES = ("recalibrate", "as_is", "averaged")


@dataclass(frozen=True)
class MethodConfig:
    """One setting of a method's class; its preset's name is the cell's `method`."""

    name: str
    target: str
    params: dict[str, Any]
    """every parameter of the class, defaults filled in"""
    batchnorm: str = "recalibrate"
    search: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice(f"method.{self.name}.batchnorm", self.batchnorm, BATCHNORM_POLICIES)


@dataclass(frozen=True)
class EvaluateConfig:
    every: int = 1
    """validation every so many epochs, and at the last"""
    test: str = "last"
    """the test split at the `last` epoch, or at `every` evaluated one"""
    recalibrate_images: int = 1024
    """training images, un-augmented, that BatchNorm statistics are recalibrated on"""
    batch_size: int = 256
    reconstructions: str = "last"
    """reconstructions at the `last` epoch, or at `every` evaluated one"""

    def __post_init__(self) -> None:
        check_whole("evaluate.every", self.every, 1)
        check_whole("evaluate.recalibrate_images", self.recalibrate_images, 1)
        check_whole("evaluate.batch_size", self.batch_size, 1)
        check_choice("evaluate.test", self.test, ("last", "every"))
        check_choice("evaluate.reconstructions", self.reconstructions, ("last", "every"))

    def epochs(self, last: int) -> tuple[int, ...]:
        """The evaluated epochs of a run that ends at `last`."""
        return tuple(t for t in range(1, last + 1) if t % self.every == 0 or t == last)


@dataclass(frozen=True)
class BaseConfig:
    """One training run: model, dataset, optimizer, seed, and all else that changes its numbers."""

    model: ModelConfig
    dataset: DatasetConfig
    optimizer: OptimizerConfig
    seed: int
    epochs: int
    batch_size: int
    batches_per_epoch: int | None
    """the first so many of an epoch's batches only; None: all full batches"""
    precision: str
    compile: bool
    memory_format: str
    deterministic: bool
    device: str
    """`cpu` or `cuda`"""

    def __post_init__(self) -> None:
        check_whole("seeds", self.seed, 0)
        check_whole("epochs", self.epochs, 1)
        check_whole("batch_size", self.batch_size, 1)
        if self.batches_per_epoch is not None:
            check_whole("batches_per_epoch", self.batches_per_epoch, 1)
        check_choice("precision", self.precision, ("float32", "bfloat16"))
        check_choice("memory_format", self.memory_format, ("channels_last", "contiguous"))
        check_choice("device", self.device, ("cpu", "cuda"))
        if self.precision == "bfloat16" and self.device == "cpu":
            # oneDNN's bfloat16 weight gradients of strided convolutions on 1x1 maps were seen to be garbage
            raise ConfigError(
                "precision must be float32 on the cpu, where bfloat16 gradients are unreliable, got bfloat16"
            )
        check_bool("compile", self.compile)
        check_bool("deterministic", self.deterministic)

    @property
    def label(self) -> str:
        """`test_resnet-digits-sgd_momentum-s0`"""
        return f"{self.model.name}-{self.dataset.name}-{self.optimizer.name}-s{self.seed}"


ARTIFACTS = ("none", "tables", "models", "all")


@dataclass(frozen=True)
class TrackerConfig:
    name: str
    mode: str = "auto"
    """auto: online where a key is configured and the server answers, otherwise offline"""
    base_url: str | None = None
    """None, here and below: what W&B's environment variables and settings say"""
    entity: str | None = None
    project: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    artifacts: str = "tables"
    """none; tables: frame, tables, report; models: and what `save=final` keeps; all: and manifests of trajectories"""

    def __post_init__(self) -> None:
        check_choice("tracker", self.name, ("wandb", "csv", "none"))
        check_choice("tracker.mode", self.mode, ("auto", "offline", "online", "disabled"))
        check_choice("tracker.artifacts", self.artifacts, ARTIFACTS)
        if isinstance(self.tags, str) or not isinstance(self.tags, Sequence):
            raise ConfigError(f"tracker.tags must be a list, got {self.tags!r}")
        for name in ("base_url", "entity", "project", "notes"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"tracker.{name} must be a text, got {value!r}")
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"tracker.base_url must begin with http:// or https://, got {self.base_url!r}")

    def keeps(self, what: str) -> bool:
        """Whether artifacts of a kind, one of ARTIFACTS, are asked for: each choice includes those before it."""
        return ARTIFACTS.index(what) <= ARTIFACTS.index(self.artifacts)


@dataclass(frozen=True)
class EngineConfig:
    name: str
    workers: int | str = "auto"
    """jobs at once; auto: as many as cores allow at `threads` each, or `per_device` on every GPU"""
    threads: int = 1
    """CPU threads of one job; sums in float32 differ between thread counts"""
    per_device: int = 1
    """jobs that share one GPU where workers is auto"""
    retries: int = 1
    """how often a job whose process was lost is started again"""

    def __post_init__(self) -> None:
        check_choice("engine", self.name, tuple(ENGINES))
        check_whole("engine.threads", self.threads, 1)
        check_whole("engine.per_device", self.per_device, 1)
        check_whole("engine.retries", self.retries, 0)
        if self.workers != "auto":
            check_whole("engine.workers", self.workers, 1)


@dataclass(frozen=True)
class SlurmConfig(EngineConfig):
    """Jobs of a Slurm cluster; None is the cluster's default."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    minutes: int = 120
    """time limit of a job"""
    requeues: int = 100
    """how often a job may come to its limit and go on"""
    memory_gb: float | None = None
    gpus: int = 0
    signal_seconds: int = 90
    """before the limit, when a job is requeued"""
    setup: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    """other options of sbatch by their long names"""
    poll_seconds: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("minutes", 1), ("requeues", 0), ("gpus", 0), ("signal_seconds", 1)):
            check_whole(f"engine.{name}", getattr(self, name), least)
        if self.signal_seconds >= 60 * self.minutes:
            raise ConfigError(
                f"engine.signal_seconds must be below {60 * self.minutes}, the seconds of engine.minutes, "
                f"got {self.signal_seconds}"
            )
        check_at_least("engine.poll_seconds", self.poll_seconds, 0.1)
        if self.memory_gb is not None:
            check_at_least("engine.memory_gb", self.memory_gb, 0.1)
        for name in ("partition", "account", "qos"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"engine.{name} must be a text, got {value!r}")
        if not isinstance(self.setup, list) or not all(isinstance(line, str) for line in self.setup):
            raise ConfigError(f"engine.setup must be a list of shell lines, got {self.setup!r}")
        if not isinstance(self.parameters, dict):
            raise ConfigError(f"engine.parameters must be a mapping of sbatch's options, got {self.parameters!r}")


@dataclass(frozen=True)
class RayConfig(EngineConfig):
    """Tasks of a Ray cluster."""

    address: str = "local"
    """`local`, `auto` or host:port"""
    gpus: float = 0.0
    """of one job"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("engine.gpus", self.gpus, 0)
        if not isinstance(self.address, str) or not self.address:
            raise ConfigError(f"engine.address must be local, auto or host:port, got {self.address!r}")


ENGINES: dict[str, type[EngineConfig]] = {"local": EngineConfig, "slurm": SlurmConfig, "ray": RayConfig}


@dataclass(frozen=True)
class Settings:
    """What a command does with its bases and cells, none of which changes a number."""

    suite: str
    results_dir: str
    tracker: TrackerConfig
    engine: EngineConfig
    trajectory_keep: str
    save: str
    redo: tuple[str, ...]

    def __post_init__(self) -> None:
        check_choice("trajectory.keep", self.trajectory_keep, ("all", "warmup", "none"))
        check_choice("save", self.save, ("none", "final"))
        if self.tracker.keeps("models") and self.save != "final":
            raise ConfigError(
                f"save must be final where tracker.artifacts is {self.tracker.artifacts}, got {self.save}"
            )


METRICS = ("accuracy", "loss")
SAMPLERS = ("tpe", "random", "qmc", "grid", "gp")
PRUNERS = ("median", "hyperband", "none")


@dataclass(frozen=True)
class TuneConfig:
    """How `tune` searches; every method gets the same budget on every model, dataset and optimizer."""

    trials: int | None = 50
    seconds: float | None = None
    """of a method's own trials, whichever of the two budgets ends first"""
    metric: str = "accuracy"
    """of the validation split at the last epoch, averaged over seeds"""
    sampler: str = "tpe"
    pruner: str = "median"
    """of methods that train on their own, over epochs and seeds"""
    seed: int = 0
    batch: int = 10
    """trials that are suggested at once: they share a shadow run, or one reading of the snapshots"""
    parameters: list[str] | None = None
    """those of the search space to tune; None: all"""
    storage: str | None = None
    """an RDB URL; None: a journal file in the results folder"""
    name: str | None = None
    """of another study beside the suite's own"""

    def __post_init__(self) -> None:
        if self.trials is not None:
            check_whole("trials", self.trials, 1)
        elif self.seconds is None:
            raise ConfigError("trials must be a whole number where tune.seconds is none, got null")
        if self.seconds is not None:
            check_at_least("tune.seconds", self.seconds, 0)
        check_choice("tune.metric", self.metric, METRICS)
        check_choice("tune.sampler", self.sampler, SAMPLERS)
        check_choice("tune.pruner", self.pruner, PRUNERS)
        check_whole("tune.seed", self.seed, 0)
        check_whole("tune.batch", self.batch, 1)
        if self.parameters is not None and (not isinstance(self.parameters, list) or not self.parameters):
            raise ConfigError(f"tune.parameters must be a list of at least 1 name, got {self.parameters!r}")
        if self.storage is not None and not isinstance(self.storage, str):
            raise ConfigError(f"tune.storage must be a database URL, got {self.storage!r}")
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", str(self.name)):
            raise ConfigError(f"tune.name must consist of letters, digits, _ and -, got {self.name!r}")

    @property
    def budget(self) -> str:
        """`30 trials`, `60 s`, or both."""
        trials = None if self.trials is None else f"{self.trials} trials"
        seconds = None if self.seconds is None else f"{self.seconds:g} s of its own trials"
        return " or ".join(text for text in (trials, seconds) if text is not None)


@dataclass(frozen=True)
class Study:
    """A resolved configuration: the bases, each with its methods, and how to run them."""

    settings: Settings
    evaluate: EvaluateConfig
    bases: tuple[tuple[BaseConfig, tuple[MethodConfig, ...]], ...]
    command: str
    composed: dict[str, Any]
    """what Hydra composed, before `bases` and `fast`: what was asked for, for the plan"""
    tune: TuneConfig = TuneConfig()
    notes: tuple[str, ...] = ()
    """what a person must know of the settings, one line each"""
