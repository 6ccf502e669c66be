"""A table of texts, and how it is written as Markdown; `tables.latex` writes it as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from harness.validation import seen

EQUAL = "≈"
"""The mark behind what was shown to be equivalent."""


def on_one_line(text: object) -> str:
    """A text without line breaks, and in which characters that cannot be seen are escaped."""
    return seen(" ".join(str(text).split("\n")))


def _markdown(text: object) -> str:
    """A text for a cell of a table, or a line, in which nothing begins another cell or an element of HTML."""
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", on_one_line(text).replace("|", r"\|"))


@dataclass(frozen=True)
class Printed:
    """A table ready to be printed: `texts` with ordinary columns, and in `marks` (same shape) `best` and `second`.

    The first `names` columns are names and set to the left. `notes` stand below.
    """

    caption: str
    texts: pd.DataFrame
    marks: pd.DataFrame | None = None
    names: int = 1
    notes: Sequence[str] = ()
    title: str = ""
    label: str = ""
    legend: bool = True
    """Whether to say what the marks mean."""
    short_caption: str = ""
    """A few words on what the table shows, where the long caption is too much."""
    note: str = ""
    """What its numbers are and how many seeds they are of, as short as a note below a table is."""
    groups: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By the name of a column what stands above it and others that belong together, and its own heading below that."""

    def _marked(self, best: str, second: str) -> pd.DataFrame:
        """Texts with the marks around them; `{}` in a mark stands for the text."""
        if self.marks is None:
            return self.texts
        texts = self.texts.copy()
        for name in texts.columns:
            texts[name] = [
                {"best": best, "second": second}.get(mark, "{}").replace("{}", text)
                for text, mark in zip(texts[name], self.marks[name], strict=True)
            ]
        return texts

    def markdown(self) -> str:
        """The table as Markdown: the best in bold, the second in italics."""
        lead = self.caption
        if self.marks is not None and self.legend:
            lead += " Best mean **bold**, second *italic*, over equally many seeds, which is no verdict."
        align = ["left" if place < self.names else "right" for place in range(len(self.texts.columns))]
        texts = replace(self, texts=self.texts.map(_markdown).rename(columns=_markdown))
        if self.marks is not None:
            texts = replace(texts, marks=self.marks.rename(columns=_markdown))
        body = texts._marked("**{}**", "*{}*").to_markdown(index=False, disable_numparse=True, colalign=align)
        title = f"### {_markdown(self.title)}\n\n" if self.title else ""
        notes = "".join(f"- {_markdown(note)}\n" for note in self.notes)
        return f"{title}{on_one_line(lead)}\n\n{body}\n" + (f"\n{notes}" if notes else "")


def markdown(tables: Sequence[Printed]) -> str:
    """Tables as Markdown, one below the other."""
    return "\n".join(table.markdown() for table in tables)
