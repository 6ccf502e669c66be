"""Published numbers, which ship with the harness in `reference/`, in its own vocabulary of models and methods."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import pandas as pd

from harness.report.tables import Row, Spread
from harness.results.frame import ROW

KEY = [*ROW, "method"]


@cache
def _table() -> pd.DataFrame:
    with (files("harness.report") / "reference" / "cifar10.csv").open() as file:
        table = pd.read_csv(file)
    # One number stands in both of the paper's tables.
    return table.drop(columns="table").drop_duplicates(KEY).reset_index(drop=True)


def published() -> pd.DataFrame:
    """KEY, test_accuracy_mean and test_accuracy_std in percent (Brokman et al., ICLR 2024, tables 1 and 2)."""
    return _table().copy()


def published_spread(row: Row, method: str) -> Spread | None:
    """The published accuracy; n is not printed with it and counts as 2 or more here."""
    return _spreads().get((*row, method))


@cache
def _spreads() -> dict[tuple[str, ...], Spread]:
    table = _table()
    numbers = zip(table["test_accuracy_mean"].tolist(), table["test_accuracy_std"].tolist(), strict=True)
    keys = map(tuple, table[KEY].to_numpy().tolist())
    return {key: Spread(mean, std, 2) for key, (mean, std) in zip(keys, numbers, strict=True)}
