"""What the files of a results folder hold, one class per kind: checked whenever one is read, since it may be anyone's.

Entries that a class does not name are passed over, as are those that an earlier version did not write: `read_as` gives
these what stands here. Names become parts of paths, and are held to what can be one.
"""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.config import Name, Seed
from harness.storage.checked import KEY
from harness.storage.files import CorruptFile, read_json
from harness.validation import SEEN, refusal, shown

Key = Annotated[str, Field(pattern=KEY)]
Plain = Annotated[str, Field(max_length=10_000, pattern=SEEN)]
"""a text on one line"""
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Number = Whole | float
Count = Annotated[int, Field(ge=0, lt=2**53)]
Numbers = dict[Plain, Number | None]
Digest = Annotated[str, Field(max_length=128)]


class Stored(BaseModel):
    """A file, or a part of one; nothing is converted, and numbers may be infinite or none."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=True, protected_namespaces=())


class Held(Stored):
    """What a cell was evaluated at, and whether it kept its weights."""

    epochs: list[Count]
    test_epochs: list[Count]
    weights: bool


class Sources(Stored):
    """Digests of what made a record."""

    harness: Digest = ""


class AskedSchedule(Stored):
    """A learning-rate schedule, as far as a page shows it."""

    name: Plain | None = None


class AskedOptimizer(Stored):
    """An optimizer, as far as a page shows it."""

    params: dict[str, Any] = Field(default_factory=dict)
    schedule: AskedSchedule = Field(default_factory=AskedSchedule)


class AskedBase(Stored):
    """The configuration of a base, as far as a page shows it; who makes one of it checks all."""

    model: dict[str, Any] = Field(default_factory=dict)
    dataset: dict[str, Any] = Field(default_factory=dict)
    optimizer: AskedOptimizer = Field(default_factory=AskedOptimizer)
    epochs: Count | None = None
    batches_per_epoch: Count | None = None
    batch_size: Count | None = None


class Asked(Stored):
    """The configuration that a cell was made with."""

    base: AskedBase = Field(default_factory=AskedBase)
    method: dict[str, Any] | None = None
    evaluate: dict[str, Any] = Field(default_factory=dict)


class Machine(Stored):
    """What a cell ran on."""

    load: Numbers | None = None


class Commit(Stored):
    """What git said of a folder."""

    commit: Digest | None
    clean: bool | None
    note: str | None = None


class Environment(Stored):
    """Where a cell's job came from."""

    git: dict[Plain, Commit | None] = Field(default_factory=dict)


class CellRecord(Stored):
    """`record.json` of a cell."""

    cell_key: Key = ""
    base_key: Key = ""
    model: Name = ""
    dataset: Name = ""
    optimizer: Name = ""
    method: Name = ""
    federation: Name = "none"
    seed: Seed = 0
    batchnorm: Plain = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    status: Literal["done", "failed", "diverged", "skipped"]
    reason: str | None = None
    where: str | None = None
    log: str | None = None
    traceback: str | None = None
    environment: Environment | None = None
    config: Asked = Field(default_factory=Asked)
    versions: dict[Plain, Plain] = Field(default_factory=dict)
    device: Plain = ""
    threads: Count | None = None
    machine: Machine | None = None
    sources: Sources = Field(default_factory=Sources)
    base_digest: list[Digest] = Field(default_factory=list)
    summary: Numbers = Field(default_factory=dict)
    communication: Numbers = Field(default_factory=dict)
    """bytes of all clients and how right they are, on a federation"""
    cost: Numbers = Field(default_factory=dict)
    kernel: Numbers = Field(default_factory=dict)
    """age and n_eff of a method that gave its kernel"""
    holds: Held = Field(default_factory=lambda: Held(epochs=[], test_epochs=[], weights=False))
    run_id: Key = "unknown"
    generation: Count = 0
    history_sha256: Digest


class Spent(Stored):
    """What training a base took, in images."""

    gradients_full: Number


class BaseRecord(Stored):
    """`base.json` of a base."""

    base_key: Key = ""
    model: Name = ""
    dataset: Name = ""
    optimizer: Name = ""
    seed: Seed = 0
    status: Literal["done", "failed", "diverged"]
    reason: str | None = None
    digests: list[Digest] = Field(default_factory=list)
    versions: dict[Plain, Plain] = Field(default_factory=dict)
    threads: Count | None = None
    sources: Sources = Field(default_factory=Sources)
    seconds: Numbers = Field(default_factory=dict)
    counts: Spent = Field(default_factory=lambda: Spent(gradients_full=0))
    moving: Number | None = None
    partition: Digest | None = None
    """of which images every client of a federation has"""
    history_sha256: Digest


