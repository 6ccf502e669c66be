"""The configuration's vocabulary: frozen dataclasses whose annotations say the type and the bounds of every key.

Hydra composes (`planning/compose.py`), these classes validate whenever one is made: a `ConfigError` of one line names
key, bound and value before anything trains. A whole number where text is meant, such as `results_dir=2024`, is taken
as that text; nothing else is converted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from harness.validation import ConfigError as ConfigError
from harness.validation import Validated, as_name, shown
from harness.validation import check_choice as check_choice
from harness.validation import from_mapping as from_mapping
from harness.validation import nearest as nearest


def _as_text(value: Any) -> Any:
    """YAML reads `2024` as a number, also where a folder or a project is named."""
    return str(value) if type(value) is int and abs(value) < 2**63 else value


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("text of printable characters")
    return text


def _address(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("text that begins with http:// or https://")
    return text


def _below_home(path: str) -> str:
    """A shell leaves `~` alone where it stands within an argument."""
    found = os.path.expanduser(path)
    if found == path and path.partition("/")[0] == "~":
        raise ValueError("a path without ~ where no home folder is known")
    return found


def _wandb_name(text: str) -> str:
    if len(text) > 128 or set("/\\#?%:") & set(text):
        raise ValueError("text of at most 128 characters without / \\ # ? % and :")
    return text


def _file_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", text):
        raise ValueError("text of at most 100 letters, digits, _ and -")
    return text


def _view_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", text):
        raise ValueError("text of at most 100 letters, digits, . _ and -, the first no point")
    return text


Text = Annotated[str, Field(min_length=1), AfterValidator(_printable), BeforeValidator(_as_text)]
FileName = Annotated[str, AfterValidator(_file_name), BeforeValidator(_as_text)]
ViewName = Annotated[str, AfterValidator(_view_name), BeforeValidator(_as_text)]
"""of a folder below suites/"""
FilePath = Annotated[Text, AfterValidator(_below_home)]
"""where a file or a folder lies, `~` being the home folder"""
WandbName = Annotated[Text, AfterValidator(_wandb_name)]
"""of a project or an entity, as W&B takes them"""
Name = Annotated[str, AfterValidator(as_name)]
"""of a preset or a table, of which names of files are made"""
Url = Annotated[str, AfterValidator(_address)]
Options = dict[str, JsonValue]
"""values that another library takes, by its own names"""
Number = int | float
Share = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
CountOrNone = Annotated[int, Field(ge=0, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
MOST_EPOCHS = 10**6
OWN = "own"
"""What stands for the data set and the optimizer of an adopted run in tables."""
RECALIBRATED = "base_recalibrated"
"""The base's own weights with BatchNorm statistics anew: what every method is compared with."""
Epochs = Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
Pixels = Annotated[int, Field(ge=1, le=2**16)]


OF_FILES = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""what timm takes beside a model's own arguments, that opens files or fetches them"""


@dataclass(frozen=True)
class ModelConfig(Validated):
    """A timm model; what is None follows from the data set where the model takes it."""

    name: Name
    timm: Text
    pretrained: bool | FilePath = False
    """false, true (timm's weights) or the path of a weights file"""
    img_size: Pixels | None = None
    patch_size: Pixels | None = None
    in_chans: Count | None = None
    head_classes: Count | None = None
    """outputs of the head, where more than the data set has classes"""
    stem: Literal["default", "small"] = "default"
    """`small`: a 3x3 stride-1 first convolution and no max-pooling, for small images (ResNets)"""
    drop_rate: Share | None = None
    kwargs: Options = field(default_factory=dict)
    """anything else that the timm model takes"""

    def key(self, name: str) -> str:
        return f"model.{self.name}.{name}"

    def check(self) -> None:
        if {*":/\\"} & {*self.timm}:  # timm would look it up on a hub, or in a folder
            raise ConfigError(f"{self.key('timm')} must be a timm model, got {shown(self.timm)}")
        for name in OF_FILES:
            if name in self.kwargs:
                raise ConfigError(
                    f"{self.key('kwargs')} must not hold {name} (set by {self.key('pretrained')}), "
                    f"got {shown(self.kwargs[name])}"
                )


