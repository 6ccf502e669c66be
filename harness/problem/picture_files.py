"""Which pictures lie below a root, in `train/<class>/` and `val/<class>/` or in class folders alone: each is used,
counted in a line, or refused by name; and what a preset may leave to them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from harness.config import ConfigError
from harness.problem.pictures import picture_endings
from harness.storage.cache import remembered
from harness.validation import printable

TRAIN = ("train", "training")
TEST = ("val", "test", "valid", "validation")
"""names, in any letters, of the folders of the two parts, the first that is there taken"""
LAYOUT = "train/<class>/ and val/<class>/, or a folder per class"
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
    """the pictures of the test part; none where that is drawn from `train`"""
    notes: tuple[str, ...]
    """a line each on files that are left out, and on classes without a test image"""
    folders: dict[str, int]
    """every folder looked into, with the time of its last change in nanoseconds"""
    parts: tuple[Path, ...]
    """the folders that hold the class folders: of training and of test pictures, or one whose pictures are split"""


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

    The root has class folders below `train` and below `val` (or `test`, `valid`, `validation`), or in a single one of
    these, or has class folders itself: of a single set of class folders the test part is drawn (`image_folder`). The
    class of a picture is the name of its class folder, however deep the picture lies; links are followed. ConfigError
    at `key` where the folders are others, one cannot be read, a class has no picture to train on, the test part has
    classes that the training part lacks, or what is named like a picture is no file.
    """
    known = _listings.get((root, key))
    if known is None or any(_changed(folder) != time for folder, time in known.folders.items()):
        known = _listings[root, key] = _listed(root, key)
    return known


def _inside(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the folders in a folder and those of all else, sorted; what systems leave there is skipped."""
    with os.scandir(folder) as entries:
        meant = sorted((entry.name, _kind(entry)) for entry in entries if _is_meant(entry))
    return (
        tuple(name for name, kind in meant if kind == "folder"),
        tuple(name for name, kind in meant if kind != "folder"),
    )


def _parts(root: Path, key: str) -> tuple[Path, ...]:
    """The folders that hold the class folders; ConfigError, with what to do, where the root is laid out otherwise."""
    try:
        names, files = _inside(root)
    except OSError as error:
        raise ConfigError(f"{key} must be a folder with {LAYOUT}, got {printable(root)} ({error.strerror})") from error
    train, test = ([name for wanted in part for name in names if name.lower() == wanted] for part in (TRAIN, TEST))
    if train and test:
        return root / train[0], root / test[0]
    if train:
        return (root / train[0],)
    if len(names) > 1 and len(test) == len(names):
        raise ConfigError(
            f"{key} must be a folder with {LAYOUT}, got {printable(root)} with {', '.join(names)} and without train"
        )
    if len(names) == 1 and not test:
        inner = root / names[0]
        deeper, _ = _inside(inner)
        if deeper:
            raise ConfigError(
                f"{key} must be a folder with {LAYOUT}, got {printable(root)} with the one folder "
                f"{printable(names[0])}: {key}={printable(inner)}"
            )
        raise ConfigError(
            f"{key} must have folders of at least 2 classes, got {printable(root)} with {printable(names[0])} alone"
        )
    pictures = [name for name in files if os.path.splitext(name)[1].lower() in picture_endings()]
    if not names and pictures:
        raise ConfigError(
            f"{key} must hold a folder per class, whose name is the class, got {len(pictures):,} "
            f"directly in {printable(root)}, such as {printable(pictures[0])}: move each to the folder of its class"
        )
    if not names:
        raise ConfigError(f"{key} must be a folder with {LAYOUT}, got no folder in {printable(root)}")
    return (root / test[0],) if test and len(names) == 1 else (root,)


def _listed(root: Path, key: str) -> Listing:
    parts = _parts(root, key)
    classes, _ = _inside(parts[0])
    base = "" if parts[0] == root else f"{parts[0].name}/"
    if not classes:
        raise ConfigError(f"{key} must hold images in {base}<class>/, got no folder in {printable(parts[0])}")
    labels = {name: index for index, name in enumerate(classes)}
    left = _Left()
    folders: dict[str, int] = {str(root): os.stat(root).st_mtime_ns}
    found: list[Items] = []
    for part in parts:
        pictures = _pictures(part, key, left, folders)
        if foreign := sorted({name for _, name in pictures} - set(labels)):
            raise ConfigError(
                f"{key} must have no classes in {part.name} that {parts[0].name} lacks, "
                f"got {some(part / name for name in foreign)}"
            )
        if not pictures:
            beside = "".join(f"; {note}" for note in left.notes())
            where = "" if part == root else f"{part.name}/"
            raise ConfigError(f"{key} must hold images in {where}<class>/, got none in {printable(part)}{beside}")
        found.append(tuple((path, labels[name]) for path, name in pictures))
    if len(parts) > 1 and os.path.samefile(*parts):
        raise ConfigError(
            f"{key} must hold other images in {parts[1].name} than in {parts[0].name}, "
            f"got one folder for both in {printable(root)}"
        )
    notes = list(left.notes())
    if empty := sorted(set(range(len(classes))) - {label for _, label in found[0]}):
        beside = "".join(f"; {note}" for note in notes)
        raise ConfigError(
            f"{key} must hold images in every {base}<class>/, "
            f"got none in {some(parts[0] / classes[label] for label in empty)}{beside}"
        )
    lacking = sorted(set(range(len(classes))) - {label for _, label in found[-1]})
    if lacking:
        names = some(parts[1] / classes[label] for label in lacking)
        notes.append(f"{len(lacking)} of {len(classes)} classes have no picture in {parts[1].name}: {names}")
    unused = [name for name in _inside(root)[0] if name.lower() in (*TRAIN, *TEST) and root / name not in parts]
    if parts[0] != root and unused:
        notes.append(f"{', '.join(f'{printable(name)}/' for name in unused)} left out: {parts[-1].name}/ is taken")
    return Listing(classes, found[0], found[1] if len(parts) > 1 else (), tuple(notes), folders, parts)


FOLLOWING = ("channels", "size", "classes", "mean", "std", "val_size")
"""what follows from the files where a preset leaves it out (null)"""
NORMALISATION = {
    1: ([0.449], [0.226]),
    3: ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}
"""mean and std of ImageNet by channels; of grey ones those of its channels' means"""
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "F")
"""PIL's modes of pictures without colour"""
LARGEST, MOST_VALIDATED, MOST_MEASURED = 224, 10_000, 1000
VALIDATED, TESTED = 0.1, 0.2
"""shares of all pictures for validation, and of those without a test part for that"""


