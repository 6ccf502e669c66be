"""Adopted runs in a plan: what stands for a model, a data set and an optimizer that this project does not know.

The coordinates of an adopted run are its name as the model, `own` as data set and optimizer, and its seed; where it was
adopted with a model and a data set that are known here, it has these, and is evaluated as any base is.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.config import (
    BETTER,
    OWN,
    RECALIBRATED,
    AdoptedConfig,
    ConfigError,
    DatasetConfig,
    EvaluateConfig,
    MethodConfig,
    ModelConfig,
    OptimizerConfig,
)
from harness.planning.methods import FittedMethod, check_allowed, load_class, make_method
from harness.storage.keys import source_digest
from harness.storage.store import Store
from harness.validation import shown

if TYPE_CHECKING:  # which import torch, and most plans have no adopted run
    from harness.checkpoints.registry import Named
    from harness.checkpoints.runs import AdoptedRun

KEY_VERSION = 1
METHODS = ("base", "time_mean", "swa", "lawa", "cmd_posthoc")
"""what runs where nobody chooses"""
ITS_OWN = (
    "model",
    "dataset",
    "optimizer",
    "federation",
    "epochs",
    "batch_size",
    "batches_per_epoch",
    "bases",
    "fast",
    "precision",
)
"""keys that say how a base is trained, of which an adopted run has its own"""
POLICIES: dict[str, Literal["as_is", "averaged", "recalibrate"]] = {
    "last": "as_is",
    "averaged": "averaged",
    "recalibrate": "recalibrate",
}
BASES = ("base", RECALIBRATED)


def with_defaults(overrides: Sequence[str]) -> tuple[str, ...]:
    """A command line, and where it asks for an adopted run the view's name and the methods that it does not say."""
    given = {text.partition("=")[0].lstrip("+"): text.partition("=")[2] for text in overrides if "=" in text}
    name = given.get("adopted")
    if name in (None, "", "null"):
        return tuple(overrides)
    more = [] if {"name", "suite"} & given.keys() else [f"name={name}"]
    more += [] if {"method", "suite"} & given.keys() else [f"method=[{','.join(METHODS)}]"]
    return (*overrides, *more)


def check_given(overridden: Collection[tuple[str, ...]]) -> Iterator[str]:
    """What is wrong with keys of the command line beside `adopted`, one line each."""
    for key in ITS_OWN:
        if any(path[0] == key for path in overridden):
            yield f"{key} must not be given with adopted, whose run has its own"


def plain_control(evaluate: EvaluateConfig, named: Named) -> str:
    """The method that stands for plain training: `base`, where nothing takes running statistics anew."""
    recalibrates = evaluate.buffers == "recalibrate" if evaluate.is_own else named.model is not None
    return RECALIBRATED if recalibrates else "base"


def check_evaluation(evaluate: EvaluateConfig, named: Named) -> None:
    """ConfigError where an adopted run has nothing that measures it, or no way to recalibrate."""
    if not evaluate.is_own and named.model is None:
        raise ConfigError(
            "evaluate.command or evaluate.callable must be given for an adopted run of a model that is not known here, "
            "got null; adopting it with model= and dataset= makes these known"
        )
    if evaluate.buffers == "recalibrate" and evaluate.command is not None and evaluate.recalibrate_command is None:
        raise ConfigError("evaluate.recalibrate_command must be given for evaluate.buffers=recalibrate, got null")
    if evaluate.buffers != "recalibrate" and evaluate.recalibrate_command is not None:
        raise ConfigError(
            f"evaluate.buffers must be recalibrate where evaluate.recalibrate_command is given, got {evaluate.buffers}"
        )


def adopted_seeds(named: Named, asked: Sequence[int] | None) -> list[int]:
    """The seeds that are asked for, or all; ConfigError for one that was not adopted."""
    known = sorted(named.keys)
    for seed in asked or ():
        if seed not in named.keys:
            raise ConfigError(
                f"seeds must be among those adopted as {named.name} ({', '.join(map(str, known))}), got {seed}"
            )
    return known if asked is None else list(asked)


def adopted_base(named: Named, run: AdoptedRun, device: Literal["cpu", "cuda"]) -> AdoptedConfig:
    """The base of an adopted run."""
    common: dict[str, Any] = {
        "optimizer": OptimizerConfig(name=OWN, target=OWN, params={}),
        "seed": run.seed,
        "epochs": run.epochs,
        "device": device,
        "adopted": run.key,
    }
    if named.model is not None and named.dataset is not None:
        from harness.planning.classifier import classifier

        known = classifier(named.model, named.dataset)
        about = {name: getattr(known, name) for name in ("batch_size", "precision", "memory_format", "deterministic")}
        model = replace(known.model, name=named.name)
        more: dict[str, Any] = {"batches_per_epoch": None, "compile": False, "is_known": True}
        return AdoptedConfig(model=model, dataset=known.dataset, **about, **more, **common)
    data = DatasetConfig(
        name=OWN, source=OWN, digest=None, channels=1, size=1, classes=1, mean=[0], std=[1], val_size=1
    )
    return AdoptedConfig(
        model=ModelConfig(named.name, OWN),
        dataset=data,
        batch_size=1,
        batches_per_epoch=None,
        precision="float32",
        compile=False,
        memory_format="contiguous",
        deterministic=True,
        **common,
    )


