"""Data sets: a fixed train/validation/test split of a source's images, and what identifies the data.

Shape suffixes: B images of a set.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from harness.config import ConfigError, DatasetConfig, check_choice
from harness.problem.images import Images, ImageSet
from harness.problem.sources import find_source
from harness.randomness import generator
from harness.storage.cache import remembered

RESIZE_IMAGES = 1024
"""images interpolated at once: bounds the float32 copy"""


class Sizes(NamedTuple):
    """Images in each split."""

    train: int
    val: int
    test: int


def check_sizes(config: DatasetConfig) -> Sizes:
    """The size of every split, without reading an image; ConfigError where one is more than the source has."""
    source = find_source(config)
    train_total, test_total = source.totals(config)
    key = f"dataset.{config.name}"
    for name, value in zip(("channels", "size", "classes"), source.shape or (), strict=False):
        if getattr(config, name) != value:
            raise ConfigError(f"{key}.{name} must be {value}, what {config.source} has, got {getattr(config, name)}")

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


def _split_indices(config: DatasetConfig, split: str) -> Tensor:
    """Indices into the source's test part, or into its training part for `train` and `val`.

    Validation comes first in its permutation, so that `train_size` does not move it.
    """
    sizes = check_sizes(config)
    train_total, test_total = find_source(config).totals(config)
    if split == "test":
        return torch.randperm(test_total, generator=generator(config.split_seed, "split/test"))[: sizes.test]
    order = torch.randperm(train_total, generator=generator(config.split_seed, "split"))
    return order[: sizes.val] if split == "val" else order[sizes.val : sizes.val + sizes.train]


def _resize(images_B: Tensor, size: int) -> Tensor:
    """Bilinear, anti-aliased where it shrinks; uint8 again."""
    return torch.cat(
        [
            interpolate(chunk.float(), (size, size), mode="bilinear", antialias=True)
            .round()
            .clamp(0, 255)
            .to(torch.uint8)
            for chunk in torch.split(images_B, RESIZE_IMAGES)
        ]
    )


def _check_declared(config: DatasetConfig, part: str, images: ImageSet) -> None:
    """ConfigError where images or labels are not what the configuration declares."""
    key = f"dataset.{config.name}"
    declared = (find_source(config).totals(config)[part == "test"], config.channels, config.size, config.size)
    if tuple(images.images_B.shape) != declared:
        raise ConfigError(f"{key} must hold images of shape {declared}, got {tuple(images.images_B.shape)}")
    highest = int(images.labels_B.max())
    if highest >= config.classes:
        raise ConfigError(f"{key}.classes must be at least {highest + 1}, got {config.classes}")


def load_split(config: DatasetConfig, split: str) -> Images:
    """The `train`, `val` or `test` split on the CPU; ConfigError where the data is absent or not what is declared.

    A seeded permutation of the source's training part gives validation and training images; its test part
    is used whole, or as a fixed subset of `test_size` images. Images in memory that are to shrink are resized here,
    those that are to grow batch by batch.
    """
    check_choice("split", split, Sizes._fields)
    part = "test" if split == "test" else "train"
    source = find_source(config)
    files = source.find(config)
    if files is None:
        raise ConfigError(f"dataset.{config.name} must be obtained before it is read, got no files")
    images = source.open(config, files, part)
    if isinstance(images, ImageSet):
        _check_declared(config, part, images)
    images = images.subset(_split_indices(config, split))
    if isinstance(images, ImageSet) and config.resize is not None and config.resize < config.size:
        return replace(images, images_B=_resize(images.images_B, config.resize))
    if isinstance(images, ImageSet) and config.resize is not None and config.resize > config.size:
        return replace(images, enlarge=config.resize)
    return images


def obtain(config: DatasetConfig) -> str | None:
    """Fetch absent data; one line saying from where, None where it was present; ConfigError if all ways fail."""
    return find_source(config).obtain(config)


def data_digest(config: DatasetConfig) -> str | None:
    """SHA-256 of the decompressed data, None where it is absent; kept by path, size and time of change."""
    source = find_source(config)
    files = source.find(config)
    if files is None:
        return None
    stamps = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = hashlib.sha256(json.dumps([config.source, stamps]).encode()).hexdigest()

    def find() -> str:
        digest = hashlib.sha256()
        for payload in source.payloads(files):
            digest.update(payload)
        return digest.hexdigest()

    return remembered(
        "data-digests",
        key,
        find,
        plain=lambda sha256: {"files": len(stamps), "sha256": sha256},
        read=lambda stored: str(stored["sha256"]),
    )
