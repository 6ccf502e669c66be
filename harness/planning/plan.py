"""From an experiment to bases and cells: their content keys, their status and what is left to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.config import BaseConfig, EvaluateConfig, MethodConfig
from harness.method import Branch
from harness.planning.experiment import Experiment
from harness.planning.methods import FittedMethod
from harness.planning.model_cost import model_facts, pretrained_digest
from harness.planning.norms import check_batches, check_method
from harness.storage.inside import is_file, refusal, strangers_in
from harness.storage.keys import base_key, cell_key, harness_digest, source_digest
from harness.storage.paths import restart_path, snapshot_path
from harness.storage.retention import kept_ts
from harness.storage.store import SCHEMA, Record, Store
from harness.validation import ConfigError, printable

ENDED = ("done", "stale", "failed", "diverged", "skipped")


@dataclass(frozen=True)
class CellPlan:
    """One method on one base: an experiment with a record of its own."""

    key: str
    base_key: str
    method: MethodConfig
    kind: str
    cadence: str | int | None
    """of an observer"""
    needs: tuple[int, int] | None
    """first and last t of the stored snapshots that the method reads"""
    branch: Branch | None
    """of a brancher"""
    epochs_read: int
    """the last epoch of its base that it reads, which it is charged"""
    memory_floats: int
    source: str
    """digest of the method's source when it was planned"""
    changed: dict[str, Any] = field(default_factory=dict)
    """the method's parameters that were given other values than its preset's"""

    def last_epoch(self, epochs: int) -> int:
        """The last epoch of its history, on a base of so many: a brancher's own follow those of its prefix."""
        return epochs if self.branch is None else self.branch.prefix + self.branch.epochs

    def replays(self, epochs: int) -> tuple[int, int] | None:
        """The stored snapshots that are enough to run this cell without training; None where nothing is."""
        if self.kind == "reconstruction":
            first, last = self.needs or (epochs, epochs)
            return first, max(last, epochs)
        return (0, epochs) if self.kind == "observer" and self.cadence == "epoch" else None


@dataclass(frozen=True)
class BasePlan:
    """One base and its cells."""

    key: str
    config: BaseConfig
    N: int
    buffer_floats: int
    cells: tuple[CellPlan, ...]

    @property
    def control(self) -> CellPlan | None:
        """The base's own weights, recalibrated: what branchers report for the epochs of their prefix."""
        return next((c for c in self.cells if c.method.name == "base_recalibrated"), None)

    @property
    def warmup(self) -> int:
        """The last snapshot that a causal method reads."""
        return max((c.needs[1] for c in self.cells if c.needs is not None and c.kind != "reconstruction"), default=0)

    def kept(self, keep: str) -> set[int]:
        """The snapshots that stay when every cell has its record."""
        return kept_ts(keep, self.config.epochs, self.warmup)

    def snapshots(self, pending: list[CellPlan], keep: str) -> set[int]:
        """The snapshots to record while `pending` cells are open."""
        wanted = self.kept(keep)
        for cell in pending:
            if cell.needs is not None:
                wanted |= set(range(cell.needs[0], cell.needs[1] + 1))
            if cell.kind == "reconstruction":
                wanted.add(self.config.epochs)
        return wanted


