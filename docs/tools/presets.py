"""Presets of conf/ as they are written: values, the comment at their beginning, and comments behind values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.packages import CONF

BEHIND = re.compile(r"^(?P<indent> *)(?P<key>[\w.-]+):(?: +(?P<value>.*?))?\s+# *(?P<comment>.*)$")


@dataclass(frozen=True)
class Preset:
    """One file of conf/."""

    name: str
    purpose: str
    """the comment that the file begins with"""
    values: dict[str, Any]
    comments: dict[str, str]
    """comments behind values, by key; of nested values by `key.key`"""


def read(path: Path) -> Preset:
    """A preset's file, whose values may lie below its name."""
    text = path.read_text(encoding="utf-8")
    begin = [line for line in text.splitlines() if line.startswith("#") and not line.startswith("# @package")]
    lead = begin[: next((n for n, line in enumerate(text.splitlines()) if not line.startswith("#")), len(begin))]
    values = yaml.safe_load(text)
    below = set(values) == {path.stem}
    return Preset(
        path.stem,
        " ".join(line.lstrip("# ") for line in lead),
        values[path.stem] if below else values,
        _comments(text, 1 if below else 0),
    )


def _comments(text: str, drop: int) -> dict[str, str]:
    """Comments behind values by the path of their keys, without the first `drop` levels."""
    found, path = {}, []
    for line in text.splitlines():
        key = re.match(r"^( *)([\w.-]+):", line)
        if key is None:
            continue
        depth = len(key[1]) // 2
        path = [*path[:depth], key[2]]
        if comment := BEHIND.match(line):
            found[".".join(path[drop:])] = comment["comment"]
    return found


def group(name: str) -> dict[str, Preset]:
    """All presets of a group, by name."""
    return {path.stem: read(path) for path in sorted((CONF / name).glob("*.yaml"))}