@dataclass(frozen=True)
class DatasetConfig(Validated):
    """Where images come from, how they are split and augmented."""

    name: Name
    source: Text
    digest: str | None
    """SHA-256 of the genuine data; None where it is not declared, and keys follow from what is found"""
    channels: Count
    size: Pixels
    """height and width of the stored images"""
    classes: Count
    mean: list[Number]
    std: list[Annotated[Number, Field(gt=0)]]
    val_size: Count
    train_size: Count | None = None
    """images trained on; None: all that validation leaves"""
    test_size: Count | None = None
    probe_size: Count | None = None
    """images carved from the training part that nothing is trained on, by whose loss methods choose; None: they choose
    by images that are trained on"""
    label_noise: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """share of the training images, and of the probe's, whose label is another class's, drawn by `split_seed`"""
    split_seed: Seed = 0
    root: FilePath | None = None
    resize: Pixels | None = None
    crop_padding: Annotated[int, Field(ge=0, le=2**16)] = 0
    flip: bool = False
    crop_scale: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """least share of an image that a random crop takes before it is resized, where images are streamed"""
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """processes that decode images for one job, where images are streamed; 0: the job's own"""

    def key(self, name: str) -> str:
        return f"dataset.{self.name}.{name}"

    def check(self) -> None:
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.channels:
                values = shown(getattr(self, name))
                raise ConfigError(f"{self.key(name)} must have {self.channels} values, one per channel, got {values}")

    @property
    def image_size(self) -> int:
        """Height and width of the images that a model sees."""
        return self.size if self.resize is None else self.resize


ScheduleName = Literal["constant", "cosine", "linear", "wsd", "step", "one_cycle"]
DecayShape = Literal["linear", "sqrt", "square", "cosine"]
SCHEDULE_KEYS: dict[ScheduleName, dict[str, Any]] = {
    "constant": {},
    "cosine": {"final": 0.0},
    "linear": {"final": 0.0},
    "wsd": {"final": 0.0, "decay": 0.2, "shape": "linear"},
    "step": {"milestones": [0.5, 0.75], "gamma": 0.1},
    "one_cycle": {"final": 4e-6, "rise": 0.3},
}
"""what each schedule takes beside a warm-up, with what it has where nothing is said"""


def _earlier_name(value: Any) -> Any:
    return "constant" if value == "none" else value


@dataclass(frozen=True)
class ScheduleConfig(Validated):
    """Learning-rate schedule of a base, as a factor over its whole length; what is None is as in SCHEDULE_KEYS.

    Lengths other than the warm-up's are shares of the run. `none`, an earlier name of `constant`, is taken as that.
    """

    name: Annotated[ScheduleName, BeforeValidator(_earlier_name)] = "constant"
    warmup_epochs: Annotated[Number, Field(ge=0, le=MOST_EPOCHS)] = 0.0
    """linear from 0 to the full rate"""
    final: Share | None = None
    """the factor at the end"""
    decay: Annotated[Number, Field(gt=0, le=1)] | None = None
    """the last share of the run, over which `wsd` falls"""
    shape: DecayShape | None = None
    """how `wsd` falls"""
    milestones: list[Annotated[Number, Field(gt=0, lt=1)]] | None = None
    """shares of the run after which `step` multiplies the rate by `gamma`"""
    gamma: Annotated[Number, Field(gt=0, le=1)] | None = None
    rise: Annotated[Number, Field(gt=0, lt=1)] | None = None
    """the share of the run over which `one_cycle` rises"""

    def key(self, name: str) -> str:
        return f"optimizer.schedule.{name}"

    def check(self) -> None:
        own = SCHEDULE_KEYS[self.name]
        for name in dict.fromkeys(key for keys in SCHEDULE_KEYS.values() for key in keys):
            if name not in own and getattr(self, name) is not None:
                takes = f"takes {', '.join(own)}" if own else "takes nothing of the kind"
                raise ConfigError(
                    f"{self.key(name)} must be null for {self.name}, which {takes}, got {shown(getattr(self, name))}"
                )
        milestones = self.milestones or []
        if milestones != sorted(set(milestones)):
            raise ConfigError(f"{self.key('milestones')} must increase, got {shown(milestones)}")
        if self.name == "one_cycle" and self.warmup_epochs > 0:
            raise ConfigError(f"{self.key('warmup_epochs')} must be 0 for one_cycle, got {self.warmup_epochs}")

    @property
    def values(self) -> dict[str, Any]:
        """What the schedule takes beside a warm-up, defaults filled in."""
        return {
            name: default if getattr(self, name) is None else getattr(self, name)
            for name, default in SCHEDULE_KEYS[self.name].items()
        }

    @property
    def end(self) -> float:
        """The factor at the end of the run: 1 of a constant rate."""
        if self.name == "step":
            return float(self.values["gamma"] ** len(self.values["milestones"]))
        return float(self.values.get("final", 1.0))


