"""Two results folders become one: what the other has and this one lacks is taken over, and conflicts are named.

Nothing of this folder is replaced, but for cells and bases that are failed or skipped here and done there, or that have
no record here; what was there is renamed, and nothing deleted. Where another command works at one, it is left alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from harness.checkpoints.registry import kept_folder, merge_names
from harness.config import ConfigError
from harness.storage import inside
from harness.storage.checked import KEY, read_plan_file
from harness.storage.files import CorruptFile, replacing, write_json
from harness.storage.leases import lease_name
from harness.storage.paths import plan_files
from harness.storage.store import Record, Store

TAKEN, HERE, CONFLICT = "taken over", "here already", "conflicts"
DAMAGED, UNFINISHED, BUSY = "damaged there", "not finished there", "worked at here by another command"
ASIDE = ".aside-"
"""in the name of a folder that another took the place of"""
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
    inside.check_whole(root)
    code = 0
    for what in ("bases", "cells"):
        outcomes: Counter[str] = Counter()
        for folder in inside.folders(other / what):
            if re.fullmatch(KEY, folder.name) and not folder.suffix:
                outcomes[_one(what[:-1], folder.name, here, there, say)] += 1
        say(f"{what}: {', '.join(f'{count} {word}' for word, count in outcomes.items()) or 'none'}")
        if outcomes[CONFLICT]:
            say(f"of {what} that conflict this folder's are kept: redo=<method> or redo=base makes them anew")
        code = max(code, int(outcomes[CONFLICT] + outcomes[DAMAGED] + outcomes[BUSY] > 0))
    code = max(code, int(not merge_names(here, other, say)))
    for path in plan_files(other):
        code = max(code, int(not _suite(here, path, say)))
    methods = [method for suite in inside.folders(other / "tuning") for method in inside.folders(suite)]
    for found in [found for method in methods for found in inside.entries(method)]:
        target = root / found.relative_to(other)
        if os.path.lexists(target):
            say(f"tuning: {found.relative_to(other / 'tuning')} is in both folders, this one's is kept")
            code = 1
        elif found.is_dir():
            _copy(found, target)
        else:
            with replacing(target) as temporary:
                inside.copy_file(found, temporary)
    return code


def _copy(source: Path, target: Path) -> None:
    """A folder as a whole or not at all, but for hidden and damaged files; what is there already is renamed."""
    half = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        inside.check_writable(half)
        half.mkdir(parents=True)
        for path in inside.files_below(source):
            parts = path.relative_to(source).parts
            if not any(part.startswith(".") or ".corrupt-" in part for part in parts):
                (half / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
                inside.copy_file(path, half / path.relative_to(source))
        if inside.is_folder(target):
            inside.rename(target, target.with_name(f"{target.name}{ASIDE}{uuid.uuid4().hex[:8]}"))
        inside.rename(half, target)
    finally:
        inside.remove_folder(half, ignore_errors=True)


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
        return _take(here, there, others, source, target)
    differing = [name for name in NUMBERS if own.get(name) != others.get(name)]
    if not differing or others["status"] in ("failed", "skipped"):
        return HERE
    say(f"{what} {key} ({own['model']}, {own['dataset']}, seed {own['seed']}) differs in {', '.join(differing)}")
    return CONFLICT


def _take(here: Store, there: Store, others: Record, source: Path, target: Path) -> str:
    """Copy a cell or a base while nobody works there: at it, or at a cell's base, whose job writes the cell."""
    folders = {target, *([here.base_folder(others["base_key"])] if others["base_key"] else [])}
    with contextlib.ExitStack() as stack:
        for folder in sorted(folders):
            lease = here.leases.take(lease_name(here.root, folder))
            if lease is None:
                return BUSY
            stack.enter_context(lease)
        kept, ours = kept_folder(there, source.name), kept_folder(here, source.name)
        if inside.is_folder(kept) and not inside.is_folder(ours):
            _copy(kept, ours)
        _copy(source, target)
    return TAKEN


def _suite(here: Store, path: Path, say: Callable[[str], None]) -> bool:
    """The plan of a suite, or what the other's has beside this one's: cells of other seeds, say.

    False where one of the two is damaged.
    """
    suite = path.parent.name
    target = here.suite_folder(suite) / "plan.json"
    try:
        others = read_plan_file(path)
        cells, bases = others["cells"], others.get("bases", [])
        own = read_plan_file(target) if inside.is_file(target) else None
    except CorruptFile as error:
        say(f"suite {suite}: a damaged plan, not taken over: {error}")
        return False
    if own is None:
        write_json(target, others)
        say(f"suite {suite}: {len(cells)} cells")
        return True
    more = [cell for cell in cells if cell["cell_key"] not in {cell["cell_key"] for cell in own["cells"]}]
    own.setdefault("bases", [])
    known = {base["base_key"] for base in own["bases"]}
    own["cells"] += more
    own["bases"] += [base for base in bases if base["base_key"] not in known]
    if more:
        write_json(target, own)
    say(f"suite {suite}: {len(more)} cells beside the {len(own['cells']) - len(more)} here")
    return True
