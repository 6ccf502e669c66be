"""Data sets before an image is read: the sizes of their splits, where they are found, and what identifies them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.config import ConfigError, DatasetConfig, FilePath
from harness.problem.folders import folder_of
from harness.problem.sources import find_source, streamed
from harness.storage.cache import remembered
from harness.validation import Faults, printable, validated


class Sizes(NamedTuple):
    """Images in each split."""

    train: int
    val: int
    test: int
    probe: int = 0
    """that methods choose by; 0 where they choose by training images"""


class Found(NamedTuple):
    """Data that is here."""

    sha256: str
    """of the decompressed data"""
    notes: tuple[str, ...]
    """a line on everything that is left out, or changed as it is read"""


def completed(key: str, values: Mapping[str, Any], bounded: Iterable[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """A preset's values, those that it leaves out (null) as its files have them, and a line on what followed.

    Of `bounded`, val_size and test_size, the values are lowered to what the files give. ConfigError where they do not
    tell.
    """
    if values.get("source") != "image_folder":
        return dict(values), []
    from harness.problem import picture_files

    lacking = [name for name in picture_files.FOLLOWING if name in values and values[name] is None]
    if not lacking and not bounded:
        return dict(values), []
    root = validated(f"{key}.root", FilePath | None, values.get("root"))
    if root is None and "TRAINDYN_DATA" not in os.environ:
        raise ConfigError(f"{key}.root must be the folder of the pictures, got null: {key}.root=~/pictures")
    place = folder_of(root)
    found = {**values, **picture_files.follow(place, key, values)}
    most = picture_files.most(place, key)
    for name in bounded:
        if isinstance(found.get(name), int):
            found[name] = min(found[name], most[name])
    classes = picture_files.some(picture_files.listed(place, f"{key}.root").classes)
    beside = {"classes": f" ({classes})", "size": " (the pictures' median side, a multiple of 16 from there on)"}
    told = ", ".join(f"{name} {found[name]}{beside.get(name, '')}" for name in lacking if name not in ("mean", "std"))
    return found, [f"{told}: from the files in {printable(place)}"] if told else []


def assumed(values: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's values with any for those that its files would tell, so that the others can be checked."""
    if values.get("source") != "image_folder":
        return dict(values)
    from harness.problem.picture_files import FOLLOWING, normalisation

    mean, std = normalisation(values.get("channels"))
    anything = dict(zip(FOLLOWING, (3, 224, 1, mean, std, 1), strict=True))
    return {**values, **{name: value for name, value in anything.items() if name in values and values[name] is None}}


def check_sizes(config: DatasetConfig) -> Sizes:
    """The size of every split, without reading an image; ConfigError, with all that does not fit, where one is more
    than the source has or another key is not as the data are."""
    source = find_source(config)
    train_total, test_total = source.totals(config)
    key, faults = f"dataset.{config.name}", Faults()
    for name, value in zip(("channels", "size", "classes"), source.shape or (), strict=False):
        if getattr(config, name) != value:
            faults.lines.append(f"{key}.{name} must be {value}, what {config.source} has, got {getattr(config, name)}")
    if streamed(source):
        faults.tried(source.check, config)
    refused, neutral = ("crop_padding", 0) if source.streams else ("crop_scale", 1)
    if getattr(config, refused) != neutral:
        kind = "streamed images" if source.streams else "images in memory"
        faults.lines.append(f"{key}.{refused} must be {neutral} for {kind}, got {getattr(config, refused)}")

    def check(name: str, value: int, bound: int, why: str) -> None:
        if value > bound:
            faults.lines.append(f"{key}.{name} must be at most {bound} ({why}), got {value}")

    check("val_size", config.val_size, train_total - 1, f"{train_total} images, at least 1 to train on")
    left = max(train_total - config.val_size, 1)
    probe = config.probe_size or 0
    check(
        "probe_size", probe, left - 1, f"{train_total} images less val_size {config.val_size}, at least 1 to train on"
    )
    left, less = max(left - probe, 1), f"val_size {config.val_size}" + (f" and probe_size {probe}" if probe else "")
    train = left if config.train_size is None else config.train_size
    test = test_total if config.test_size is None else config.test_size
    check("train_size", train, left, f"{train_total} images less {less}")
    check("test_size", test, test_total, "the test images")
    faults.check()
    return Sizes(train, config.val_size, test, probe)


def train_images(config: DatasetConfig) -> int:
    """Images in the training split, without reading one."""
    return check_sizes(config).train


def most_train_images(config: DatasetConfig) -> int:
    """Images that may be trained on at most, whatever else of a configuration does not fit the data."""
    total, _ = find_source(config).totals(config)
    held = config.val_size + (config.probe_size or 0)
    left = total - held if held < total else total - 1
    return left if config.train_size is None else min(left, config.train_size)


def obtain(config: DatasetConfig) -> str | None:
    """Fetch absent data; one line saying from where, None where it was present; ConfigError if all ways fail."""
    return find_source(config).obtain(config)


def data_digest(config: DatasetConfig) -> str | None:
    """SHA-256 of the decompressed data, None where it is absent; kept by path, size and time of change."""
    data = found(config)
    return None if data is None else data.sha256


def found(config: DatasetConfig) -> Found | None:
    """The data's digest and what is to be said of it, None where it is absent; ConfigError where it cannot be used.

    All of it is read once, and what was found kept by path, size and time of change.
    """
    source = find_source(config)
    files = source.find(config)
    if files is None:
        return None
    stamps = [_stamp(path) for path in files]
    key = hashlib.sha256(json.dumps([config.source, stamps]).encode()).hexdigest()
    data = remembered(
        "data-digests",
        key,
        lambda: _read(source.payloads(files)),
        plain=lambda data: {"files": len(stamps), **data._asdict()},
        read=lambda stored: Found(str(stored["sha256"]), tuple(map(str, stored["notes"]))),
    )
    return data._replace(notes=(*source.notes(config), *data.notes))


def _stamp(path: Path) -> tuple[str, int, int]:
    """A file's path as it is given, as a link's name may say its class, with size and time of change."""
    status = path.stat()
    return str(path.absolute()), status.st_size, status.st_mtime_ns


def _read(payloads: Iterator[bytes]) -> Found:
    digest = hashlib.sha256()
    while True:
        try:
            digest.update(next(payloads))
        except StopIteration as end:
            return Found(digest.hexdigest(), end.value or ())
