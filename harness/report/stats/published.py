"""Published numbers, which ship with the harness in `reference/`, in its own vocabulary of models and methods."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import pandas as pd

from harness.report.stats.means import Row, Spread
from harness.results.columns import ROW_METHOD


@cache
def _table() -> pd.DataFrame:
    with (files("harness.report") / "reference" / "cifar10.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file)
    # One number stands in both of the paper's tables.
    return table.drop(columns="table").drop_duplicates(ROW_METHOD).reset_index(drop=True)


def published() -> pd.DataFrame:
    """Columns model, dataset, optimizer, method, test_accuracy_mean and test_accuracy_std, the last two in percent.

    Source: Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024), tables 1 and 2.
    """
    return _table().copy()


def published_spread(row: Row, method: str) -> Spread | None:
    """The published accuracy; n is not printed with it and counts as 2 or more here."""
    return _spreads().get((*row, method))


@cache
def _spreads() -> dict[tuple[str, ...], Spread]:
    table = _table()
    numbers = zip(table["test_accuracy_mean"].tolist(), table["test_accuracy_std"].tolist(), strict=True)
    keys = map(tuple, table[ROW_METHOD].to_numpy().tolist())
    return {key: Spread(mean, std, 2) for key, (mean, std) in zip(keys, numbers, strict=True)}
