"""Which methods a figure shows where there are more than a reader can tell apart; its table has all of them."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from harness.report.figures.style import Labels
from harness.report.method_styles import by_family
from harness.report.stats.means import ALL, CONTROLS, Row, bare, of_row
from harness.report.stats.summary import Results

MOST = 12
"""The most methods of a family, its controls not counted."""
SHOWN = "shown"
"""The column that says whether a method is shown, in tables of which not all are."""


def mark_shown(table: pd.DataFrame, found: Results, row: Row) -> pd.DataFrame:
    """A figure's table, with the column SHOWN where a family of it has more than MOST methods.

    Controls and the best by validation accuracy are shown, which the test split has no part in.
    """
    families = by_family(list(dict.fromkeys(map(str, table["method"]))))
    if all(len(set(methods) - {*CONTROLS}) <= MOST for methods in families.values()):
        return table
    frame = bare(found.frame)
    done = frame[frame["status"] == "done"]
    done = done if row[0] == ALL else of_row(done, row)
    means = done.groupby(done["method"].astype("str"))["val_accuracy"].mean().sort_values(ascending=False)
    chosen = {*CONTROLS}
    for methods in families.values():
        chosen |= {*[method for method in means.index if method in {*methods} - {*CONTROLS}][:MOST]}
    return table.assign(**{SHOWN: table["method"].astype("str").isin(chosen)})


def only_shown(table: pd.DataFrame, labels: Labels) -> tuple[pd.DataFrame, Labels]:
    """What is drawn of a table, and labels that say so where it is not all."""
    if SHOWN not in table:
        return table, labels
    drawn = table[table[SHOWN]]
    of = f"{drawn['method'].nunique()} of {table['method'].nunique()} methods, the best by validation accuracy"
    return drawn, replace(labels, title=f"{labels.title}; {of}")