class PlannedBase(Stored):
    """A base of a plan, and the epochs whose snapshots it keeps."""

    base_key: Key
    keeps: list[Count]
    settings: Plain | None = None


class PlannedKeys(Stored):
    """What a cell of a plan is known by."""

    cell_key: Key
    base_key: Key


class PlannedCell(PlannedKeys):
    """A cell of a plan."""

    model: Name
    dataset: Name
    optimizer: Name
    seed: Seed
    method: Name
    batchnorm: Plain
    parameters: dict[str, Any]
    kind: Plain | None = None
    federation: Name = "none"
    control: Plain | None = None
    schedule: Plain | None = None
    rate_end: Annotated[float, Field(ge=0, le=1)] | None = None
    twin: Plain | None = None
    settings: Plain | None = None


class Named(Stored):
    """Since when a view has its primary comparisons."""

    stated: bool
    done: Count


class PlanKeys(Stored):
    """`plan.json` of a suite, as far as upkeep asks."""

    bases: list[PlannedBase]
    cells: list[PlannedKeys]


class PlanRecord(Stored):
    """`plan.json` of a suite."""

    version: Literal[1] = Field(alias="schema")
    suite: Name
    command: Plain
    commands: list[Plain] | None = None
    created: Plain
    config: dict[str, Any]
    fast: bool = False
    named: Named | None = None
    bases: list[PlannedBase] = Field(default_factory=list)
    cells: list[PlannedCell]


class StoreRecord(Stored):
    """`store.json` of a results folder."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,32}$")]


class OwnerRecord(Stored):
    """Who holds a lease."""

    token: Digest
    host: Plain
    pid: Annotated[int, Field(ge=1, lt=2**31)]
    space: Plain
    started: Annotated[str, Field(max_length=40)]


class GenerationRecord(Stored):
    """`generation.json` of a cell."""

    least: Count


class CsvRun(Stored):
    """`run.json` of a run of the tracker csv."""

    tags: list[str]
    digest: str | None = None


class TrialResult(Stored):
    """What a setting of a search came to on one seed."""

    status: Literal["done", "failed", "diverged"]
    val_accuracy: Number | None
    val_loss: Number | None
    seconds: Number
    epoch: Count | None
    reason: str | None

    @model_validator(mode="after")
    def _check(self) -> TrialResult:
        if self.status == "done" and self.val_accuracy is None and self.val_loss is None:
            raise ValueError("numbers of a setting that is done")
        return self


class TrialAttributes(Stored):
    """What a search notes of a trial beside its results."""

    seconds: Number = 0.0
    retry_of: Whole | None = None
    same_as: Whole | None = None
    owner: str = ""
    error: str | None = None
    refused: str | None = None
    diverged: str | None = None


@cache
def _defaults(kind: type[Stored]) -> dict[str, Any]:
    """What stands for entries that are not there, in plain values."""
    found = {}
    for name, field in kind.model_fields.items():
        if not field.is_required():
            value = field.get_default(call_default_factory=True)
            found[name] = value.model_dump() if isinstance(value, Stored) else value
    return found


def read_as(kind: type[Stored], value: Any) -> dict[str, Any]:
    """A file's content, with what an earlier version did not write; CorruptFile where it is of no such kind."""
    if not isinstance(value, dict):
        raise CorruptFile(f"must be a mapping, got {shown(value)}")
    try:
        kind.model_validate(value)
    except ValidationError as error:
        lacking = next((e["loc"] for e in error.errors(include_url=False) if e["type"] == "missing"), None)
        if lacking is not None:
            raise CorruptFile(f"{'.'.join(map(str, lacking))} must be given") from None
        raise CorruptFile(refusal("", value, error).removeprefix(".")) from None
    return {**{name: copy.deepcopy(found) for name, found in _defaults(kind).items() if name not in value}, **value}


def read_plan_file(path: Path, kind: type[Stored] = PlanRecord) -> dict[str, Any]:
    """A plan; CorruptFile, one line without its path, where it is none. OSError where it cannot be read.

    A plan is of the suite whose folder it lies in.
    """
    plan = read_json(path)
    read_as(kind, plan)
    found: dict[str, Any] = plan | {"suite": path.parent.name}
    return found
