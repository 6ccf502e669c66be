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
from harness.report.stats.means import Row, Spread, differences, entries, marks, plain_of
from harness.report.stats.rivals import rival_pairs
from harness.report.tables.printed import Printed
from harness.report.warnings import BUSY_MARK, marked
from harness.results.columns import BUSY, COLUMNS, ROW, ROW_METHOD
from harness.results.columns import SECONDS as _SECONDS

SECONDS_HEADINGS = tuple(COLUMNS[n].heading for n in _SECONDS)


def _metrics(frame: pd.DataFrame) -> tuple[str, ...]:
    """The metrics that are shown, the last one compared: of both splits, or of validation data without a test."""
    compared = str(frame.attrs.get("metric", "test_accuracy"))
    name = compared.partition("_")[2]
    return ("val_" + name, compared) if compared.startswith("test_") else (compared,)


def _headings(frame: pd.DataFrame) -> tuple[str, ...]:
    metrics = _metrics(frame)
    difference = f"{metrics[-1].partition('_')[0]} diff"
    return ("method", "n", *(COLUMNS[n].heading for n in metrics), difference, *SECONDS_HEADINGS)


def _spared(frame: pd.DataFrame) -> tuple[str, ...]:
    """Columns that a narrow terminal is spared, one after the other."""
    return (*reversed(SECONDS_HEADINGS), *(COLUMNS[n].heading for n in _metrics(frame)[:-1]), "n")


def _terminal_lines(frame: pd.DataFrame) -> dict[Row, list[tuple[str, ...]]]:
    """The lines of the terminal table by model, dataset and optimizer."""
    metrics = _metrics(frame)
    beside, paired = [entries(frame, name) for name in metrics[:-1]], differences(frame, metrics[-1], plain_of(frame))
    digits = COLUMNS[metrics[-1]].digits
    costs = frame.groupby(ROW_METHOD, sort=False)[list(_SECONDS)].mean()
    busy = set(frame[frame["busy"] > BUSY].groupby(ROW_METHOD).indices)
    seconds = {
        key: ["–" if np.isnan(s) else f"{s:.1f}{BUSY_MARK if key in busy else ''}" for s in row]
        for key, *row in costs.itertuples(name=None)
    }
    sections: dict[Row, list[tuple[str, ...]]] = {}
    for row, methods in entries(frame, metrics[-1]).items():
        for method, test in methods.items():
            key, n = (*row, method), test.spread.n
            values = [*(other[row][method].spread.text(digits, "±") for other in beside), test.spread.text(digits, "±")]
            if n == 0:
                values = [f"– {test.status}", *("–" for _ in beside)]
            difference = paired[key].text(digits, "±", "+") if key in paired and paired[key].n > 0 else "–"
            line = (method, str(n) if n == test.seeds else f"{n}/{test.seeds}", *values, difference, *seconds[key])
            sections.setdefault(row, []).append(line)
    return sections


def terminal_table(frame: pd.DataFrame) -> FirstThatFits:
    """One section per model, dataset and optimizer, methods as rows. Where the terminal is too narrow for all columns,
    seconds are left out, then more; a name is never cut."""
    lines, rivals, spared = _terminal_lines(frame), list(_rival_sections(frame)), _spared(frame)
    return FirstThatFits(
        *(partial(_main_table, frame, lines, rivals, spared[:count]) for count in range(len(spared) + 1))
    )


def _main_table(
    frame: pd.DataFrame, sections: dict[Row, list[tuple[str, ...]]], rivals: Sequence[Table], without: Sequence[str]
) -> Table:
    """The table without some of its columns."""
    compared, headings = _metrics(frame)[-1], _headings(frame)
    tests, marked_any = entries(frame, compared), False
    everything = [headings, *(line for lines in sections.values() for line in lines)]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    shown = [place for place, name in enumerate(headings) if name not in without]
    whole = Table.grid()
    for row, lines in sections.items():
        best_of, title = marks(tests[row], compared), Text(marked(" · ".join(row), frame), "bold")
        section = Table(box=box.SIMPLE_HEAD, padding=0, title=title, title_justify="left")
        for place in shown:
            # Padded headings align the sections, and unlike a minimal width they never cut cells off.
            name, width, left = headings[place], widths[place], place == 0
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
    split, _, name = _metrics(frame)[-1].partition("_")
    yield "Last epoch; mean ± sample std over n seeds" + (f", best {split} mean bold." if marked else ".")
    if f"{split} diff" not in without:
        unit = "points" if COLUMNS[f"{split}_{name}"].unit == "%" else name
        yield f"{split} diff: {unit} above {plain_of(frame)}, paired by seed."
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
