"""What a view is called where nobody says: after its suite, or after what was run, and after the settings that differ.

A name follows from the command line alone. Models, data sets, optimizers, methods and seeds that are chosen of a suite
belong to its view; any other setting makes a view of its own, such as `quick-fast` or `quick-cmd_online.modes20`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

LONGEST = 60
"""characters of a name that nobody gave; short enough for a folder and for W&B's tags"""
FAST = "-fast"
"""what the names of views of fast runs end with"""
UNSAID = (
    *("name", "results_dir", "tracker", "engine", "trajectory", "save", "redo", "trials", "tune", "device"),
    *("suite", "model", "dataset", "optimizer", "federation", "method", "seeds", "fast", "tuned"),
)
"""keys that are no part of a name: what changes no number, what is chosen, and what names have a word for"""
FOLDER = "image_folder"
"""The data set that is called after the folder that it lies in."""
OF_FOLDER = [f"dataset.{FOLDER}.{name}" for name in ("root", "classes", "channels")]
"""what says which folder it is, or follows from it"""


def view_name(
    given: str | None, suite: str | None, chosen: Mapping[str, Sequence[str]], settings: Mapping[str, Any]
) -> str:
    """The name of a view.

    `given`: by the command line, None where it says nothing; `chosen`: presets by group; `settings`: the values that
    the command line changes, by their keys. A fast run is kept apart, also under a name that is given.
    """
    fast = FAST if settings.get("fast") is True else ""
    if given is not None:
        return given if given.endswith(FAST) else given + fast
    words = [word for word in (_word(key, value, chosen) for key, value in sorted(settings.items())) if word]
    words += ["tuned"] * (settings.get("tuned") is True)
    begin = as_name(suite) if suite is not None else f"{_counted(chosen['model'], 'models')}-{_data(chosen, settings)}"
    whole = "-".join([begin, *words])
    longest = LONGEST - len(fast)
    if len(whole) > longest:
        digest = hashlib.sha256(whole.encode()).hexdigest()[:6]
        whole = f"{_cut(begin, words, longest - len(digest) - 1)}-{digest}"
    return whole + fast


def as_name(text: str) -> str:
    """A text in the characters that names of views have."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.") or "unnamed"


def _cut(begin: str, words: Sequence[str], longest: int) -> str:
    """As many words as there is room for, whole ones."""
    kept = begin[:longest]
    for word in words:
        if len(kept) + 1 + len(word) > longest:
            break
        kept += f"-{word}"
    return kept.rstrip("-.")


def _counted(names: Sequence[str], what: str) -> str:
    """One or two names, or how many there are."""
    return as_name("-".join(names)) if len(names) <= 2 else f"{len(names)}-{what}"


def _data(chosen: Mapping[str, Sequence[str]], settings: Mapping[str, Any]) -> str:
    root = settings.get(f"dataset.{FOLDER}.root")
    if list(chosen["dataset"]) == [FOLDER] and isinstance(root, str):
        return as_name(_last(root))
    return _counted(chosen["dataset"], "datasets")


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] or path


def _word(key: str, value: Any, chosen: Mapping[str, Sequence[str]]) -> str:
    """What a setting adds to a name: `epochs8`, `lr0.1`, `cmd_online.modes20`; nothing where it is no part of it."""
    group, *inner = key.split(".")
    if group in UNSAID and not (inner and group in chosen):
        return ""
    if (inner[1:2] and inner[1] in ("search", "rates")) or key in OF_FOLDER:
        return ""
    preset = f"{inner[0]}." if len(inner) > 1 and (group == "method" or len(chosen.get(group, ())) > 1) else ""
    name = as_name(f"{preset}{key.rpartition('.')[2]}")
    if value is True:
        return name
    if value is False or value is None:
        return f"no-{name}"
    if isinstance(value, dict | list):
        value = hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:4]
    return f"{name}{as_name(_last(str(value)))}"