def follow(root: Path, key: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the files below a root say of the keys in FOLLOWING that have no value.

    classes: the class folders; channels: 1 where every picture is grey, else 3; size: the median of the pictures'
    shorter sides, at most 224, a multiple of 16 from there on; mean and std: ImageNet's; val_size: 10 % of the
    pictures, at most 10,000 and at least one for every class. ConfigError where the files are not laid out for it, or
    are too few.
    """
    found = listed(root, f"{key}.root")
    lacking = [name for name in FOLLOWING if values.get(name) is None]
    answers: dict[str, Any] = {"classes": len(found.classes)}
    channels = values.get("channels")
    if {"channels", "size"} & set(lacking):
        answers["channels"], answers["size"] = _measured(found)
        channels = answers["channels"] if channels is None else channels
    answers["mean"], answers["std"] = normalisation(channels)
    answers["val_size"] = val_size(found)
    train = len(found.train) - test_size(found)
    if "val_size" in lacking and train - answers["val_size"] < len(found.classes):
        raise ConfigError(
            f"{key}.root must hold at least {2 if found.val else 3} pictures per class, of which some validate"
            f"{'' if found.val else ' and some test'}, got {len(found.train)} of {len(found.classes)} classes in "
            f"{printable(found.parts[0])}"
        )
    return {name: answers[name] for name in lacking}


def normalisation(channels: Any) -> tuple[list[float], list[float]]:
    """Mean and std for so many channels; of others than 1 and 3, which are refused, as many values."""
    count = min(channels, 100) if isinstance(channels, int) else 3
    return NORMALISATION.get(count, ([0.5] * count, [0.5] * count))


def most(root: Path, key: str) -> dict[str, int]:
    """The largest splits that are sensible where the smallest version of a data set is asked for."""
    found = listed(root, f"{key}.root")
    return {"val_size": val_size(found), "test_size": len(found.val) or test_size(found)}


def val_size(found: Listing) -> int:
    """How many pictures validation has where nothing is said."""
    return min(MOST_VALIDATED, max(round(VALIDATED * len(found.train)), len(found.classes), 2))


def test_size(found: Listing) -> int:
    """How many pictures are drawn for the test part: none where there is a folder of it."""
    return 0 if found.val else max(round(TESTED * len(found.train)), len(found.classes))


def _measured(found: Listing) -> tuple[int, int]:
    """Channels and size of the pictures, by their headers; remembered as long as files have the same size and time."""
    paths = [path for items in (found.train, found.val) for path, _ in items]
    stamps = [(path, status.st_size, status.st_mtime_ns) for path in paths for status in [os.stat(path)]]
    key = hashlib.sha256(json.dumps(["headers", stamps]).encode()).hexdigest()

    def find() -> tuple[int, int]:
        sample = paths[:: -(-len(paths) // MOST_MEASURED)]
        heads = [head for head in map(_head, sample) if head is not None]
        sides = [min(size) for _, size in heads] or [LARGEST]
        side = min(LARGEST, statistics.median_low(sides))
        in_colour = any(mode not in GREY for mode, _ in heads) or not heads
        in_colour = in_colour or any(head is not None and head[0] not in GREY for head in map(_head, paths))
        return 3 if in_colour else 1, side // 16 * 16 if side > 16 else side

    return remembered("picture-headers", key, find, plain=list, read=lambda stored: (int(stored[0]), int(stored[1])))


def _head(path: str) -> tuple[str, tuple[int, int]] | None:
    """PIL's mode and the size of a picture; None where there is none, which is refused when all are decoded."""
    try:
        with Image.open(path) as file:
            return file.mode, file.size
    except Exception:  # of whatever type: decoders have their own
        return None


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