@dataclass(frozen=True)
class OptimizerConfig(Validated):
    """An optimizer's class and the arguments that it is made with, beside the weights."""

    name: Name
    target: Text
    params: dict[str, Any]
    schedule: ScheduleConfig = ScheduleConfig()
    rates: Annotated[list[Annotated[Number, Field(gt=0)]], Field(min_length=2)] | None = None
    """the grid on which `tune method=base` searches the learning rate"""

    def key(self, name: str) -> str:
        return f"optimizer.{self.name}.{'_target_' if name == 'target' else name}"

    def check(self) -> None:
        if self.rates is not None and self.rates != sorted(set(self.rates)):
            raise ConfigError(f"{self.key('rates')} must increase, got {shown(self.rates)}")


@dataclass(frozen=True)
class MethodConfig(Validated):
    """One setting of a method's class; its preset's name is the cell's `method`."""

    name: Name
    target: Text
    params: dict[str, Any]
    """every parameter of the class, defaults filled in"""
    batchnorm: Literal["recalibrate", "as_is", "averaged"] = "recalibrate"
    search: dict[str, dict[str, Any]] = field(default_factory=dict)
    control: Text | None = None
    """the method that it is compared with beside the recalibrated base"""

    def key(self, name: str) -> str:
        return f"method.{self.name}.{'_target_' if name == 'target' else name}"


BETTER = {"accuracy": "higher", "loss": "lower", "ece": "lower", "brier": "lower"}
"""which way the metrics that the harness knows are compared"""


@dataclass(frozen=True)
class EvaluateConfig(Validated):
    """When and on how many images weights are evaluated."""

    every: Count = 1
    """validation every so many epochs, and at the last"""
    test: Literal["last", "every"] = "last"
    """the test split at the `last` epoch, or at `every` evaluated one"""
    recalibrate_images: Count = 1024
    """training images, un-augmented, that BatchNorm statistics are recalibrated on"""
    batch_size: Count = 256
    reconstructions: Literal["last", "every"] = "last"
    """reconstructions at the `last` epoch, or at `every` evaluated one"""
    command: Text | None = None
    """of an adopted run: what measures {checkpoint}, on validation data; its last line is a JSON object of numbers"""
    test_command: Text | None = None
    """likewise on test data, at the last snapshot alone"""
    recalibrate_command: Text | None = None
    """what takes the running statistics of {checkpoint} anew, in place"""
    callable: Text | None = None
    """module:Problem in a folder given by --config-dir, in place of commands"""
    buffers: Literal["last", "averaged", "recalibrate"] = "last"
    """of an adopted run's methods: the snapshot's own, those that a method models, or taken anew"""
    metric: Name | None = None
    """which of the measured numbers methods are compared by; None: accuracy where there is one, else loss"""
    better: Literal["higher", "lower"] | None = None
    """which way a metric of another name is compared"""
    dtype: Literal["source", "float32"] = "source"
    """what weights are rounded to for a command or a callable: the snapshots' own type, or none"""
    timeout: Annotated[Number, Field(gt=0, le=10**6)] = 3600.0
    """seconds that one command may take"""
    jobs: Annotated[int, Field(ge=1, le=4096)] = 1
    """commands at once, of one job"""

    def check(self) -> None:
        if self.callable is not None and (self.command or self.test_command or self.recalibrate_command):
            raise ConfigError(f"evaluate.callable must be null where a command is given, got {shown(self.callable)}")
        for name in ("test_command", "recalibrate_command"):
            if getattr(self, name) is not None and self.command is None:
                raise ConfigError(f"evaluate.command must be given where evaluate.{name} is, got null")
        known = self.metric in (None, *BETTER)
        if known and self.metric is not None and self.better not in (None, BETTER[self.metric]):
            raise ConfigError(f"evaluate.better must be {BETTER[self.metric]} for {self.metric}, got {self.better}")
        if not known and self.better is None:
            raise ConfigError(f"evaluate.better must be higher or lower for the metric {self.metric}, got null")

    @property
    def is_own(self) -> bool:
        """Whether somebody's own code measures."""
        return self.command is not None or self.callable is not None

    def key(self, name: str) -> str:
        return f"evaluate.{name}"

    def epochs(self, last: int) -> tuple[int, ...]:
        """The evaluated epochs of a run that ends at `last`."""
        return tuple(t for t in range(1, last + 1) if t % self.every == 0 or t == last)


