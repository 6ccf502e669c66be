"""Data sets before an image is read: the sizes of their splits, where they are found, and what identifies them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.config import ConfigError, DatasetConfig
from harness.problem.sources import find_source
from harness.storage.cache import remembered


class Sizes(NamedTuple):
    """Images in each split."""

    train: int
    val: int
    test: int


class Found(NamedTuple):
    """Data that is here."""

    sha256: str
    """of the decompressed data"""
    notes: tuple[str, ...]
    """a line on everything that is left out, or changed as it is read"""


class Completed(NamedTuple):
    """A preset's values with those that follow from its files."""

    values: dict[str, Any]
    notes: tuple[str, ...] = ()
    """a line on what followed"""


def completed(key: str, values: Mapping[str, Any]) -> Completed:
    """STUB"""
    return Completed(dict(values))


def check_sizes(config: DatasetConfig) -> Sizes:
    """The size of every split, without reading an image; ConfigError where one is more than the source has."""
    source = find_source(config)
    train_total, test_total = source.totals(config)
    key = f"dataset.{config.name}"
    for name, value in zip(("channels", "size", "classes"), source.shape or (), strict=False):
        if getattr(config, name) != value:
            raise ConfigError(f"{key}.{name} must be {value}, what {config.source} has, got {getattr(config, name)}")

    if source.streams and config.channels not in (1, 3):
        raise ConfigError(f"{key}.channels must be 1 or 3, grey or RGB, for streamed images, got {config.channels}")
    refused, neutral = ("crop_padding", 0) if source.streams else ("crop_scale", 1)
    if getattr(config, refused) != neutral:
        kind = "streamed images" if source.streams else "images in memory"
        raise ConfigError(f"{key}.{refused} must be {neutral} for {kind}, got {getattr(config, refused)}")

    def at_most(name: str, value: int, bound: int, why: str) -> int:
        if value > bound:
            raise ConfigError(f"{key}.{name} must be at most {bound} ({why}), got {value}")
        return value

    at_most("val_size", config.val_size, train_total - 1, f"{train_total} images, at least 1 to train on")
    left = train_total - config.val_size
    train = left if config.train_size is None else config.train_size
    test = test_total if config.test_size is None else config.test_size
    return Sizes(
        at_most("train_size", train, left, f"{train_total} images less val_size {config.val_size}"),
        config.val_size,
        at_most("test_size", test, test_total, "the test images"),
    )


def train_images(config: DatasetConfig) -> int:
    """Images in the training split, without reading one."""
    return check_sizes(config).train


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
