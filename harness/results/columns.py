"""The columns of results: what each is called, where it comes from, its type and unit, and how it is printed.

Frame, tables, figures and page all read this list. A new column of the frame is one entry here, with the record that
holds it; what the report computes from several columns is declared in `harness.report.tables.columns`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

ROW = ["model", "dataset", "optimizer"]
"""What makes a row of a table: a base but for its seed."""
ROW_METHOD = [*ROW, "method"]
"""What makes a line of a table: the cells of one method in one row, one per seed."""

Source = Literal["plan", "record", "summary", "communication", "cost", "load", "kernel", "history", "report"]


@dataclass(frozen=True)
class Column:
    """One column. `source` says where its values are found: in the plan's cells, in a record itself, in a record's
    `summary`, `communication`, `cost`, `machine.load` or `kernel`, in histories alone, or nowhere, since the report
    computes it; the last two are not in the frame. What an older plan or record does not have is NaN."""

    name: str
    source: Source
    dtype: str = "float64"
    """The type in the frame; counts are float64 too, since they are NaN where a cell has no record."""
    title: str = ""
    """The name in prose."""
    unit: str = ""
    heading: str = ""
    """The name above a column of a table."""
    meaning: str = ""
    """What a reader of a table must know of the number."""
    digits: int = 0
    """How many decimals are printed."""
    scale: float = 1.0
    """What the number is multiplied by in print."""
    higher_is_better: bool = True
    """Which way a metric is compared."""

    @property
    def label(self) -> str:
        """The name of an axis: the title with its unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


def _accuracy(name: str, title: str, heading: str) -> Column:
    return Column(name, "summary", title=title, unit="%", heading=heading, digits=2, higher_is_better=True)


def _loss(name: str, title: str, heading: str) -> Column:
    return Column(name, "summary", title=title, heading=heading, digits=4, higher_is_better=False)


def _ece(name: str, title: str, heading: str) -> Column:
    return Column(name, "summary", title=title, unit="points", heading=heading, digits=2, higher_is_better=False)


def _cost(name: str, title: str, heading: str, meaning: str, unit: str = "", digits: int = 0) -> Column:
    return Column(name, "cost", title=title, unit=unit, heading=heading, meaning=meaning, digits=digits)


def _moved(name: str, title: str, heading: str) -> Column:
    meaning = "by the last round, of payloads, the prefix included"
    return Column(name, "communication", title=title, unit="MB", heading=heading, meaning=meaning, digits=1, scale=1e-6)


def _client(name: str, title: str, heading: str, meaning: str) -> Column:
    meaning += ", of validation accuracy by class in the client's own mix of classes"
    return Column(name, "communication", title=title, unit="%", heading=heading, meaning=meaning, digits=2)


_ALL = (
    *(Column(name, "plan", "str") for name in ROW),
    Column("seed", "plan", "int64"),
    Column("method", "plan", "str"),
    Column("batchnorm", "plan", "str"),
    Column("status", "record", "str"),
    _accuracy("val_accuracy", "validation accuracy", "val %"),
    _loss("val_loss", "validation loss", "val loss"),
    _ece("val_ece", "validation calibration error", "val ECE"),
    _loss("val_brier", "validation Brier score", "val Brier"),
    _accuracy("test_accuracy", "test accuracy", "test %"),
    _loss("test_loss", "test loss", "test loss"),
    _ece("test_ece", "test calibration error", "test ECE"),
    _loss("test_brier", "test Brier score", "test Brier"),
    _cost("train_seconds", "training", "train s", "mean / median per seed; an observer shares its base's", "s", 1),
    _cost("method_seconds", "the method's own work", "method s", "mean / median per seed", "s", 1),
    _cost("eval_seconds", "evaluation", "eval s", "mean / median per seed", "s", 1),
    Column(
        "peak_memory_bytes", "cost", title="peak memory", unit="MB", heading="peak MB",
        meaning="peak memory of its process", scale=1e-6,
    ),
    _cost("epochs", "epochs", "epochs", "mean per seed, the prefix included"),
    _cost("prefix_epochs", "shared epochs", "in the prefix", "epochs shared with the base, before the method trains"),
    Column(
        "subspace_epochs", "report", title="epochs in a subspace", heading="subspace epochs",
        meaning="own epochs of a method that takes gradients in a subspace",
    ),
    _cost("gradients_full", "gradients", "gradients", "gradients of all weights, in images", "images"),
    _cost("gradients_subspace", "gradients in a subspace", "in a subspace", "of a subspace, in images", "images"),
    _cost("forward_passes", "forward passes", "forward passes", "in images", "images"),
    _cost("trainable_fraction", "trainable weights", "trainable", "of the moving weights at the end", "share", 3),
    _cost("moving", "moving weights", "moving", "of the base's weights, those that ever had a gradient", "share", 3),
    Column(
        "busy", "load", title="cores that other work had", unit="share", heading="others' cores",
        meaning="mean share of the cores that other processes used while it ran", digits=2,
    ),
    Column(
        "age", "kernel", title="age of the weights", unit="epochs", heading="age",
        meaning="epochs that the weights lie behind the last, of a method that is linear in the snapshots", digits=1,
    ),
    Column(
        "n_eff", "kernel", title="effective number of snapshots", unit="snapshots", heading="n_eff",
        meaning="snapshots that such a method averages, by their noise", digits=1,
    ),
    Column("federation", "plan", "str"),
    _moved("upload_bytes", "sent by all clients", "up MB"),
    _moved("download_bytes", "sent to all clients", "down MB"),
    _client("client_accuracy", "mean accuracy of clients", "clients %", "mean over clients"),
    _client("client_accuracy_std", "spread over clients", "client std", "standard deviation over clients"),
    _client("client_accuracy_worst", "worst accuracy of a client", "worst client %", "of the client with the lowest"),
    Column("control", "plan", "str"),
    Column("schedule", "plan", "str"),
    Column("rate_end", "plan", "float64"),
    Column("twin", "plan", "str"),
    Column("parameters", "plan", "str"),
    Column("device", "record", "str"),
    Column("versions", "record", "str"),
    Column("base_key", "plan", "str"),
    Column("cell_key", "plan", "str"),
    Column("run_id", "record", "str"),
    Column("train_loss", "history", title="training loss", digits=4, higher_is_better=False),
)  # fmt: skip