Primary = Text | Annotated[dict[Text, Text], Field(min_length=1, max_length=1)]
"""A comparison that is decided on: a method, with the recalibrated base, or `{method: control}`."""


@dataclass(frozen=True)
class StatisticsConfig(Validated):
    """What a suite is run to decide, said before it runs."""

    primary: list[Primary] | None = None
    """the comparisons that are tested together; None: every chosen method with the recalibrated base"""
    margin: Annotated[Number, Field(gt=0, le=100)] = 0.5
    """points of accuracy within which two methods count as equivalent"""

    def key(self, name: str) -> str:
        return f"statistics.{name}"

    def comparisons(self, methods: Iterable[str], plain: str = RECALIBRATED) -> list[tuple[str, str]]:
        """Method and control of every comparison that is tested: a suite's list as a whole, whatever is chosen of its
        methods, since its comparisons share one level; without a list those of the chosen methods. `plain`: what
        stands for plain training."""
        if self.primary is None:
            return [(name, plain) for name in dict.fromkeys(methods) if name not in ("base", RECALIBRATED)]
        pairs = [(entry, plain) if isinstance(entry, str) else next(iter(entry.items())) for entry in self.primary]
        return list(dict.fromkeys(pairs))


@dataclass(frozen=True)
class FederationConfig(Validated):
    """Clients that a base's training images are dealt to, and what a round of federated averaging is; none: 0 clients.

    With clients what is called an epoch is a round (McMahan et al., AISTATS 2017).
    """

    name: Name = "none"
    clients: CountOrNone = 0
    partition: Literal["iid", "dirichlet", "shards"] = "iid"
    """how images are dealt: alike, by class in shares of a Dirichlet distribution, or in `shards` of sorted labels"""
    alpha: Annotated[Number, Field(gt=0, le=1e6)] = 0.5
    """concentration of the Dirichlet distribution: the smaller, the fewer classes a client has"""
    shards: Count = 2
    """shards of a client"""
    least: Count = 10
    """images that every client has at least, where they are dealt by a Dirichlet distribution"""
    partition_seed: Seed | None = None
    """None: the base's"""
    per_round: Count | None = None
    """clients that take part in a round, drawn anew for each; None: all"""
    local_epochs: Annotated[int, Field(ge=1, le=10**4)] = 1
    """epochs that a client trains in a round"""
    weighting: Literal["images", "equal"] = "images"
    """how clients count in an average"""
    optimizer_state: Literal["reset", "keep"] = "reset"
    """whether a client's optimizer begins every round anew, or where its own last round ended"""

    def key(self, name: str) -> str:
        return f"federation.{self.name}.{name}"

    def check(self) -> None:
        if self.clients > 0 and self.per_round is not None and self.per_round > self.clients:
            raise ConfigError(
                f"{self.key('per_round')} must be at most {self.clients}, the clients, got {self.per_round}"
            )

    @property
    def taking_part(self) -> int:
        """Clients of a round."""
        return self.clients if self.per_round is None else self.per_round


