"""Small data sets in memory: a fixed train/validation/test split, and seeded batches with augmentation.

Images are held as uint8 and become float32 batch by batch. Order and augmentation of an epoch follow from
(seed, epoch) alone and are drawn on the CPU, so they are the same on every device.
Shape suffixes: B images of a set or a mini-batch, C channels.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from harness.config import ConfigError, DatasetConfig, check_choice
from harness.files import write_json
from harness.method import Batch
from harness.problem.folders import cache_folder
from harness.problem.sources import find_source
from harness.randomness import derive, generator

RESIZE_IMAGES = 1024
"""images interpolated at once: bounds the float32 copy"""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images on one device: images_B uint8 (n, C, H, W), labels_B int64 (n,).

    `mean` and `std` are per channel, of pixels scaled to 0..1. `crop_padding` and `flip` say how
    `train_batches` augments: a random crop of the image padded with zeros, a horizontal flip with
    probability 1/2.
    """

    images_B: Tensor
    labels_B: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int = 0
    flip: bool = False

    def __len__(self) -> int:
        return len(self.labels_B)

    def to(self, device: torch.device | str) -> ImageSet:
        return replace(self, images_B=self.images_B.to(device), labels_B=self.labels_B.to(device))

    def subset(self, indices: Tensor) -> ImageSet:
        """The images at `indices`, in that order."""
        indices = indices.to(self.labels_B.device)
        return replace(self, images_B=self.images_B[indices], labels_B=self.labels_B[indices])

    def steps(self, batch_size: int, limit: int | None = None) -> int:
        """Full training batches of an epoch, at most `limit`."""
        full = len(self) // batch_size
        return full if limit is None else min(full, limit)

    @functools.cached_property
    def _scale_and_shift(self) -> tuple[Tensor, Tensor]:
        mean_C, std_C = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (self.mean, self.std))
        device = self.images_B.device
        return (1 / (255 * std_C)).float().to(device), (-mean_C / std_C).float().to(device)

    def normalise(self, images_B: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
        """float32 (pixel / 255 - mean) / std of uint8 images."""
        scale_C, shift_C = self._scale_and_shift
        # an output with the strides asked for: `contiguous` leaves those of one-channel images as they are
        out_B = torch.empty(images_B.shape, device=images_B.device, memory_format=memory_format)
        return torch.mul(images_B, scale_C, out=out_B).add_(shift_C)

    def batches(
        self, batch_size: int, memory_format: torch.memory_format = torch.contiguous_format
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in order, un-augmented, with their labels; the last batch may be smaller."""
        for images_B, labels_B in zip(
            torch.split(self.images_B, batch_size), torch.split(self.labels_B, batch_size), strict=True
        ):
            yield self.normalise(images_B, memory_format), labels_B

    def train_batches(
        self,
        batch_size: int,
        seed: int,
        epoch: int,
        augment: bool = True,
        memory_format: torch.memory_format = torch.contiguous_format,
        limit: int | None = None,
    ) -> Iterator[Batch]:
        """The full batches of an epoch in its seeded order, at most `limit`; the rest of the permutation is left out.

        An image's crop and flip depend on (seed, epoch, image), not on the batch it falls into.
        """
        device = self.images_B.device
        order_B = torch.randperm(len(self), generator=generator(seed, "order", epoch)).to(device)
        draws = generator(seed, "augmentation", epoch)
        shift_B2 = torch.randint(0, 2 * self.crop_padding + 1, (len(self), 2), generator=draws).to(device)
        flip_B = torch.randint(0, 2, (len(self),), generator=draws).bool().to(device)
        for index in range(self.steps(batch_size, limit)):
            chosen_B = order_B[index * batch_size : (index + 1) * batch_size]
            images_B = self.images_B.index_select(0, chosen_B)  # a tenth of the time of indexing
            if augment:
                images_B = self._augment(images_B, shift_B2[chosen_B], flip_B[chosen_B])
            labels_B = self.labels_B[chosen_B]
            yield Batch(self.normalise(images_B, memory_format), labels_B, derive(seed, f"batch{index}", epoch))

    def _augment(self, images_B: Tensor, shift_B2: Tensor, flip_B: Tensor) -> Tensor:
        if self.crop_padding > 0:
            height, width = images_B.shape[-2:]
            # a view of every crop of every image, (B, C, 2p+1, 2p+1, H, W), from which one each is taken
            windows = pad(images_B, (self.crop_padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
            each_B = torch.arange(len(images_B), device=images_B.device)
            images_B = windows[each_B, :, shift_B2[:, 0], shift_B2[:, 1]]
        if self.flip:
            images_B = torch.where(flip_B.view(-1, 1, 1, 1), images_B.flip(-1), images_B)
        return images_B


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


def _read_part(config: DatasetConfig, part: str) -> tuple[Tensor, Tensor]:
    """Images and labels of the source's `train` or `test` part, held to what the configuration declares."""
    source = find_source(config)
    key = f"dataset.{config.name}"
    files = source.find(config)
    if files is None:
        raise ConfigError(f"{key} must be obtained before it is read, got no files")
    images_B, labels_B = source.read(files, part)
    declared = (source.totals(config)[part == "test"], config.channels, config.size, config.size)
    if tuple(images_B.shape) != declared:
        raise ConfigError(f"{key} must hold images of shape {declared}, got {tuple(images_B.shape)}")
    highest = int(labels_B.max())
    if highest >= config.classes:
        raise ConfigError(f"{key}.classes must be at least {highest + 1}, got {config.classes}")
    return images_B, labels_B


def load_split(config: DatasetConfig, split: str) -> ImageSet:
    """The `train`, `val` or `test` split on the CPU; ConfigError where the data is absent or not what is declared.

    A seeded permutation of the source's training part gives validation and training images; its test part
    is used whole, or as a fixed subset of `test_size` images.
    """
    check_choice("split", split, Sizes._fields)
    images_B, labels_B = _read_part(config, "test" if split == "test" else "train")
    indices = _split_indices(config, split)
    images_B, labels_B = images_B[indices], labels_B[indices]
    if config.resize is not None and config.resize != config.size:
        images_B = _resize(images_B, config.resize)
    return ImageSet(images_B, labels_B, tuple(config.mean), tuple(config.std), config.crop_padding, config.flip)


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
    cache = cache_folder() / "data-digests" / f"{key}.json"
    known = _cached_digest(cache)
    if known is not None:
        return known
    digest = hashlib.sha256()
    for payload in source.payloads(files):
        digest.update(payload)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
        write_json(cache, {"files": stamps, "sha256": digest.hexdigest()})
    return digest.hexdigest()


def _cached_digest(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
