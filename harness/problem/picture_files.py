"""Which pictures lie below `train/<class>/` and `val/<class>/`: each is used, counted in a line, or refused by name."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from harness.config import ConfigError
from harness.problem.pictures import picture_endings
from harness.validation import printable

PARTS = ("train", "val")
LAYOUT = "train/<class>/ and val/<class>/"
NOT_MEANT = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found"}
"""what systems leave in folders, in small letters: skipped like all whose names begin with a dot"""
NAMED = 3
"""files or folders that a message names; the others it counts"""

Items = tuple[tuple[str, int], ...]
"""paths with the index of their class"""


class Listing(NamedTuple):
    """What lies below a root, in a fixed order that does not depend on the file system's."""

    classes: tuple[str, ...]
    train: Items
    val: Items
    notes: tuple[str, ...]
    """a line each on files that are left out, and on classes without a test image"""
    folders: dict[str, int]
    """every folder looked into, with the time of its last change in nanoseconds"""


class _Left:
    """Files that are left out, by reason, and the first of each."""

    def __init__(self) -> None:
        self.endings: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self.loose = 0

    def add(self, path: str) -> None:
        self.endings[os.path.splitext(path)[1].lower() or "none"] += 1
        self.first.setdefault("ending", path)

    def add_loose(self, path: str) -> None:
        self.loose += 1
        self.first.setdefault("loose", path)

    def notes(self) -> Iterator[str]:
        if self.endings:
            each = ", ".join(f"{printable(ending)} {count:,}" for ending, count in self.endings.most_common(10))
            yield (
                f"{counted(self.endings.total(), 'file')} left out whose ending is not that of a picture that PIL "
                f"decodes ({each}), such as {printable(self.first['ending'])}"
            )
        if self.loose:
            yield (
                f"{counted(self.loose, 'picture')} left out beside the class folders, "
                f"such as {printable(self.first['loose'])}"
            )


_listings: dict[tuple[Path, str], Listing] = {}


def listed(root: Path, key: str) -> Listing:
    """What lies below a root, walked once in a process as long as its folders do not change.

    The class of a picture is the first folder below `train` or `val`, however deep the picture lies; links are
    followed. ConfigError at `key` where a folder cannot be read, a class has no picture to train on, `val` has
    classes that `train` lacks, or what is named like a picture is no file.
    """
    known = _listings.get((root, key))
    if known is None or any(_changed(folder) != time for folder, time in known.folders.items()):
        known = _listings[root, key] = _listed(root, key)
    return known


def _class_folders(root: Path, key: str) -> tuple[str, ...]:
    """The names of the folders in `train`, sorted; ConfigError where there is no such folder, or none in it."""
    try:
        with os.scandir(root / "train") as entries:
            classes = tuple(sorted(entry.name for entry in entries if _is_meant(entry) and _kind(entry) == "folder"))
    except OSError as error:
        raise ConfigError(f"{key} must be a folder with {LAYOUT}, got {printable(root)} ({error.strerror})") from error
    if not classes:
        raise ConfigError(f"{key} must hold images in train/<class>/, got no folder in {printable(root / 'train')}")
    return classes


def _listed(root: Path, key: str) -> Listing:
    classes = _class_folders(root, key)
    labels = {name: index for index, name in enumerate(classes)}
    left = _Left()
    folders: dict[str, int] = {}
    found: list[Items] = []
    for part in PARTS:
        if not os.path.isdir(root / part):
            raise ConfigError(f"{key} must be a folder with {LAYOUT}, got {printable(root)} without {part}")
        pictures = _pictures(root / part, key, left, folders)
        if foreign := sorted({name for _, name in pictures} - set(labels)):
            raise ConfigError(
                f"{key} must have no classes in val that train lacks, "
                f"got {some(root / part / name for name in foreign)}"
            )
        if not pictures:
            beside = "".join(f"; {note}" for note in left.notes())
            raise ConfigError(
                f"{key} must hold images in {part}/<class>/, got none in {printable(root / part)}{beside}"
            )
        found.append(tuple((path, labels[name]) for path, name in pictures))
    train, val = found
    if os.path.samefile(root / "train", root / "val"):
        raise ConfigError(
            f"{key} must hold other images in val than in train, got one folder for both in {printable(root)}"
        )
    notes = list(left.notes())
    if empty := sorted(set(range(len(classes))) - {label for _, label in train}):
        beside = "".join(f"; {note}" for note in notes)
        raise ConfigError(
            f"{key} must hold images in every train/<class>/, "
            f"got none in {some(root / 'train' / classes[label] for label in empty)}{beside}"
        )
    if lacking := sorted(set(range(len(classes))) - {label for _, label in val}):
        names = some(root / "val" / classes[label] for label in lacking)
        notes.append(f"{len(lacking)} of {len(classes)} classes have no picture in val: {names}")
    return Listing(classes, train, val, tuple(notes), folders)


def _pictures(part: Path, key: str, left: _Left, folders: dict[str, int]) -> list[tuple[str, str]]:
    """Paths below a part with the names of their classes, in natural order: `2.png` before `10.png`."""
    pictures: list[tuple[str, str]] = []
    broken: list[str] = []
    start = len(os.path.join(part, ""))
    for path, is_file in _walk(str(part), key, folders):
        if os.path.splitext(path)[1].lower() not in picture_endings():
            left.add(path)
        elif not is_file:
            broken.append(path)
        elif os.sep in path[start:]:
            pictures.append((path, path[start:].partition(os.sep)[0]))
        else:
            left.add_loose(path)
    if broken:
        raise ConfigError(f"{key} must hold images that are files or links to files, got {some(broken)}")
    return sorted(pictures, key=lambda one: (_natural(one[0][start:]), one[0]))


def _walk(
    folder: str, key: str, folders: dict[str, int], above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, bool]]:
    """Whatever is no folder below a folder, and whether it is a file; what systems leave there is skipped."""
    try:
        status = os.stat(folder)
        with os.scandir(folder) as found:
            entries = sorted((entry.path, _kind(entry)) for entry in found if _is_meant(entry))
    except OSError as error:
        raise ConfigError(
            f"{key} must hold folders that can be read, got {printable(folder)} ({error.strerror})"
        ) from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise ConfigError(f"{key} must hold no folder that a link leads back to, got {printable(folder)}")
    folders[folder] = status.st_mtime_ns
    for path, kind in entries:
        if kind == "folder":
            yield from _walk(path, key, folders, above | {here})
        else:
            yield path, kind == "file"


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "other"
    except OSError:  # links in a circle
        return "other"


def _is_meant(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.name.lower() not in NOT_MEANT


def _changed(folder: str) -> int | None:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return None


def _natural(path: str) -> list[str | int]:
    """What to sort by, that numbers in names count as such."""
    parts = re.split(r"(\d+)", path.lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def counted(count: int, what: str) -> str:
    """`1 file is` or `2 files are`."""
    return f"{count:,} {what}{' is' if count == 1 else 's are'}"


def some(paths: Iterable[object]) -> str:
    """The first few paths, and how many more there are."""
    texts = [printable(path) for path in paths]
    more = f" and {len(texts) - NAMED:,} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more
