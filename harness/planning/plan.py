"""From an experiment to bases and cells: their content keys, their status and what is left to do."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.config import BETTER, AdoptedConfig, BaseConfig, EvaluateConfig, MethodConfig
from harness.method import Branch
from harness.planning.adopted import evaluation_key, own_cell_key, own_metric
from harness.planning.experiment import Experiment
from harness.planning.methods import FittedMethod
from harness.planning.model_cost import model_facts, pretrained_digest
from harness.planning.norms import check_batches, check_method, check_own_batch_size, check_parts
from harness.storage.inside import is_file, refusal, strangers_in
from harness.storage.keys import base_key, cell_key, harness_digest, source_digest
from harness.storage.paths import restart_path, snapshot_path
from harness.storage.retention import kept_ts
from harness.storage.store import SCHEMA, Record, Store, has_other_weights
from harness.storage.views import join, set_twins
from harness.validation import ConfigError, Faults, printable

ENDED = ("done", "stale", "failed", "diverged", "skipped")
STALE = {
    "base": "whose base was trained anew to other weights since",
    "sources": "made by other sources of the harness than these",
}
"""why a finished cell can be stale"""


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
    settings: str
    """its key but for the seed"""
    evaluation: str = ""
    """what identifies somebody's own evaluation of it, when it was planned"""

    def settings_of(self, cell: CellPlan, evaluate: EvaluateConfig) -> str:
        """A cell's key but for the seed."""
        if self.evaluation:
            return own_cell_key(self.settings, cell.method, self.evaluation, cell.source)
        return cell_key(self.settings, cell.method, evaluate, self.config.dataset.test_size, cell.source)

    @property
    def is_adopted(self) -> bool:
        """Whether it is a run of somebody else's training, which is read and never trained."""
        return isinstance(self.config, AdoptedConfig)

    @property
    def shows_images(self) -> bool:
        """Whether its cells are evaluated on a data set that is known here."""
        return not isinstance(self.config, AdoptedConfig) or self.config.is_known

    @property
    def control(self) -> CellPlan | None:
        """The base's own weights, recalibrated: what branchers report for the epochs of their prefix."""
        return next((c for c in self.cells if c.method.name == "base_recalibrated"), None)

    @property
    def warmup(self) -> int:
        """The last snapshot that a causal method reads."""
        return max((c.needs[1] for c in self.cells if c.needs is not None and c.kind != "reconstruction"), default=0)

    def kept(self, keep: str) -> set[int]:
        """The snapshots that stay when every cell has its record; those of an adopted run are nobody's to drop."""
        return set() if self.is_adopted else kept_ts(keep, self.config.epochs, self.warmup)

    def snapshots(self, pending: list[CellPlan], keep: str) -> set[int]:
        """The snapshots to record while `pending` cells are open."""
        if self.is_adopted:
            return set()
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
        self.measured: tuple[str, ...] = ()
        """what somebody's own evaluation measures, where it was tried"""

    @property
    def cells(self) -> Iterator[tuple[BasePlan, CellPlan]]:
        return ((base, cell) for base in self.bases for cell in base.cells)

    @property
    def clients(self) -> set[int]:
        """How many clients the federations of its bases have."""
        return {base.config.federation.clients for base in self.bases}

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

        Stale: for one of the reasons in `STALE`.
        """
        record = self.store.record(cell.key)
        if record is None or self.lacks(base, cell, record) or self.retrains(base):
            return "left"
        status: str = record["status"]
        if status == "done" and self.why_stale(base, record) is not None:
            status = "stale"
        asked = self.experiment.settings.redo
        again = "all" in asked or cell.method.name in asked
        again = again or (status in ("failed", "skipped") and "failed" in asked)
        again = again or (status == "stale" and "stale" in asked)
        return "left" if again else status

    def why_stale(self, base: BasePlan, record: Record) -> str | None:
        """The first of the reasons in `STALE` why the record of a finished cell is, None where it is not."""
        if has_other_weights(self.base_records[base.key], record):
            return "base"
        return None if record["sources"].get("harness") == harness_digest() else "sources"

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
        if known is None or base.is_adopted:
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
        """What report and publish read: the cells in order, and the configuration they came from.

        `settings` of a base and of a cell are their keys but for the seed.
        """
        experiment = self.experiment
        added = {*experiment.added}
        record: Record = {
            "schema": SCHEMA,
            "suite": experiment.settings.view,
            "command": printable(experiment.command),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "config": experiment.composed,
            "fast": experiment.composed["fast"],
            "primary": [
                {"method": method, "control": control}
                for method, control in experiment.statistics.comparisons(
                    (cell.method.name for _, cell in self.cells if cell.method.name not in added), experiment.plain
                )
            ],
            "margin": experiment.statistics.margin,
            "bases": [
                {
                    "base_key": base.key,
                    "settings": base.settings,
                    "alike": alike(base.config),
                    "keeps": sorted(base.kept(experiment.settings.trajectory.keep)),
                }
                for base in self.bases
            ],
            "cells": [
                {
                    "cell_key": cell.key,
                    "base_key": base.key,
                    "settings": base.settings_of(cell, experiment.evaluate),
                    **labels(base.config),
                    "method": cell.method.name,
                    "kind": cell.kind,
                    "control": cell.method.control,
                    "schedule": base.config.optimizer.schedule.name,
                    "rate_end": base.config.optimizer.schedule.end,
                    "twin": None,
                    "batchnorm": cell.method.batchnorm,
                    "parameters": cell.method.params,
                }
                for base, cell in self.cells
            ],
        }
        record |= self._measured()
        set_twins(record)
        return record

    def _measured(self) -> Record:
        """What somebody's own evaluation measures, for whoever shows it, nothing where the harness evaluates; and what
        plain training is where it is not the recalibrated base."""
        evaluate = self.experiment.evaluate
        plain = {"plain": "base"} if self.experiment.plain == "base" else {}
        if not evaluate.is_own:
            return plain
        metric = own_metric(evaluate, self.measured or self._recorded_names())
        test = "test" if evaluate.test_command is not None else "val"
        measured = {"metric": f"{test}_{metric}", "better": {metric: evaluate.better or BETTER.get(metric, "higher")}}
        return measured | plain

    def _recorded_names(self) -> tuple[str, ...]:
        """The names of what finished cells measured."""
        for _, cell in self.cells:
            record = self.store.record(cell.key)
            if record is not None and record["status"] == "done":
                return tuple(name.removeprefix("val_") for name in record["summary"] if name.startswith("val_"))
        return ()

    @cached_property
    def view_line(self) -> str | None:
        """What a run of this plan makes of the view of its name, None where that shows nothing else."""
        return join(self.store, self.as_record()).line


def alike(base: BaseConfig) -> list[Any]:
    """What a base must have in common with one of another schedule to be its rival."""
    length = base.epochs, base.batches_per_epoch, base.batch_size
    clients = [base.federation.name] if base.federation.clients > 0 else []
    return [base.model.name, base.dataset.name, base.optimizer.target, base.seed, *length, *clients]


def labels(base: BaseConfig) -> dict[str, Any]:
    """The coordinates of a base in tables."""
    return {
        "model": base.model.name,
        "dataset": base.data,
        "optimizer": base.optimizer.name,
        "federation": base.federation.name,
        "seed": base.seed,
    }


def plan_cell(
    base: BaseConfig, key: str, method: FittedMethod, evaluate: EvaluateConfig, N: int | None = None
) -> CellPlan:
    """A setting of a method on the base with that key; ConfigError where its mini-batches are larger than the data
    or do not suit the model's norms. `N`: weights, where no known model says."""
    from harness.problem.datasets import train_images

    config = method.config
    if isinstance(base, AdoptedConfig) and (evaluate.is_own or not base.is_known):
        source = source_digest(config.target.rpartition(".")[0])
        return _cell(own_cell_key(key, config, evaluation_key(evaluate), source), key, method, source, N or 0)
    check_own_batch_size(base.dataset, method, train_images(base.dataset))
    facts = model_facts(base.model, base.dataset)
    check_method(base, method, evaluate, facts)
    source = source_digest(config.target.rpartition(".")[0])
    return _cell(cell_key(key, config, evaluate, base.dataset.test_size, source), key, method, source, facts.N)


