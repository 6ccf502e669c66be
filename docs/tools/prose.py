"""Texts of the code as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def as_markdown(text: str) -> str:
    """A docstring as Markdown: what means something there and not in a docstring is escaped, outside of code."""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("    "):
            paragraphs.append(paragraph)
            continue
        parts = re.split(r"(`[^`]*`)", paragraph)
        paragraphs.append("".join(part if part.startswith("`") else _escaped(part) for part in parts))
    return "\n\n".join(paragraphs)


def _escaped(text: str) -> str:
    return re.sub(r"([*<\[\]$])", r"\\\1", text).replace(r"\<", "&lt;").replace("_", r"\_")


def cell(text: object) -> str:
    """A text as a cell of a table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], right: bool = False) -> str:
    """A Markdown table; `right` aligns all columns but the first at the right."""
    rule = ["---", *["---:" if right else "---"] * (len(heads) - 1)]
    lines = [heads, rule, *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines) + "\n"