COLUMNS = {column.name: column for column in _ALL}
FRAME_COLUMNS = {column.name: column.dtype for column in _ALL if column.source not in ("history", "report")}
"""The columns of the frame in order, with their dtypes."""
PARAMETER = "param."
"""What the names of columns of methods' parameters begin with, which follow these."""
ADDED = (
    *("moving", "busy", "control", "schedule", "rate_end", "twin"),
    *("val_ece", "val_brier", "test_ece", "test_brier", "age", "n_eff"),
    *("federation", "upload_bytes", "download_bytes"),
    *("client_accuracy", "client_accuracy_std", "client_accuracy_worst"),
)
"""The columns that frames stored by earlier versions lack; NaN there."""
METRICS = {name: COLUMNS[name] for name in sorted(COLUMNS) if COLUMNS[name].source == "summary"}
"""The metrics that methods are compared by, at a cell's last epoch."""
OWN_NAME = r"[A-Za-z][A-Za-z0-9_]{0,59}"
"""what the metrics of somebody's own evaluation may be called"""


def declare(better: object) -> tuple[str, ...]:
    """Make metrics known that somebody's own evaluation measures, `better` saying of each whether higher or lower is,
    in the place of those of another view; the names of their columns, those that are known anyway aside. What is no
    such mapping is passed over."""
    for key in [key for key in METRICS if key not in FRAME_COLUMNS]:
        del COLUMNS[key], METRICS[key]
    names = []
    for name, way in better.items() if isinstance(better, dict) else ():
        if not re.fullmatch(OWN_NAME, str(name)) or way not in ("higher", "lower"):
            continue
        for split, title in (("val", "validation"), ("test", "test")):
            key = f"{split}_{name}"
            if key in FRAME_COLUMNS:
                continue
            heading = f"{split} {name}"
            COLUMNS[key] = METRICS[key] = Column(
                key, "summary", title=f"{title} {name}", heading=heading, digits=4, higher_is_better=way == "higher"
            )
            names.append(key)
    return tuple(names)


COSTS = tuple(column.name for column in _ALL if column.source in ("cost", "load", "report"))
"""The columns that say what a method costs."""
COMMUNICATION = tuple(column.name for column in _ALL if column.source == "communication")
"""The columns that say what passed between server and clients, and how right clients are; NaN without clients."""
KERNEL = tuple(column.name for column in _ALL if column.source == "kernel")
"""The columns that say where in time a linear method's weights lie."""
SECONDS = ("train_seconds", "method_seconds", "eval_seconds")
"""The columns that other work on the machine makes longer."""
BUSY = 0.2
"""The largest share of the cores that other processes may have for seconds to be those of an idle machine."""


@cache
def from_source(source: Source) -> tuple[str, ...]:
    """The names of the columns that come from `source`, in order."""
    return tuple(column.name for column in _ALL if column.source == source)
