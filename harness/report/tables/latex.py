r"""Printed tables as LaTeX floats that every installation compiles: `graphicx` is all that they need.

`booktabs` draws their rules where the document loads it; otherwise they are `\hline`. Methods have the names that
figures give them. A table that would have to shrink below what can be read at the width of a page goes on in further
floats, each with the names at its left and the note below.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from harness.report.method_styles import KNOWN, style_of
from harness.report.tables.printed import EQUAL, Printed
from harness.report.warnings import BUSY_MARK

PREAMBLE = r"""% needs \usepackage{graphicx}; the rules are those of booktabs where that is loaded
\providecommand{\toprule}{\hline\noalign{\smallskip}}
\providecommand{\midrule}{\noalign{\smallskip}\hline\noalign{\smallskip}}
\providecommand{\bottomrule}{\noalign{\smallskip}\hline}
"""
PAGE = 96
"""The most characters of \\footnotesize beside each other, which fill a page of `article` at 85 % of that size."""
COLUMN = 56
"""The most characters of a table that is set in one column of two."""
GAP = 1.5
"""What the space between two columns takes, in characters."""
NAME = 26
"""The most characters of a name in one line; longer ones go on below, behind an underscore or a space if they can."""
PIECE = 20
"""The most characters of a name that stay together where it is broken."""
HEADING = 9
"""The characters of a heading that go beside each other whatever stands below."""
ROWS = 30
"""The most rows of one float."""

_CHARACTERS = str.maketrans(
    {
        **{c: f"\\{c}" for c in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        ">": r"$>$",
        "|": r"$|$",
        "±": r"$\pm$",
        "–": "--",
        "−": "$-$",
        "×": r"$\times$",
        "∞": r"$\infty$",
        "ρ": r"$\rho$",
        "Δ": r"$\Delta$",
        EQUAL: r"$^{\approx}$",
        BUSY_MARK: r"$^{\dagger}$",
    }
)


def escaped(text: str) -> str:
    """A text for LaTeX, whatever characters it has: one that pdfLaTeX has no sign for stands as its code point."""
    signed = re.sub(r"(?<![\w.)])-(?=\d|∞)", "−", text)
    known = (c if ord(c) < 256 or ord(c) in _CHARACTERS else f"[U+{ord(c):04X}]" for c in signed)
    return "".join(c for c in known if unicodedata.category(c[0]) != "Cc").translate(_CHARACTERS)


def latex(tables: Sequence[Printed]) -> str:
    """Tables as LaTeX floats, one below the other."""
    return PREAMBLE + "".join(f"\n{_float(part)}" for table in tables for part in _parts(_named(table)))


def display_name(text: str) -> str:
    """The name in prose of a method, and of one in parentheses behind a number; every other text as it is."""
    if text in KNOWN:
        return style_of(text).label
    return re.sub(r"\((\w+)\)$", lambda found: f"({style_of(found[1]).label})" if found[1] in KNOWN else found[0], text)


def _named(table: Printed) -> Printed:
    """A table whose methods have their names in prose."""
    return replace(table, texts=table.texts.map(display_name))


def _parts(table: Printed) -> Iterator[Printed]:
    """The table as one that fits on a page, or as several that do: columns first, then rows."""
    pieces = [(columns, start) for columns in _columns(table) for start in range(0, len(table.texts) or 1, ROWS)]
    for place, (columns, start) in enumerate(pieces):
        rows = slice(start, start + ROWS)
        title = table.title
        if len(pieces) > 1:
            title = f"{title}{', ' if title else ''}part {place + 1} of {len(pieces)}"
        yield replace(
            table,
            texts=table.texts.iloc[rows][columns],
            marks=None if table.marks is None else table.marks.iloc[rows][columns],
            title=title,
            label=table.label + (f"-{place + 1}" if place else ""),
            notes=table.notes if place == len(pieces) - 1 else (),
        )


def _columns(table: Printed) -> list[list[str]]:
    """The names of the columns of every part; those below one heading stay together where they fit."""
    names, others = list(table.texts.columns[: table.names]), list(table.texts.columns[table.names :])
    room = PAGE - sum(_width(table, name) for name in names)
    parts: list[list[str]] = []
    for _, group in groupby(others, key=lambda name: _group(table, name) or name):
        own = list(group)
        for columns in [own] if _together(table, own) <= room else [[name] for name in own]:
            fitting = (part for part in parts if _together(table, part) + _together(table, columns) <= room)
            part = next(fitting, None)
            if part is None:
                parts.append(part := [])
            part += columns
    return [[*names, *part] for part in parts]


def _together(table: Printed, names: Sequence[str]) -> float:
    """What columns beside each other take, in characters, with what stands above them."""
    spans = [(text, list(own)) for text, own in groupby(names, key=lambda name: _group(table, name))]
    return sum(max(sum(_width(table, name) for name in own), len(text) + GAP) for text, own in spans)


def _width(table: Printed, name: str) -> float:
    """What a column takes, in characters."""
    longest = max(map(len, table.texts[name]), default=0)
    if name in table.texts.columns[: table.names]:
        return min(max(longest, len(name)), NAME) + GAP
    return max(longest, *map(len, _heading(table, name))) + GAP


def _heading(table: Printed, name: str) -> list[str]:
    """The lines of a column's own heading, hardly wider than what stands below."""
    text = table.groups[name][1] if name in table.groups else display_name(name)
    room = max(HEADING, max(map(len, table.texts[name]), default=0))
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]