class Plan:
    """An experiment's bases and cells against what its results folder holds."""

    def __init__(self, experiment: Experiment, bases: tuple[BasePlan, ...], store: Store, notes: list[str]) -> None:
        self.experiment = experiment
        self.bases = bases
        self.store = store
        self.notes = notes

    @property
    def cells(self) -> Iterator[tuple[BasePlan, CellPlan]]:
        return ((base, cell) for base in self.bases for cell in base.cells)

    def lacks(self, base: BasePlan, cell: CellPlan, record: Record) -> bool:
        """Whether a finished cell lacks an evaluation or weights that are asked for now."""
        if record["status"] != "done":
            return False
        evaluate, held = self.experiment.evaluate, record["holds"]
        last = cell.last_epoch(base.config.epochs)
        wanted = set(evaluate.epochs(last))
        if cell.kind == "reconstruction" and evaluate.reconstructions == "last":
            wanted = {last}
        if not wanted <= set(held["epochs"]):
            return True
        if evaluate.test == "every" and not wanted <= set(held["test_epochs"]):
            return True
        return self.experiment.settings.save == "final" and not held["weights"]

    def status(self, base: BasePlan, cell: CellPlan) -> str:
        """done, stale, failed, diverged, skipped or left; what `redo` names counts as left.

        Stale: other harness sources than these, or a base that was trained anew since.
        """
        record = self.store.record(cell.key)
        if record is None or self.lacks(base, cell, record) or self.retrains(base):
            return "left"
        status: str = record["status"]
        known = self.base_records[base.key]
        moved = known is not None and known["digests"][-1:] != record["base_digest"]
        if status == "done" and (moved or record["sources"].get("harness") != harness_digest()):
            status = "stale"
        asked = self.experiment.settings.redo
        again = "all" in asked or cell.method.name in asked
        again = again or (status in ("failed", "skipped") and "failed" in asked)
        again = again or (status == "stale" and "stale" in asked)
        return "left" if again else status

    @cached_property
    def base_records(self) -> dict[str, Record | None]:
        """What was known of each base when the plan was made."""
        return {base.key: self.store.base(base.key) for base in self.bases}

    @cached_property
    def statuses(self) -> dict[str, str]:
        """Status by cell key when the plan was made."""
        return {cell.key: self.status(base, cell) for base, cell in self.cells}

    def retrains(self, base: BasePlan) -> bool:
        """Whether `redo` asks for this base to be trained anew."""
        asked = self.experiment.settings.redo
        known = self.base_records[base.key]
        if known is None:
            return False
        stale = "stale" in asked and known["sources"].get("harness") != harness_digest()
        return "all" in asked or "base" in asked or stale

    def base_status(self, base: BasePlan) -> str:
        """done, failed or diverged where it ended, `half-trained` where it can go on, otherwise left."""
        known = self.base_records[base.key]
        if known is not None:
            return str(known["status"])
        return (
            "half-trained" if is_file(self.store.base_folder(base.key) / "restart" / "latest.safetensors") else "left"
        )

    def check_folders(self) -> None:
        """ConfigError where a link, or a special file, lies where the plan's jobs and views would be written."""
        root, suite = self.store.root, self.experiment.settings.suite
        folders = [self.store.base_folder(base.key) for base in self.bases]
        folders += [self.store.cell_folder(cell.key) for _, cell in self.cells]
        folders += [self.store.suite_folder(suite), root / "tuning" / suite, root / "leases", root / "engine"]
        found = [text for folder in folders for text in strangers_in(folder)]
        found += [text for name in ("csv", "wandb") if (text := refusal(root / name)) is not None]
        if found:
            raise ConfigError(f"results_dir must hold files and folders alone where something is written: {found[0]}")

    def as_record(self) -> Record:
        """What report and publish read: the cells in order, and the configuration they came from."""
        twins = annealed_twins(self.bases)
        return {
            "schema": SCHEMA,
            "suite": self.experiment.settings.suite,
            "command": printable(self.experiment.command),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "config": self.experiment.composed,
            "primary": [
                {"method": method, "control": control}
                for method, control in self.experiment.statistics.comparisons(c.method.name for _, c in self.cells)
            ],
            "margin": self.experiment.statistics.margin,
            "bases": [
                {"base_key": base.key, "keeps": sorted(base.kept(self.experiment.settings.trajectory_keep))}
                for base in self.bases
            ],
            "cells": [
                {
                    "cell_key": cell.key,
                    "base_key": base.key,
                    **labels(base.config),
                    "method": cell.method.name,
                    "kind": cell.kind,
                    "control": cell.method.control,
                    "schedule": base.config.optimizer.schedule.name,
                    "twin": twins.get(base.key),
                    "batchnorm": cell.method.batchnorm,
                    "parameters": cell.method.params,
                }
                for base, cell in self.cells
            ],
        }


def annealed_twins(bases: Iterable[BasePlan]) -> dict[str, str]:
    """By the key of a base at a constant rate the optimizer's preset of its rival: the first base whose rate is
    annealed, with the same model, data set, seed, length and class of optimizer."""

    def alike(base: BasePlan) -> tuple[Any, ...]:
        config = base.config
        length = config.epochs, config.batches_per_epoch, config.batch_size
        return config.model.name, config.dataset.name, config.optimizer.target, config.seed, *length

    annealed: dict[tuple[Any, ...], str] = {}
    constant = {}
    for base in bases:
        if base.config.optimizer.schedule.name == "constant":
            constant[base.key] = alike(base)
        else:
            annealed.setdefault(alike(base), base.config.optimizer.name)
    return {key: annealed[what] for key, what in constant.items() if what in annealed}


