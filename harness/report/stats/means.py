"""The numbers of a suite's tables: means over seeds per model x dataset x optimizer and method.

Every number is that of a cell's last epoch, taken from a frame of `harness.results.frame`: this module reads no
file and selects nothing. Rows are model x dataset x optimizer, in the order of the plan, and so are methods.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.config import check_choice
from harness.results.columns import METRICS, ROW, ROW_METHOD
from harness.results.frame import UNFINISHED
from harness.storage.views import ANNEALED_END

CONTROL = "base_recalibrated"
CONTROLS = (CONTROL, "time_mean")
"""The controls of every method: differences to them are what it does to plain training, and beyond averaging."""
OWN = "control"
"""What stands for the control that each method's preset names, in names of columns."""
BESIDE = "base"
"""The run as it is, which stands beside the controls."""
ALL = "all"
"""What stands in the columns of ROW for several rows of a suite together."""
CONSTANT, PARTLY, ANNEALED = "constant", "partly annealed", "annealed"
"""What stands for the optimizer where rows of a constant and of an annealed rate are each taken together."""

Row = tuple[str, ...]


def plain_of(frame: pd.DataFrame) -> str:
    """The method that stands for plain training: the recalibrated base, or where nothing recalibrates the base."""
    return str(frame.attrs.get("plain", CONTROL))


def over_rows(frame: pd.DataFrame) -> dict[Row, list[Row]]:
    """The rows that are taken together, by what stands for them in the columns of ROW; none where there is one row.

    All of a suite, or those of a constant, of a partly annealed and of an annealed rate apart where it has several:
    what a method does to the one says nothing of the others.
    """
    found: dict[Row, str] = {}
    for *row, schedule, end in zip(*(frame[name].tolist() for name in (*ROW, "schedule", "rate_end")), strict=True):
        constant = not isinstance(schedule, str) or schedule == CONSTANT
        # not known of cells that an earlier version planned
        annealed = PARTLY if end > ANNEALED_END else ANNEALED
        found.setdefault(tuple(map(str, row)), CONSTANT if constant else annealed)
    kinds = set(found.values())
    names = {
        kind: (ALL, ALL, kind if len(kinds) > 1 else ALL) for kind in (CONSTANT, PARTLY, ANNEALED) if kind in kinds
    }
    together = {name: [row for row, own in found.items() if own == kind] for kind, name in names.items()}
    return {name: rows for name, rows in together.items() if len(rows) > 1}


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (NaN with one seed) over n seeds."""

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Spread:
        """The spread of the finite ones among `values`."""
        finite = values[np.isfinite(values)]
        mean = float(finite.mean()) if len(finite) else math.nan
        return cls(mean, float(finite.std(ddof=1)) if len(finite) > 1 else math.nan, len(finite))

    def text(self, digits: int, plus_minus: str = " ± ", sign: str = "") -> str:
        """The spread in print: `88.90 ± 0.41`, or `+88.90 ± 0.41` with `sign="+"`; of one seed the mean alone."""
        mean = f"{self.mean:{sign}.{digits}f}"
        return f"{mean}{plus_minus}{self.std:.{digits}f}" if self.n > 1 else mean


@dataclass(frozen=True)
class Entry:
    """One method in one row: the spread over its finished cells, the row's planned seeds, the gravest status."""

    spread: Spread
    seeds: int
    status: str
    batchnorm: str
    finished: int
    """How many cells are done, whether or not their number is finite."""

    def text(self, digits: int) -> str:
        """Mean and std, with n where it is not the row's; a dash and the status where nothing is done."""
        if self.spread.n == 0:
            return f"– {self.status}"
        return self.spread.text(digits) + (f" (n={self.spread.n})" if self.spread.n != self.seeds else "")


def of_row(table: pd.DataFrame, row: Row) -> pd.DataFrame:
    """The lines of a table with the columns of ROW that belong to one row, or to all together."""
    return table[(table[ROW].astype("str") == list(row)).all(axis=1)]