def _group(table: Printed, name: str) -> str:
    """What stands above a column and those that belong to it; empty where it is one of none."""
    return table.groups[name][0] if name in table.groups else ""


def _float(table: Printed) -> str:
    """One table as a float."""
    columns = list(table.texts.columns)
    wide = _together(table, columns) > COLUMN
    environment = "table*" if wide else "table"
    specification = "".join(_specification(table, name) for name in columns[: table.names])
    specification += "r" * (len(columns) - table.names)
    broken = {name for name in columns[: table.names] if "p{" in _specification(table, name)}
    rows = []
    for place in range(len(table.texts)):
        cells = [_cell(table, place, name, name in broken) for name in columns]
        rows.append(f"{' & '.join(cells)} \\\\\n")
    title = ": ".join(part for part in (table.short_caption, table.title) if part) + "."
    label = re.sub(r"[^A-Za-z0-9]+", "-", table.label)
    label = f"\\label{{tab:{label}}}\n" if label else ""
    notes = "".join(rf"\par {escaped(note)}" + "\n" for note in table.notes)
    return (
        f"\\begin{{{environment}}}\n\\centering\n\\caption{{{escaped(title)}}}\n{label}"
        "\\footnotesize\n\\setlength{\\tabcolsep}{3pt}\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        f"\\begin{{tabular}}{{{specification}}}\n\\toprule\n{_head(table)}\\midrule\n{''.join(rows)}"
        "\\bottomrule\n\\end{tabular}}\n"
        f"\\par\\smallskip\n\\begin{{minipage}}{{\\linewidth}}\\footnotesize\\raggedright\n{_note(table)}\n{notes}"
        f"\\end{{minipage}}\n\\end{{{environment}}}\n"
    )


def _specification(table: Printed, name: str) -> str:
    """How a column of names is set: in lines of NAME characters where one is longer."""
    return "p{13em}" if max(map(len, table.texts[name]), default=0) > NAME else "l"


def _cell(table: Printed, place: int, name: str, broken: bool) -> str:
    """A cell: the best in bold, the second underlined; a name of several lines may be broken."""
    given = str(table.texts[name].iloc[place])
    if broken:
        return r"\raggedright " + r"\hspace{0pt}".join(
            map(escaped, re.findall(rf"[^_ ]{{1,{PIECE}}}[_ ]*|[_ ]+", given))
        )
    text = escaped(given)
    mark = "" if table.marks is None else table.marks[name].iloc[place]
    command = {"best": r"\textbf", "second": r"\underline"}.get(mark)
    return text if command is None else f"{command}{{{text}}}"


def _head(table: Printed) -> str:
    """The lines above the rows: what stands above several columns, and the headings."""
    columns = list(table.texts.columns)
    lines = ""
    if any(_group(table, name) for name in columns):
        spans = [(text, len(list(own))) for text, own in groupby(columns, key=lambda name: _group(table, name))]
        groups = [rf"\multicolumn{{{span}}}{{{'c' if span > 1 else 'r'}}}{{{escaped(text)}}}" for text, span in spans]
        lines = f"{' & '.join(groups)} \\\\\n"
    return lines + f"{' & '.join(_stacked(_heading(table, name)) for name in columns)} \\\\\n"


def _stacked(lines: Sequence[str]) -> str:
    texts = [escaped(line) for line in lines]
    if len(texts) == 1:
        return texts[0]
    below = r" \\ ".join(texts)
    return rf"\begin{{tabular}}[b]{{@{{}}r@{{}}}}{below}\end{{tabular}}"


def _note(table: Printed) -> str:
    """What numbers and marks mean."""
    legend = ""
    shown = set() if table.marks is None else set(table.marks.to_numpy().ravel())
    if table.legend and "best" in shown:
        second = r", \underline{underlined}: second best" if "second" in shown else ""
        legend = rf" \textbf{{Bold}}: best mean{second}, of equally many seeds; no verdict."
    return escaped(table.note or table.caption) + legend
