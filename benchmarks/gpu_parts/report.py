"""gpu.json and gpu.md: what was run where, and what each part found."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpu_parts.findings import Found, Row
from harness.storage.files import write_bytes


@dataclass
class Part:
    """A part as it stands: `status` is waiting, running, done, partly done, ended, failed or left out."""

    letter: str
    title: str
    status: str = "waiting"
    message: str = ""
    seconds: float = 0.0
    limit: float = 0.0
    found: Found | None = None

    @property
    def as_it_should_be(self) -> bool:
        found = self.found or Found()
        return self.status != "failed" and not found.failed and not found.wrong


@dataclass
class Document:
    """All that is written."""

    facts: dict[str, Any]
    parts: list[Part]

    def write(self, folder: Path) -> None:
        """Both files anew, each whole or as it was."""
        plain = {"facts": self.facts, "parts": {part.letter: asdict(part) for part in self.parts}}
        write_bytes(folder / "gpu.json", (json.dumps(plain, indent=1) + "\n").encode())
        write_bytes(folder / "gpu.md", self.markdown().encode())

    def markdown(self) -> str:
        lines = ["# A GPU in one command", ""]
        lines += [f"- {name}: {_text(value)}" for name, value in self.facts.items()]
        for part in self.parts:
            lines += ["", f"## {part.letter}. {part.title}", "", _status(part)]
            if part.found is not None:
                lines += _found(part.found)
        return "\n".join(lines) + "\n"


def _status(part: Part) -> str:
    spent = f", {part.seconds:.0f} s of {part.limit:.0f} s" if part.limit else ""
    return f"{part.status}{spent}{': ' + _text(part.message) if part.message else ''}"


def _found(found: Found) -> list[str]:
    lines: list[str] = []
    for title, rows in found.tables.items():
        lines += ["", f"**{title}**", "", *_table(rows)]
    kinds = (("Not as it should be", found.wrong), ("Failed", found.failed), ("Left out", found.left_out))
    for kind, texts in kinds:
        lines += ["", f"{kind}:", "", *(f"- {_text(text)}" for text in texts)] if texts else []
    lines += ["", *(f"{_text(note)}  " for note in found.notes)] if found.notes else []
    return lines


def _table(rows: list[Row]) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns), *([_text(row.get(name, "")) for name in columns] for row in rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _text(value: Any) -> str:
    if value is None:
        return "not available"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    return str(value).replace("|", "\\|").replace("\n", " ")
