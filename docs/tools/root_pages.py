"""Pages that are files of the repository's root, where its visitors look for them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md"}


def root_pages() -> dict[str, str]:
    """The files by their paths below docs/, links into docs/ and between them set right."""
    return {page: _moved((ROOT / name).read_text(encoding="utf-8")) for name, page in FILES.items()}


def _moved(text: str) -> str:
    text = re.sub(r"\]\(docs/", "](", text)
    for name, page in FILES.items():
        text = text.replace(f"]({name}", f"]({page}")
    return text