def adopted_runs(results_dir: str, name: str, asked: Sequence[int] | None) -> tuple[Named, list[AdoptedRun]]:
    """The runs of a name, whose files are as they were; ConfigError otherwise."""
    from harness.checkpoints.registry import read_name, read_run

    store = Store(Path(results_dir))
    named = read_name(store.root, name)
    runs = [read_run(store, named.keys[seed]) for seed in adopted_seeds(named, asked)]
    for run in runs:
        for source in run.sources:
            for file in source.files:
                file.check()
    return named, runs


def with_policy(method: FittedMethod, evaluate: EvaluateConfig) -> FittedMethod:
    """A method under the policy of buffers that somebody's own evaluation has; ConfigError where it has none such."""
    if not evaluate.is_own:
        return method
    name, policy = method.name, POLICIES[evaluate.buffers]
    if name == RECALIBRATED and policy != "recalibrate":
        raise ConfigError(
            f"method must not name {RECALIBRATED} where nothing recalibrates (evaluate.buffers={evaluate.buffers}); "
            "base is the control"
        )
    if name == "base":
        policy = "as_is"
    if policy == "averaged" and not make_method(method.config).proposes_buffers:
        policy = "as_is"
    return replace(method, config=replace(method.config, batchnorm=policy))


def check_replays(method: FittedMethod, run: AdoptedRun) -> None:
    """ConfigError, naming the method, where it cannot be replayed from an adopted run's snapshots."""
    key = f"method.{method.name}"
    if method.kind == "brancher":
        raise ConfigError(f"{key} must not train on its own, as an adopted run can only be read")
    if method.cadence not in (None, "epoch"):
        raise ConfigError(f"{key} must watch snapshots, as an adopted run has no steps between them")
    made = make_method(method.config)
    if made.needs_probe:
        raise ConfigError(f"{key} must not ask for the loss on a probe, which is of images that are not known here")
    first = method.needs[0] if method.needs is not None else 1
    if not run.has_initial and (first == 0 or method.config.params.get("include_initial") is True):
        raise ConfigError(f"{key} must not read w(0), which was not adopted (initial=FILE gives it)")
    if made.needs_even_steps and not run.is_even:
        low, high = min(run.gaps), max(run.gaps)
        raise ConfigError(f"{key} must have snapshots at equal distances, got {low:g} to {high:g} {run.unit}s apart")


def evaluation_key(evaluate: EvaluateConfig) -> str:
    """What identifies an evaluation by somebody's own code: the text of its commands with digests of the files that
    they name, or the class's source."""
    commands = {name: getattr(evaluate, name) for name in ("command", "test_command", "recalibrate_command")}
    said: dict[str, Any] = {
        name: [text, _named_files(name, text)] for name, text in commands.items() if text is not None
    }
    if evaluate.callable is not None:
        said["callable"] = [evaluate.callable, source_digest(evaluate.callable.partition(":")[0])]
    said["dtype"] = evaluate.dtype
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:20]


def _named_files(name: str, command: str) -> list[str]:
    """Digests of the files among a command's words; ConfigError where it has no words."""
    words = split_command(f"evaluate.{name}", command)
    files = [path for word in words if (path := Path(word)).is_file()]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.stat().st_size <= MOST_NAMED_BYTES]


MOST_NAMED_BYTES = 1 << 26
"""of a file that a command names and a key has a digest of; an interpreter is larger or the same everywhere"""


def split_command(key: str, command: str) -> list[str]:
    """The words of a command; ConfigError where a quote is open or {checkpoint} is not among them."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"{key} must be words as a shell parts them, got {shown(command)}: {error}") from error
    if not any("{checkpoint}" in word for word in words):
        raise ConfigError(f"{key} must have {{checkpoint}} among its words, got {shown(command)}")
    return words


def own_cell_key(base: str, method: MethodConfig, evaluation: str, source: str) -> str:
    """20 hex digits for a cell of an adopted run that somebody's own code evaluates, see `evaluation_key`."""
    fields = {
        "adopted": KEY_VERSION,
        "base": base,
        "method": [method.name, method.target, method.params, method.batchnorm],
        "source": source,
        "evaluation": evaluation,
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()[:20]


def check_callable(evaluate: EvaluateConfig, folders: Iterable[Path]) -> None:
    """ConfigError where the class that evaluates is in no folder given by --config-dir, or commands are no words."""
    for name in ("command", "test_command", "recalibrate_command"):
        if getattr(evaluate, name) is not None:
            split_command(f"evaluate.{name}", getattr(evaluate, name))
    if evaluate.callable is None:
        return
    module, _, name = evaluate.callable.partition(":")
    if not name:
        raise ConfigError(f"evaluate.callable must be module:Class, got {shown(evaluate.callable)}")
    check_allowed("evaluate.callable", f"{module}.{name}", folders, ())
    found = load_class("evaluate.callable", f"{module}.{name}")
    needed = ["model", "evaluate", *(["recalibration"] if evaluate.buffers == "recalibrate" else [])]
    for method in needed:
        if not callable(getattr(found, method, None)):
            raise ConfigError(f"evaluate.callable must name a class with {method}(), got {shown(evaluate.callable)}")


def own_metric(evaluate: EvaluateConfig, measured: Sequence[str]) -> str:
    """What methods are compared by: what is asked for, else accuracy or loss; ConfigError where it is not measured."""
    if evaluate.metric is not None:
        if measured and evaluate.metric not in measured:
            raise ConfigError(
                f"evaluate.metric must be among what is measured ({', '.join(measured)}), got {evaluate.metric}"
            )
        return evaluate.metric
    found = next((name for name in BETTER if name in measured), None)
    if found is None and measured:
        raise ConfigError(
            f"evaluate.metric must be given where neither accuracy nor loss is measured, but {', '.join(measured)}"
        )
    return found or "loss"
