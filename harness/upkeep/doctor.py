"""What is wrong with an environment or a results folder, said in one line each, and set right on request.

Everything that is stored is read and verified once. `repair` sets damaged files aside, so that the next run makes them
anew, and drops what killed processes left; `free` drops what no plan keeps. Neither touches a finished cell's record,
or anything that a running command holds.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from harness.running.event_files import abandoned
from harness.storage import inside
from harness.storage.checked import KEY, read_plan_file
from harness.storage.files import CorruptFile, set_aside
from harness.storage.leases import lease_name
from harness.storage.paths import plan_files, snapshot_path
from harness.storage.retention import LEFTOVERS, Retention
from harness.storage.store import Store
from harness.storage.tensors import read_tensors
from harness.upkeep.merge import ASIDE

FINE, NOTE, BAD = "ok", "note", "bad"
LEAST_FREE_GB = 1.0
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
"""in a source checkout"""


@dataclass
class Finding:
    """One line, and what can be done about it."""

    level: str
    text: str
    repair: Callable[[], object] | None = None
    """sets it right; None where only a person can"""
    free: Callable[[], object] | None = None
    """drops what is not needed"""


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links, such as those in W&B's own, are passed over."""
    inner = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    total = 0
    for file in inner if inside.is_folder(path) else [path]:
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(file)
            total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


def text_size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def drop(*paths: Path) -> None:
    """Remove files and folders."""
    for path in paths:
        if inside.is_folder(path):
            inside.remove_folder(path)
        else:
            inside.remove(path)


def environment() -> Iterator[Finding]:
    """Packages against what the project asks for and was tested with, and devices."""
    yield from _packages()
    import torch

    threads = torch.get_num_threads()
    yield Finding(FINE, f"python {sys.version.split()[0]}, torch {torch.__version__}, {threads} CPU threads")
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory
        yield Finding(FINE, f"CUDA device {index}: {torch.cuda.get_device_name(index)}, {text_size(memory)}")
    if not torch.cuda.is_available():
        yield Finding(NOTE, "no CUDA device: device=auto means cpu")


def _packages() -> Iterator[Finding]:
    wrong = 0
    for text in requires("traindyn") or ():
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(needed.name)
        except PackageNotFoundError:
            yield Finding(BAD, f"{needed.name}: not installed, {needed.specifier} is needed")
            wrong += 1
            continue
        if not needed.specifier.contains(found, prereleases=True):
            yield Finding(BAD, f"{needed.name}: {found} is installed, {needed.specifier} is needed")
            wrong += 1
    other = [f"{name} {found} (tested: {pinned})" for name, pinned, found in _untested()]
    if other:
        yield Finding(NOTE, f"other versions than the tested ones: {', '.join(other)}")
    elif not wrong:
        tested = "the tested versions" if CONSTRAINTS.is_file() else "within the ranges that are asked for"
        yield Finding(FINE, f"packages: {tested}")


def _untested() -> Iterator[tuple[str, str, str]]:
    """Installed packages that constraints.txt names in another version; nothing outside a source checkout."""
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if CONSTRAINTS.is_file() else ():
        name, equals, pinned = line.partition("==")
        try:
            found = version(name) if equals else pinned
        except PackageNotFoundError:
            continue
        if found.partition("+")[0] != pinned:
            yield name, pinned, found


def tracking() -> Iterator[Finding]:
    """Where W&B runs would go."""
    from harness.config import TrackerConfig
    from harness.tracking.wandb.destination import resolve_mode

    mode, note = resolve_mode(TrackerConfig("wandb"))
    yield Finding(FINE if mode == "online" else NOTE, note or f"W&B runs {mode}")