@dataclass(frozen=True)
class BaseConfig(Validated):
    """One training run: model, dataset, optimizer, federation, seed, and all else that changes its numbers."""

    model: ModelConfig
    dataset: DatasetConfig
    optimizer: OptimizerConfig
    seed: Seed
    epochs: Epochs
    batch_size: Count
    batches_per_epoch: Count | None
    """the first so many of an epoch's batches only; None: all full batches"""
    precision: Literal["float32", "bfloat16"]
    compile: bool
    memory_format: Literal["channels_last", "contiguous"]
    deterministic: bool
    device: Literal["cpu", "cuda"]
    federation: FederationConfig = FederationConfig()

    def key(self, name: str) -> str:
        return "seeds" if name == "seed" else name

    def check(self) -> None:
        if self.precision == "bfloat16" and self.device == "cpu":
            # oneDNN's bfloat16 weight gradients of strided convolutions on 1x1 maps were seen to be garbage
            raise ConfigError(
                "precision must be float32 on the cpu, where bfloat16 gradients are unreliable, got bfloat16"
            )

    @property
    def label(self) -> str:
        """`test_resnet-digits-sgd_momentum-s0`"""
        return f"{self.problem}-s{self.seed}"

    @property
    def data(self) -> str:
        """The data set as tables name it: with the federation that it is dealt to behind it, where there is one."""
        return f"{self.dataset.name}-{self.federation.name}" if self.federation.clients > 0 else self.dataset.name

    @property
    def row(self) -> tuple[str, str, str]:
        """What makes a row of a table: model, data and optimizer by name."""
        return self.model.name, self.data, self.optimizer.name

    @property
    def problem(self) -> str:
        """The label without the seed: `test_resnet-digits-sgd_momentum`."""
        return "-".join(self.row)


@dataclass(frozen=True)
class AdoptedConfig(BaseConfig):
    """A run of somebody else's training, of which snapshots are read and nothing is trained.

    Its model, data set and optimizer are known by name alone, unless it `is_known`: then model and data set are those
    of a classifier that the harness evaluates itself. A batch is of one image, and an epoch a snapshot.
    """

    adopted: str = ""
    """the key of its base"""
    is_known: bool = False

    def check(self) -> None:
        """What trains is checked; this does not."""


Save = Literal["none", "final"]
Artifacts = Literal["none", "tables", "models", "all"]
ARTIFACTS: tuple[str, ...] = get_args(Artifacts)


@dataclass(frozen=True)
class TrackerConfig(Validated):
    """Where runs are shown beside the records, and what is uploaded with them."""

    name: Literal["wandb", "csv", "none"]
    mode: Literal["auto", "offline", "online", "disabled"] = "auto"
    """auto: online where a key is configured and the server answers, otherwise offline"""
    base_url: Url | None = None
    """None, here and below: what W&B's environment variables and settings say"""
    entity: WandbName | None = None
    project: WandbName | None = None
    tags: list[Text] = field(default_factory=list)
    notes: Annotated[str, BeforeValidator(_as_text)] | None = None
    artifacts: Artifacts = "tables"
    """none; tables: frame, tables, report; models: and what `save=final` keeps; all: and manifests of trajectories"""

    def key(self, name: str) -> str:
        return "tracker" if name == "name" else f"tracker.{name}"

    def keeps(self, what: str) -> bool:
        """Whether artifacts of a kind, one of ARTIFACTS, are asked for: each choice includes those before it."""
        return ARTIFACTS.index(what) <= ARTIFACTS.index(self.artifacts)


EngineName = Literal["local", "slurm", "ray", "flower"]


@dataclass(frozen=True)
class EngineConfig(Validated):
    """Where jobs run, and how many at once."""

    name: EngineName
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=10**5)] = "auto"
    """jobs at once; auto: as many as cores allow at `threads` each, or `per_device` on every GPU"""
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    """CPU threads of one job; sums in float32 differ between thread counts"""
    per_device: Annotated[int, Field(ge=1, le=4096)] = 1
    """jobs that share one GPU where workers is auto"""
    retries: CountOrNone = 1
    """how often a job whose process was lost is started again"""
    clients: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = "auto"
    """processes in which a job trains clients of its federation at once; auto: on the cores that other jobs leave"""

    def key(self, name: str) -> str:
        return "engine" if name == "name" else f"engine.{name}"