def _cell(key: str, base: str, method: FittedMethod, source: str, N: int) -> CellPlan:
    """A cell of that key, on the base with the key `base`, which has N weights."""
    config = method.config
    return CellPlan(
        key=key,
        base_key=base,
        method=config,
        kind=method.kind,
        cadence=method.cadence,
        needs=method.needs,
        branch=method.branch,
        epochs_read=method.epochs_read,
        memory_floats=method.memory_floats(N),
        source=source,
        changed=method.changed,
    )


def make_plan(experiment: Experiment, store: Store) -> Plan:
    """Bases and cells of an experiment; ConfigError, with all that is wrong, where models refuse their images or data
    cannot be used."""
    from harness.problem.datasets import Found, found

    notes: list[str] = [*experiment.notes]
    data: dict[str, Found | None] = {}
    refused: set[str] = set()
    bases, faults = [], Faults()
    for config, methods in experiment.bases:
        if isinstance(config, AdoptedConfig):
            bases.append(_adopted(config, methods, experiment, store, faults, notes))
            continue
        name, asked = config.dataset.name, repr(config.dataset)
        if asked not in data and asked not in refused:
            refused.add(asked)
            with faults.gathered():
                data[asked] = found(config.dataset)
                refused.remove(asked)
        facts = faults.tried(model_facts, config.model, config.dataset)
        if facts is not None:
            faults.tried(check_batches, config, experiment.evaluate, facts)
        weights = faults.tried(_pretrained, config)
        if asked in refused or facts is None or weights is None:
            continue
        here, declared = data[asked], config.dataset.digest
        if here is None and declared is None:
            notes.append(f"dataset {name} is not here yet: keys will change when it is")
        elif here is None:
            notes.append(f"dataset {name} is not here yet: planned with its declared checksum")
        elif declared is not None and here.sha256 != declared:
            notes.append(f"dataset {name} differs from the genuine one: it gets keys of its own")
        notes += [f"dataset {name}: {note}" for note in here.notes] if here is not None else []
        if here is not None and config.federation.clients > 0:
            faults.tried(check_parts, config, facts, here.sha256)
        if config.dataset.label_noise > 0:
            share = f"{100 * config.dataset.label_noise:.3g} %"
            notes.append(f"dataset {name}: labels of {share} of the training images are changed (label_noise)")
        digests = here.sha256 if here is not None else declared or "undeclared", *weights
        key, settings = base_key(config, *digests), base_key(replace(config, seed=0), *digests)
        cells: list[CellPlan] = []
        for method in methods:
            added = method.name in experiment.added
            tried = Faults() if added else faults
            cell = tried.tried(plan_cell, config, key, method, experiment.evaluate)
            cells += [] if cell is None else [cell]
            notes += [f"controls not added: {line}" for line in tried.lines] if added else []
        bases.append(BasePlan(key, config, facts.N, facts.buffer_floats, tuple(cells), settings))
    faults.check()
    for key, count in Counter(base.key for base in bases).items():
        if count > 1:
            twins = dict.fromkeys(base.config.label for base in bases if base.key == key)
            said = " and ".join(twins) if len(twins) > 1 else f"{next(iter(twins))} {count} times"
            raise ConfigError(f"bases must differ in more than their name, got {said}")
    for label, count in Counter(base.config.label for base in bases).items():
        if count > 1:  # they would be one row of a table
            raise ConfigError(f"bases with other settings must have other names, got {label} {count} times")
    return Plan(experiment, tuple(bases), store, list(dict.fromkeys(notes)))