class Examination:
    """Of one results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said: list[str] = []
        self.store = Store(root, self.said.append)
        self.busy = {name for name, owner in self.store.leases.all().items() if owner is not None}

    def findings(self) -> Iterator[Finding]:
        if not self.root.is_dir():
            yield Finding(NOTE, f"no results in {self.root} yet")
            return
        yield from self._strangers()
        yield from self._disk()
        yield from self._leases()
        yield from self._cells()
        yield from self._bases()
        yield from self._suites()
        yield from self._leftovers()

    def _strangers(self) -> Iterator[Finding]:
        """What is not followed, and folders that no base and no cell is named like."""
        for text in inside.strangers(self.root):
            yield Finding(BAD, text)
        for name in ("bases", "cells"):
            for folder in inside.folders(self.root / name):
                if not re.fullmatch(KEY, folder.name):
                    yield Finding(NOTE, f"passed over, no {name[:-1]} is named like that: {folder}")

    def _disk(self) -> Iterator[Finding]:
        free = shutil.disk_usage(self.root).free
        parts = [f"{p.name} {text_size(size(p))}" for p in inside.folders(self.root) if size(p) >= 1e5]
        level = BAD if free < LEAST_FREE_GB * 1e9 else FINE
        yield Finding(level, f"disk: {text_size(free)} free; used: {', '.join(parts) or 'nothing'}")

    def _leases(self) -> Iterator[Finding]:
        for name, owner in self.store.leases.all().items():
            if owner is None:
                path = self.store.leases.path(name)
                yield Finding(NOTE, f"{name}: the lease of a process that is gone", partial(drop, path))
            else:
                yield Finding(FINE, f"{name}: {owner} works there")

    def _is_busy(self, folder: Path) -> bool:
        return lease_name(self.root, folder) in self.busy

    def _cells(self) -> Iterator[Finding]:
        done = 0
        for folder in self._folders("cells"):
            if self._is_busy(folder):
                continue
            if problem := self.store.problem(folder, "record.json"):
                yield Finding(BAD, f"damaged record: {problem}", partial(self.store.record, folder.name))
            done += inside.is_file(folder / "record.json")
            yield from self._tensors(folder)
        yield Finding(FINE, f"cells with a record: {done}")

    def _bases(self) -> Iterator[Finding]:
        ended = 0
        for folder in self._folders("bases"):
            if self._is_busy(folder) or folder.suffix in LEFTOVERS:
                continue
            if problem := self.store.problem(folder, "base.json"):
                yield Finding(BAD, f"damaged base: {problem}", partial(self.store.base, folder.name))
            ended += inside.is_file(folder / "base.json")
            yield from self._tensors(folder)
        yield Finding(FINE, f"bases that ended: {ended}")

    def _folders(self, name: str) -> list[Path]:
        """Those of bases or cells, but for those that `merge` renamed."""
        found = inside.folders(self.root / name)
        return [folder for folder in found if re.fullmatch(KEY, folder.name) and ASIDE not in folder.name]

    def _tensors(self, folder: Path) -> Iterator[Finding]:
        """Snapshots, restart states, fitted models and final weights: those that carry a checksum."""
        for path in inside.files_below(folder, "*.safetensors"):
            if path.name == "weights.safetensors":
                continue
            try:
                read_tensors(path)
            except CorruptFile as error:
                yield Finding(BAD, f"damaged: {error}", partial(set_aside, path))

    def _suites(self) -> Iterator[Finding]:
        for path in plan_files(self.root):
            try:
                cells = [cell["cell_key"] for cell in read_plan_file(path)["cells"]]
            except CorruptFile as error:
                yield Finding(BAD, f"damaged plan: {path}: {error}", partial(set_aside, path))
                continue
            left = sum(not inside.is_file(self.store.cell_folder(key) / "record.json") for key in cells)
            level = NOTE if left else FINE
            yield Finding(level, f"suite {path.parent.name}: {len(cells) - left} of {len(cells)} cells have a record")

    def _leftovers(self) -> Iterator[Finding]:
        kinds = (
            (".*.tmp", "half-written files"),
            ("*.corrupt-*", "damaged files that were set aside"),
            (f"*{ASIDE}*", "folders that others were merged in the place of"),
        )
        for pattern, what in kinds:
            inner = [folder for folder in inside.folders(self.root) if folder.name != "wandb"]  # which is W&B's own
            found = [*inside.entries(self.root, pattern), *(p for folder in inner for p in _matching(folder, pattern))]
            paths = [p for p in found if not any(self._is_busy(parent) for parent in p.parents)]
            if not paths:
                continue
            remove = partial(drop, *paths)
            text = f"{len(paths)} {what}, {text_size(sum(map(size, paths)))}"
            half = pattern.endswith(".tmp")
            yield Finding(NOTE, text, repair=remove if half else None, free=remove)
        for folder in self._folders("bases"):
            if folder.suffix in LEFTOVERS and not self._is_busy(folder.with_suffix("")):
                whole = inside.is_folder(folder.with_suffix("")) or folder.suffix == ".redo"
                repair = partial(drop, folder) if whole else partial(inside.rename, folder, folder.with_suffix(""))
                yield Finding(NOTE, f"left by a base that was trained anew: {folder}", repair)
        for folder in abandoned(self.store):
            yield Finding(NOTE, f"left by a command that was killed: {folder}", partial(drop, folder))
        yield from self._unneeded()

    def _unneeded(self) -> Iterator[Finding]:
        """Of bases that ended, all of whose planned cells have a record: snapshots and states that no plan keeps."""
        retention = Retention(self.store)
        dropped: list[Path] = []
        for folder in self._folders("bases"):
            ended = inside.is_file(folder / "base.json") and folder.suffix not in LEFTOVERS
            if not ended or self._is_busy(folder) or retention.is_open(folder.name):
                continue
            dropped += [snapshot_path(folder / "trajectory", t) for t in retention.unneeded(folder.name)]
            dropped += inside.files_in(folder / "restart")
        if dropped:
            text = f"snapshots and restart states that no plan keeps: {text_size(sum(map(size, dropped)))}"
            yield Finding(NOTE, text, free=partial(drop, *dropped))


def _matching(folder: Path, pattern: str) -> Iterator[Path]:
    """The files and folders below a folder whose names match; not those within such a folder."""
    for path in inside.entries(folder):
        if fnmatchcase(path.name, pattern):
            yield path
        elif path.is_dir():
            yield from _matching(path, pattern)


def doctor(root: Path, repair: bool, free: bool, say: Callable[[str], None]) -> int:
    """Examine, say what is found, set right what is asked for; 0 where nothing bad is left, otherwise 1.

    ConfigError where something is to be changed in a folder that holds links.
    """
    bad, told = 0, set[str]()
    examination = Examination(root)
    if repair or free:
        inside.check_whole(root)
    for source in (environment(), tracking(), examination.findings()):
        for finding in source:
            said, done = finding.text, ""
            if repair and finding.repair is not None:
                finding.repair()
                done = "; set right"
            elif free and finding.free is not None:
                finding.free()
                done = "; dropped"
            elif finding.repair is not None:
                done = "; repair=true sets it right"
            elif finding.free is not None:
                done = "; free=true drops it"
            bad += finding.level == BAD and not (repair and finding.repair is not None)
            told.add(said)
            say(f"{finding.level:4} {re.sub(chr(10), ' ', said)}{done}")
    for line in examination.said:
        if line not in told:
            say(f"     {line}")
    return 1 if bad else 0
