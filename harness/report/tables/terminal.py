"""The comparison on the terminal: one section per model, dataset and optimizer, methods as rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from harness.fitting import FirstThatFits
from harness.report.stats.means import CONTROL, Row, Spread, differences, entries, marks
from harness.report.stats.rivals import rival_pairs
from harness.report.tables.printed import Printed
from harness.report.warnings import BUSY_MARK, marked
from harness.results.columns import BUSY, COLUMNS, ROW, ROW_METHOD
from harness.results.columns import SECONDS as _SECONDS

_MEASURED = ("val_accuracy", "test_accuracy")
SECONDS_HEADINGS = tuple(COLUMNS[n].heading for n in _SECONDS)
_HEADINGS = (
    "method",
    "n",
    *(COLUMNS[n].heading for n in _MEASURED),
    "test diff",
    *SECONDS_HEADINGS,
)
SPARED = (*reversed(SECONDS_HEADINGS), COLUMNS["val_accuracy"].heading, "n")
"""columns that a narrow terminal is spared, one after the other"""


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


def terminal_table(frame: pd.DataFrame) -> FirstThatFits:
    """One section per model, dataset and optimizer, methods as rows. Where the terminal is too narrow for all columns,
    seconds are left out, then more; a name is never cut."""
    lines, rivals = _terminal_lines(frame), list(_rival_sections(frame))
    return FirstThatFits(
        *(partial(_main_table, frame, lines, rivals, SPARED[:count]) for count in range(len(SPARED) + 1))
    )


def _main_table(
    frame: pd.DataFrame, sections: dict[Row, list[tuple[str, ...]]], rivals: Sequence[Table], without: Sequence[str]
) -> Table:
    """The table without some of its columns."""
    tests, marked_any = entries(frame), False
    everything = [_HEADINGS, *(line for lines in sections.values() for line in lines)]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    shown = [place for place, name in enumerate(_HEADINGS) if name not in without]
    whole = Table.grid()
    for row, lines in sections.items():
        best_of, title = marks(tests[row], "test_accuracy"), Text(marked(" · ".join(row), frame), "bold")
        section = Table(box=box.SIMPLE_HEAD, padding=0, title=title, title_justify="left")
        for place in shown:
            # Padded headings align the sections, and unlike a minimal width they never cut cells off.
            name, width, left = _HEADINGS[place], widths[place], place == 0
            heading = name.ljust(width) if left else name.rjust(width)
            section.add_column(heading, justify="left" if left else "right", overflow="fold")
        for line in lines:
            # of one seed nothing tells the best from the luckiest
            best = best_of.get(line[0]) == "best" and tests[row][line[0]].spread.n > 1
            marked_any = marked_any or best
            section.add_row(*(Text(line[place]) for place in shown), style="bold" if best else None)
        whole.add_row(section)
    for section in rivals:
        whole.add_row(section)
    whole.caption = " ".join(_caption(frame, without, marked_any))
    whole.caption_justify = "left"
    return whole


def _caption(frame: pd.DataFrame, without: Sequence[str], marked: bool) -> Iterator[str]:
    """What the columns mean, sentence by sentence."""
    yield "Last epoch; mean ± sample std over n seeds" + (", best test mean bold." if marked else ".")
    if "test diff" not in without:
        yield f"test diff: points above {CONTROL}, paired by seed."
    if not set(SECONDS_HEADINGS) <= {*without}:
        yield "Seconds: mean per seed; an observer shares its base's training."
        if (frame["busy"] > BUSY).any():
            yield f"{BUSY_MARK}: measured while other work had a part of the machine."
    if without:
        yield f"Too narrow for {', '.join(dict.fromkeys(without))}."


def _rival_sections(frame: pd.DataFrame) -> Iterator[Table]:
    """Methods on bases of constant rate beside the plain annealed run, a section per base that has a twin."""
    for names, own in rival_pairs(frame, "test_accuracy").groupby([*ROW, "twin"], sort=False):
        *row, twin = map(str, names)
        title = f"{' · '.join(row)} beside plain {twin}"
        section = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=Text(title, "bold"), title_justify="left")
        for name in ("method", "n", "test %", "annealed %", "test diff"):
            section.add_column(name, justify="left" if name == "method" else "right", overflow="fold")
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
            section.add_column(str(name), justify="left" if place < printed.names else "right", overflow="fold")
        for row in printed.texts.itertuples(index=False, name=None):
            section.add_row(*map(Text, row))
        whole.add_row(section)
    return whole