@dataclass(frozen=True)
class SlurmConfig(EngineConfig):
    """Jobs of a Slurm cluster; None is the cluster's default."""

    partition: Text | None = None
    account: Text | None = None
    qos: Text | None = None
    minutes: Annotated[int, Field(ge=1, le=10**7)] = 120
    """time limit of a job"""
    requeues: CountOrNone = 100
    """how often a job may come to its limit and go on"""
    memory_gb: Annotated[Number, Field(ge=0.1, le=10**6)] | None = None
    gpus: Annotated[int, Field(ge=0, le=4096)] = 0
    signal_seconds: Annotated[int, Field(ge=1, le=10**6)] = 90
    """before the limit, when a job is requeued"""
    setup: list[str] = field(default_factory=list)
    """shell lines before Python starts"""
    parameters: Options = field(default_factory=dict)
    """other options of sbatch by their long names"""
    poll_seconds: Annotated[Number, Field(ge=0.1, le=3600)] = 10.0
    """between two looks at the queue"""

    def check(self) -> None:
        limit = 60 * self.minutes
        if self.signal_seconds >= limit:
            raise ConfigError(
                f"engine.signal_seconds must be below {limit}, the seconds of engine.minutes, got {self.signal_seconds}"
            )


@dataclass(frozen=True)
class RayConfig(EngineConfig):
    """Tasks of a Ray cluster."""

    address: Text = "local"
    """`local`, `auto` or host:port"""
    gpus: Annotated[Number, Field(ge=0, le=4096)] = 0.0
    """GPUs of one job"""


@dataclass(frozen=True)
class FlowerConfig(EngineConfig):
    """Servers and clients of federations in Flower's apps, on the CPU."""

    superlink: Text | None = None
    """host:port of a SuperLink whose SuperNodes are the clients; None: a simulation"""
    nodes_seconds: Annotated[Number, Field(ge=0, le=10**6)] = 120.0
    """how long nodes that are not connected are waited for"""


ENGINES: dict[EngineName, type[EngineConfig]] = {
    "local": EngineConfig,
    "slurm": SlurmConfig,
    "ray": RayConfig,
    "flower": FlowerConfig,
}


@dataclass(frozen=True)
class TrajectoryConfig(Validated):
    """What stays of a base's snapshots, and how often a job stores what it goes on from."""

    keep: Literal["all", "warmup", "none"]
    bundle_seconds: Annotated[Number, Field(ge=0, le=10**9)] = 1.0
    """least seconds between two stored states that a job goes on from; 0: one after every epoch"""


@dataclass(frozen=True)
class Settings(Validated):
    """What a command does with its bases and cells, none of which changes a number."""

    suite: str
    results_dir: FilePath
    tracker: TrackerConfig
    engine: EngineConfig
    trajectory: TrajectoryConfig
    save: Save
    redo: tuple[str, ...]
    view: str
    """the name of what is shown of it"""

    def check(self) -> None:
        if self.tracker.keeps("models") and self.save != "final":
            raise ConfigError(
                f"save must be final where tracker.artifacts is {self.tracker.artifacts}, got {self.save}"
            )


@dataclass(frozen=True)
class TuneConfig(Validated):
    """How `tune` searches; every method gets the same budget on every model, dataset and optimizer."""

    trials: Annotated[int, Field(ge=1, le=10**6)] | None = 50
    seconds: Annotated[Number, Field(ge=0, le=10**9)] | None = None
    """seconds of a method's own trials, whichever of the two budgets ends first"""
    metric: Literal["accuracy", "loss"] = "accuracy"
    """of the validation split at the last epoch, averaged over seeds"""
    sampler: Literal["tpe", "random", "qmc", "grid", "gp"] = "tpe"
    pruner: Literal["median", "hyperband", "none"] = "median"
    """for methods that train on their own, over epochs and seeds"""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    batch: Annotated[int, Field(ge=1, le=10**4)] = 10
    """trials that are suggested at once: they share a shadow run, or one reading of the snapshots"""
    parameters: Annotated[list[Text], Field(min_length=1)] | None = None
    """names of the search space to tune; None: all"""
    storage: Text | None = None
    """an RDB URL; None: a journal file in the results folder"""
    name: FileName | None = None
    """a name for another study beside the suite's own"""

    def key(self, name: str) -> str:
        return name if name == "trials" else f"tune.{name}"

    def check(self) -> None:
        if self.trials is None and self.seconds is None:
            raise ConfigError("trials must be a whole number where tune.seconds is null, got null")

    @property
    def budget(self) -> str:
        """`30 trials`, `60 s`, or both."""
        trials = None if self.trials is None else f"{self.trials} trials"
        seconds = None if self.seconds is None else f"{self.seconds:g} s of its own trials"
        return " or ".join(text for text in (trials, seconds) if text is not None)