def bare(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table without `attrs`, which pandas copies, and all that they hold, whenever it makes another of it."""
    table = frame.copy(deep=False)
    table.attrs = {}
    return table


def entries(frame: pd.DataFrame, metric: str = "test_accuracy") -> dict[Row, dict[str, Entry]]:
    """Every (model, dataset, optimizer) with its methods; ConfigError where `metric` is not one of METRICS."""
    check_choice("metric", metric, METRICS)
    # Lists and not groups of DataFrames: a frame of 10,000 cells has hundreds of them.
    names = (*ROW, "method", "status", "batchnorm", "seed", metric)
    grouped: dict[Row, dict[str, list[tuple[str, str, float]]]] = {}
    seeds: dict[Row, set[int]] = {}
    for *key, method, status, batchnorm, seed, value in zip(*(frame[name].tolist() for name in names), strict=True):
        row = (str(key[0]), str(key[1]), str(key[2]))
        grouped.setdefault(row, {}).setdefault(str(method), []).append((status, batchnorm, value))
        seeds.setdefault(row, set()).add(seed)
    return {
        row: {method: _entry(cells, len(seeds[row])) for method, cells in methods.items()}
        for row, methods in grouped.items()
    }


def _entry(cells: list[tuple[str, str, float]], seeds: int) -> Entry:
    """The entry of cells given as (status, BatchNorm policy, number)."""
    present = {status for status, _, _ in cells}
    done = np.array([value for status, _, value in cells if status == "done"], dtype=np.float64)
    return Entry(
        spread=Spread.of(done),
        seeds=seeds,
        status=next((status for status in UNFINISHED if status in present), "done"),
        batchnorm="/".join(dict.fromkeys(batchnorm for _, batchnorm, _ in cells)),
        finished=len(done),
    )


def statistics(frame: pd.DataFrame, metric: str = "test_accuracy") -> pd.DataFrame:
    """Long table in full precision, one line per model x dataset x optimizer x method.

    Columns: these four, batchnorm, metric, mean, std (ddof=1 over seeds, NaN with one), n (seeds that the two are
    over), seeds (planned for the row) and status (the gravest among the cells).
    """
    lines = [
        (*row, method, e.batchnorm, metric, e.spread.mean, e.spread.std, e.spread.n, e.seeds, e.status)
        for row, methods in entries(frame, metric).items()
        for method, e in methods.items()
    ]
    names = [*ROW_METHOD, "batchnorm", "metric", "mean", "std", "n", "seeds", "status"]
    return pd.DataFrame(lines, columns=names)


def differences(frame: pd.DataFrame, metric: str = "test_accuracy", control: str = CONTROL) -> dict[Row, Spread]:
    """Spread of method minus control, paired by seed, per (model, dataset, optimizer, method).

    A pair shares its base, hence model, data, optimizer and seed. A seed where either is not done is left out; n is 0
    where that leaves none.
    """
    done = frame[frame["status"] == "done"]
    of_control = done[done["method"] == control].set_index("base_key")[metric]
    others = done[done["method"] != control]
    controls = others["base_key"].map(of_control).astype("float64")  # of dtype str where nothing is done
    paired = others.assign(difference=others[metric] - controls)
    groups = paired.groupby(ROW_METHOD, sort=False)["difference"]
    return {tuple(map(str, key)): Spread.of(values.to_numpy(dtype=np.float64)) for key, values in groups}


def marks(row: dict[str, Entry], metric: str) -> dict[str, str]:
    """The marks `best` and `second` of a row by method; means that print alike share one.

    Only means over the row's largest number of seeds are compared: one over fewer is over other seeds, the easier ones
    where some diverged.
    """
    spec = METRICS[metric]
    most = max(entry.spread.n for entry in row.values())
    printed = {m: f"{e.spread.mean:.{spec.digits}f}" for m, e in row.items() if e.spread.n == most > 0}
    ranking = sorted(set(printed.values()), key=float, reverse=spec.higher_is_better)[:2]
    return {m: ("best", "second")[ranking.index(value)] for m, value in printed.items() if value in ranking}


def in_words(metric: str) -> str:
    """A metric as a caption begins with it, such as `Test accuracy in percent`."""
    spec = METRICS[metric]
    return spec.title.capitalize() + (" in percent" if spec.unit == "%" else "")


def caption(metric: str) -> str:
    """What the numbers of a table are."""
    spec = METRICS[metric]
    return (
        f"{in_words(metric)} ({'higher' if spec.higher_is_better else 'lower'} is better) at the last epoch, never the "
        "best one: mean ± sample standard deviation over the number of seeds shown (n where a cell has fewer). "
        "Nothing was selected on test data: choices, where there are any, were made on validation data alone."
    )