def labels(base: BaseConfig) -> dict[str, Any]:
    """The coordinates of a base in tables."""
    return {
        "model": base.model.name,
        "dataset": base.dataset.name,
        "optimizer": base.optimizer.name,
        "seed": base.seed,
    }


def plan_cell(base: BaseConfig, key: str, method: FittedMethod, evaluate: EvaluateConfig) -> CellPlan:
    """A setting of a method on the base with that key; ConfigError where its mini-batches are larger than the data
    or do not suit the model's norms."""
    from harness.problem.datasets import train_images

    config, images = method.config, train_images(base.dataset)
    if method.batch_size is not None and method.batch_size > images:
        raise ConfigError(
            f"method.{config.name}.batch_size must be at most {images}, the training images of {base.dataset.name}, "
            f"got {method.batch_size}"
        )
    facts = model_facts(base.model, base.dataset)
    check_method(base, method, evaluate, facts)
    source = source_digest(config.target.rpartition(".")[0])
    return CellPlan(
        key=cell_key(key, config, evaluate, base.dataset.test_size, source),
        base_key=key,
        method=config,
        kind=method.kind,
        cadence=method.cadence,
        needs=method.needs,
        branch=method.branch,
        epochs_read=method.epochs_read,
        memory_floats=method.memory_floats(facts.N),
        source=source,
        changed=method.changed,
    )


def make_plan(experiment: Experiment, store: Store) -> Plan:
    """Bases and cells of an experiment; ConfigError where a model refuses its images or a batch its data."""
    from harness.problem.datasets import Found, found, train_images

    notes: list[str] = [*experiment.notes]
    data: dict[str, Found | None] = {}
    bases = []
    for config, methods in experiment.bases:
        images = train_images(config.dataset)
        if config.batch_size > images:
            raise ConfigError(
                f"batch_size must be at most {images}, the training images of {config.dataset.name}, "
                f"got {config.batch_size}"
            )
        full = images // config.batch_size
        if config.batches_per_epoch is not None and config.batches_per_epoch > full:
            raise ConfigError(
                f"batches_per_epoch must be at most {full}, the full batches of {config.dataset.name}, "
                f"got {config.batches_per_epoch}"
            )
        name, declared = config.dataset.name, config.dataset.digest
        if repr(config.dataset) not in data:
            data[repr(config.dataset)] = found(config.dataset)
        here = data[repr(config.dataset)]
        if here is None and declared is None:
            notes.append(f"dataset {name} is not here yet: keys will change when it is")
        elif here is None:
            notes.append(f"dataset {name} is not here yet: planned with its declared checksum")
        elif declared is not None and here.sha256 != declared:
            notes.append(f"dataset {name} differs from the genuine one: it gets keys of its own")
        notes += [f"dataset {name}: {note}" for note in here.notes] if here is not None else []
        facts = model_facts(config.model, config.dataset)
        check_batches(config, experiment.evaluate, facts)
        key = base_key(
            config, here.sha256 if here is not None else declared or "undeclared", pretrained_digest(config.model)
        )
        cells = tuple(plan_cell(config, key, method, experiment.evaluate) for method in methods)
        bases.append(BasePlan(key, config, facts.N, facts.buffer_floats, cells))
    for key, count in Counter(base.key for base in bases).items():
        if count > 1:
            twins = [base.config.label for base in bases if base.key == key]
            raise ConfigError(f"bases must differ in more than their name, got {' and '.join(twins)}")
    return Plan(experiment, tuple(bases), store, list(dict.fromkeys(notes)))


def needs_shadow(base: BasePlan, cells: list[CellPlan], folder: Path) -> bool:
    """Whether cells of a trained base cannot all be replayed from its stored snapshots."""
    for cell in cells:
        span = cell.replays(base.config.epochs)
        if span is None or any(not is_file(snapshot_path(folder, t)) for t in range(span[0], span[1] + 1)):
            return True
    return False


def branch_lacks(cell: CellPlan, folder: Path) -> list[int]:
    """The epochs that a brancher needs of the base in `folder`, as snapshot or start, and that are not stored."""
    assert cell.branch is not None
    first, last = cell.needs or (0, -1)
    lacking = {t for t in range(first, last + 1) if not is_file(snapshot_path(folder / "trajectory", t))}
    if cell.branch.start > 0 and not is_file(restart_path(folder, cell.branch.start)):
        lacking.add(cell.branch.start)
    return sorted(lacking)
