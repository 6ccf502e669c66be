"""The comparison on the terminal: one section per model, dataset and optimizer, methods as rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from harness.report.stats.means import CONTROL, Row, Spread, differences, entries, marks
from harness.report.stats.rivals import rival_pairs
from harness.report.tables.printed import Printed
from harness.report.warnings import BUSY_MARK, marked
from harness.results.columns import BUSY, COLUMNS, ROW, ROW_METHOD
from harness.results.columns import SECONDS as _SECONDS

_MEASURED = ("val_accuracy", "test_accuracy")
_HEADINGS = (
    "method",
    "n",
    *(COLUMNS[n].heading for n in _MEASURED),
    "test diff",
    *(COLUMNS[n].heading for n in _SECONDS),
)


def _terminal_lines(frame: pd.DataFrame) -> dict[Row, list[tuple[str, ...]]]:
    """The lines of the terminal table by model, dataset and optimizer."""
    validation, paired = entries(frame, "val_accuracy"), differences(frame)
    costs = frame.groupby(ROW_METHOD, sort=False)[list(_SECONDS)].mean()
    busy = set(frame[frame["busy"] > BUSY].groupby(ROW_METHOD).indices)
    seconds = {
        key: ["–" if np.isnan(s) else f"{s:.1f}{BUSY_MARK if key in busy else ''}" for s in row]
        for key, *row in costs.itertuples(name=None)
    }
    sections: dict[Row, list[tuple[str, ...]]] = {}
    for row, methods in entries(frame).items():
        for method, test in methods.items():
            key, n = (*row, method), test.spread.n
            values = (validation[row][method].spread.text(2, "±"), test.spread.text(2, "±"))
            if n == 0:
                values = (f"– {test.status}", "–")
            difference = paired[key].text(2, "±", "+") if key in paired and paired[key].n > 0 else "–"
            line = (method, str(n) if n == test.seeds else f"{n}/{test.seeds}", *values, difference, *seconds[key])
            sections.setdefault(row, []).append(line)
    return sections


def terminal_table(frame: pd.DataFrame) -> Table:
    """One section per model, dataset and optimizer, methods as rows; about 80 columns wide."""
    sections, tests = _terminal_lines(frame), entries(frame)
    everything = [_HEADINGS, *(line for lines in sections.values() for line in lines)]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    whole = Table.grid()
    for row, lines in sections.items():
        best, title = marks(tests[row], "test_accuracy"), Text(marked(" · ".join(row), frame), "bold")
        section = Table(box=box.SIMPLE_HEAD, padding=0, title=title, title_justify="left")
        for name, width in zip(_HEADINGS, widths, strict=True):
            # Padded headings align the sections, and unlike a minimal width they never cut cells off.
            left = name == "method"
            section.add_column(name.ljust(width) if left else name.rjust(width), justify="left" if left else "right")
        for line in lines:
            section.add_row(*map(Text, line), style="bold" if best.get(line[0]) == "best" else None)
        whole.add_row(section)
    for section in _rival_sections(frame):
        whole.add_row(section)
    whole.caption = (
        "Last epoch; mean ± sample std over n seeds, best test mean bold. test diff: points above "
        f"{CONTROL}, paired by seed. Seconds: mean per seed; an observer shares its base's training."
        + (
            f" {BUSY_MARK}: measured while other work had a part of the machine."
            if (frame["busy"] > BUSY).any()
            else ""
        )
    )
    return whole


def _rival_sections(frame: pd.DataFrame) -> Iterator[Table]:
    """Methods on bases of constant rate beside the plain annealed run, a section per base that has a twin."""
    for names, own in rival_pairs(frame, "test_accuracy").groupby([*ROW, "twin"], sort=False):
        *row, twin = map(str, names)
        title = f"{' · '.join(row)} beside plain {twin}"
        section = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=Text(title, "bold"), title_justify="left")
        for name in ("method", "n", "test %", "annealed %", "test diff"):
            section.add_column(name, justify="left" if name == "method" else "right")
        for method, cells in own.groupby("method", sort=False):
            value, rival, difference = (
                Spread.of(cells[name].to_numpy(dtype=np.float64)) for name in ("value", "rival", "difference")
            )
            texts = (value.text(2, "±"), rival.text(2, "±"), difference.text(2, "±", "+"))
            section.add_row(*map(Text, (str(method), str(value.n), *texts)))
        yield section


def printed_table(tables: Sequence[Printed]) -> Table:
    """Tables of chosen columns, one below the other."""
    whole = Table.grid()
    for printed in tables:
        section = Table(
            box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=Text(printed.title, "bold"), title_justify="left"
        )
        for place, name in enumerate(printed.texts.columns):
            section.add_column(str(name), justify="left" if place < printed.names else "right")
        for row in printed.texts.itertuples(index=False, name=None):
            section.add_row(*map(Text, row))
        whole.add_row(section)
    return whole
