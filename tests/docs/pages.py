"""Blocks of code in README.md and in the pages of docs/, as a reader would copy them."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(
    r'^ *```(?P<language>\w+)(?: title="(?P<title>[^"]*)")?\n(?P<content>.*?)^ *```$', re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """One block: its language, its title, which may be the path of a file, and its text."""

    language: str
    title: str
    content: str


def pages():
    """README.md, CONTRIBUTING.md and the written pages of docs/; not the examples, which are scripts."""
    written = [path for path in sorted(DOCS.rglob("*.md")) if path.parent.name != "examples"]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *written]


def blocks(page):
    """The blocks of a page in order."""
    return [Block(m["language"], m["title"] or "", m["content"]) for m in FENCE.finditer(page.read_text())]


def files(page):
    """The files that a page has its reader write, by path."""
    found = [block for block in blocks(page) if block.language in ("python", "yaml") and block.title]
    return {block.title: block.content for block in found}


def commands(page):
    """The lines of a page's shell blocks, without comments and continuations, as words."""
    lines = [line for block in blocks(page) if block.language == "sh" for line in block.content.splitlines()]
    found = [shlex.split(line, comments=True) for line in lines]
    return [words for words in found if words]


def name(page):
    """A page's name for a test."""
    return page.relative_to(ROOT).as_posix()