def _adopted(
    config: AdoptedConfig,
    methods: tuple[FittedMethod, ...],
    experiment: Experiment,
    store: Store,
    faults: Faults,
    notes: list[str],
) -> BasePlan:
    """The plan of a base that was adopted."""
    from harness.checkpoints.registry import read_name, read_run

    run, cells = read_run(store, config.adopted), []
    for method in methods:
        added = method.name in experiment.added
        tried = Faults() if added else faults
        cell = tried.tried(plan_cell, config, run.key, method, experiment.evaluate, run.N)
        cells += [] if cell is None else [cell]
        notes += [f"controls not added: {line}" for line in tried.lines] if added else []
    named = sorted(read_name(store.root, config.model.name).keys.items())  # all seeds of a name are one setting
    settings = hashlib.sha256(json.dumps(named).encode()).hexdigest()[:20]
    evaluation = evaluation_key(experiment.evaluate) if experiment.evaluate.is_own else ""
    return BasePlan(run.key, config, run.N, run.buffer_floats, tuple(cells), settings, evaluation)


def _pretrained(config: BaseConfig) -> tuple[str | None]:
    """What identifies a base's pretrained weights, in a tuple of one."""
    return (pretrained_digest(config.model),)


def watches_steps(cell: CellPlan) -> bool:
    """Whether a cell is of an observer of optimizer steps, which stored snapshots never serve."""
    return cell.kind == "observer" and cell.cadence != "epoch"


def needs_shadow(base: BasePlan, cells: list[CellPlan], folder: Path) -> bool:
    """Whether cells of a trained base cannot all be replayed from its stored snapshots; an adopted one has them all."""
    if base.is_adopted:
        return False
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
