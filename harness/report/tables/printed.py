"""A table of texts as Markdown and LaTeX: best of a column in bold, second underlined."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from harness.report.warnings import BUSY_MARK
from harness.validation import seen

EQUAL = "≈"
"""The mark behind what was shown to be equivalent."""

_LATEX = str.maketrans(
    {
        **{c: f"\\{c}" for c in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        ">": r"$>$",
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
    """A text for LaTeX, whatever characters it has."""
    return _on_one_line(text).translate(_LATEX)


def _on_one_line(text: object) -> str:
    """A text without line breaks, and in which characters that cannot be seen are escaped."""
    return seen(" ".join(str(text).split("\n")))


def _markdown(text: object) -> str:
    """A text for a cell of a table, or a line, in which nothing begins another cell or an element of HTML."""
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", _on_one_line(text).replace("|", r"\|"))


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
    legend: bool = field(default=True)
    """Whether to say what the marks mean."""

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
        return f"{title}{_on_one_line(lead)}\n\n{body}\n" + (f"\n{notes}" if notes else "")

    def latex(self) -> str:
        """The table as a float for the packages booktabs and adjustbox: the best in bold, the second underlined."""
        texts = self.texts.map(escaped)
        marked = Printed("", texts, self.marks)._marked(r"\textbf{{}}", r"\underline{{}}")
        head = " & ".join(escaped(str(name)) for name in texts.columns)
        rows = "".join(f"{' & '.join(row)} \\\\\n" for row in marked.itertuples(index=False, name=None))
        columns = "l" * self.names + "r" * (len(texts.columns) - self.names)
        title = escaped(f"{self.title}. ") if self.title else ""
        legend = ""
        if self.marks is not None and self.legend:
            legend = r" Best mean \textbf{bold}, second \underline{underlined}"
            legend += ", over equally many seeds, which is no verdict."
        notes = "".join(rf"\par\footnotesize {escaped(note)}" + "\n" for note in self.notes)
        label = re.sub(r"[^A-Za-z0-9]+", "-", self.label)
        label = f"\\label{{tab:{label}}}\n" if label else ""
        return (
            "% needs \\usepackage{booktabs,adjustbox}\n\\begin{table}\n\\centering\n"
            f"\\caption{{{title}{escaped(self.caption)}{legend}}}\n{label}"
            "\\begin{adjustbox}{max width=\\textwidth}\n"
            f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head} \\\\\n\\midrule\n{rows}"
            "\\bottomrule\n\\end{tabular}\n"
            f"\\end{{adjustbox}}\n{notes}\\end{{table}}\n"
        )


def markdown(tables: Sequence[Printed]) -> str:
    """Tables as Markdown, one below the other."""
    return "\n".join(table.markdown() for table in tables)


def latex(tables: Sequence[Printed]) -> str:
    """Tables as LaTeX floats, one below the other."""
    return "\n".join(table.latex() for table in tables)
