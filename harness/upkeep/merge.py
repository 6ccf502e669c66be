"""Two results folders become one: what the other has and this one lacks is taken over, and conflicts are named.

Nothing of this folder is replaced, but for cells and bases that are failed or skipped here and done there.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.config import ConfigError
from harness.storage.files import write_json
from harness.storage.store import Store

TAKEN, HERE, CONFLICT = "taken over", "here already", "conflicts"
DAMAGED, UNFINISHED = "damaged there", "not finished there"
NUMBERS = ("status", "summary", "digests", "base_digest")
"""entries in which two records of one key must agree"""


def merge(root: Path, other: Path, say: Callable[[str], None]) -> int:
    """Take over what `other` has and `root` lacks: 0, or 1 where something conflicts. ConfigError: no such folder."""
    if not other.is_dir() or not any((other / name).is_dir() for name in ("bases", "cells", "suites", "tuning")):
        raise ConfigError(f"from must be a results folder, got {other}")
    if root.exists() and other.samefile(root):
        raise ConfigError(f"from must be another folder than results_dir, got {other}")
    here, there = Store(root, say), Store(other, say)
    busy = [name for name, owner in there.leases.all().items() if owner is not None]
    if busy:
        raise ConfigError(f"from must be a folder that nobody works in, got {other}: {busy[0]} is being worked at")
    code = 0
    for what in ("bases", "cells"):
        outcomes: Counter[str] = Counter()
        for folder in sorted((other / what).glob("*")):
            if folder.is_dir() and not folder.suffix:
                outcomes[_one(what[:-1], folder.name, here, there, say)] += 1
        say(f"{what}: {', '.join(f'{count} {word}' for word, count in outcomes.items()) or 'none'}")
        if outcomes[CONFLICT]:
            say(f"of {what} that conflict this folder's are kept: redo=<method> or redo=base makes them anew")
        code = max(code, int(outcomes[CONFLICT] + outcomes[DAMAGED] > 0))
    for path in sorted((other / "suites").glob("*/plan.json")):
        _suite(here, path, say)
    for folder in sorted((other / "tuning").glob("*/*/*")):
        target = root / folder.relative_to(other)
        if target.exists():
            say(f"tuning: {folder.relative_to(other / 'tuning')} is in both folders, this one's is kept")
            code = 1
        else:
            _copy(folder, target)
    return code


def _left_out(folder: str, names: list[str]) -> set[str]:
    """Hidden and damaged files, and links, which could lead anywhere."""
    return {n for n in names if n.startswith(".") or ".corrupt-" in n or (Path(folder) / n).is_symlink()}


def _copy(source: Path, target: Path) -> None:
    """A folder as a whole or not at all."""
    half = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(source, half, ignore=_left_out)
        if target.exists():
            shutil.rmtree(target)
        half.rename(target)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _one(what: str, key: str, here: Store, there: Store, say: Callable[[str], None]) -> str:
    """What becomes of a cell or base of the other folder."""
    if what == "cell":
        own, source, target, name = here.record(key), there.cell_folder(key), here.cell_folder(key), "record.json"
    else:
        own, source, target, name = here.base(key), there.base_folder(key), here.base_folder(key), "base.json"
    if problem := there.problem(source, name):
        say(f"{what} {key}: {problem}")
        return DAMAGED
    others = there.record(key) if what == "cell" else there.base(key)
    if others is None:
        return UNFINISHED
    if own is None or (own["status"] in ("failed", "skipped") and others["status"] in ("done", "diverged")):
        _copy(source, target)
        return TAKEN
    differing = [name for name in NUMBERS if own.get(name) != others.get(name)]
    if not differing or others["status"] in ("failed", "skipped"):
        return HERE
    say(f"{what} {key} ({own['model']}, {own['dataset']}, seed {own['seed']}) differs in {', '.join(differing)}")
    return CONFLICT


def _suite(here: Store, path: Path, say: Callable[[str], None]) -> None:
    """The plan of a suite, or what the other's has beside this one's: cells of other seeds, say."""
    suite = path.parent.name
    try:
        others: dict[str, Any] = json.loads(path.read_bytes())
        cells, bases = others["cells"], others["bases"]
    except (ValueError, KeyError, TypeError) as error:
        say(f"suite {suite}: damaged plan there: {error!r}")
        return
    target = here.suite_folder(suite) / "plan.json"
    if not target.exists():
        write_json(target, others)
        say(f"suite {suite}: {len(cells)} cells")
        return
    own: dict[str, Any] = json.loads(target.read_bytes())
    more = [cell for cell in cells if cell["cell_key"] not in {cell["cell_key"] for cell in own["cells"]}]
    known = {base["base_key"] for base in own["bases"]}
    own["cells"] += more
    own["bases"] += [base for base in bases if base["base_key"] not in known]
    if more:
        write_json(target, own)
    say(f"suite {suite}: {len(more)} cells beside the {len(own['cells']) - len(more)} here")
