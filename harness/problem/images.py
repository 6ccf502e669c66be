"""Images as training and evaluation see them: in seeded batches, augmented and normalised on their device.

`Images` is the interface; `ImageSet` holds all images on one device as uint8, which become float32 batch by batch.
Order and augmentation of an epoch follow from (seed, epoch) alone and are drawn on the CPU, so they are the same
on every device. Shape suffixes: B images of a set or a mini-batch, C channels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from harness.config import DatasetConfig
from harness.method import Batch
from harness.randomness import derive, generator


class Images(Protocol):
    """Labelled images of one split."""

    @property
    def labels_B(self) -> Tensor:
        """The labels, int64 (n,)."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str) -> Self:
        """The same images, their batches on `device`."""

    def subset(self, indices: Tensor) -> Self:
        """The images at `indices`, in that order."""

    def labelled(self, labels_B: Tensor) -> Self:
        """The same images with other labels."""

    def held(self) -> ImageSet:
        """The images un-augmented and in memory, on their device: for small subsets that are read often."""

    def steps(self, batch_size: int, limit: int | None = None) -> int:
        """Full training batches of an epoch, at most `limit`."""

    def batches(
        self, batch_size: int, memory_format: torch.memory_format = torch.contiguous_format
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in order, un-augmented and normalised, with their labels, in batches of `batch_ranges`."""

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

        An image's augmentation depends on (seed, epoch, image), not on the batch it falls into.
        """


def full_batches(images: int, batch_size: int, limit: int | None) -> int:
    """Full batches in so many images, at most `limit`."""
    full = images // batch_size
    return full if limit is None else min(full, limit)


def batch_ranges(images: int, batch_size: int) -> list[range]:
    """The batches that so many images are read in, in order. The last may be smaller, but a single image that is left
    over joins the batch before: norms over a batch take no single image where it has come down to one pixel."""
    starts = list(range(0, images, batch_size))
    if batch_size > 1 and len(starts) > 1 and images % batch_size == 1:
        del starts[-1]
    return [range(start, stop) for start, stop in pairwise([*starts, images])]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in memory, on one device: images_B uint8 (n, C, H, W), labels_B int64 (n,).

    `mean` and `std` are per channel, of pixels scaled to 0..1. `crop_padding` and `flip` say how
    `train_batches` augments: a random crop of the image padded with zeros, a horizontal flip with
    probability 1/2. Batches are enlarged to `enlarge` pixels a side as they are normalised, after augmentation, so
    that a set takes no more memory than its files.
    """

    images_B: Tensor
    labels_B: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int = 0
    flip: bool = False
    enlarge: int | None = None

    def __len__(self) -> int:
        return len(self.labels_B)

    def to(self, device: torch.device | str) -> ImageSet:
        return replace(self, images_B=self.images_B.to(device), labels_B=self.labels_B.to(device))

    def subset(self, indices: Tensor) -> ImageSet:
        indices = indices.to(self.labels_B.device)
        return replace(self, images_B=self.images_B[indices], labels_B=self.labels_B[indices])

    def labelled(self, labels_B: Tensor) -> ImageSet:
        return replace(self, labels_B=labels_B.to(self.labels_B.device))

    def held(self) -> ImageSet:
        return self

    def steps(self, batch_size: int, limit: int | None = None) -> int:
        return full_batches(len(self), batch_size, limit)

    @functools.cached_property
    def _scale_and_shift(self) -> tuple[Tensor, Tensor]:
        mean_C, std_C = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (self.mean, self.std))
        device = self.images_B.device
        return (1 / (255 * std_C)).float().to(device), (-mean_C / std_C).float().to(device)

    def normalise(self, images_B: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
        """float32 (pixel / 255 - mean) / std of uint8 images."""
        scale_C, shift_C = self._scale_and_shift
        if self.enlarge is not None:
            images_B = interpolate(images_B.float(), (self.enlarge, self.enlarge), mode="bilinear")
        # an output with the strides asked for: `contiguous` leaves those of one-channel images as they are
        out_B = torch.empty(images_B.shape, device=images_B.device, memory_format=memory_format)
        return torch.mul(images_B, scale_C, out=out_B).add_(shift_C)

    def batches(
        self, batch_size: int, memory_format: torch.memory_format = torch.contiguous_format
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for inside in batch_ranges(len(self), batch_size):
            chosen = slice(inside.start, inside.stop)
            yield self.normalise(self.images_B[chosen], memory_format), self.labels_B[chosen]

    def train_batches(
        self,
        batch_size: int,
        seed: int,
        epoch: int,
        augment: bool = True,
        memory_format: torch.memory_format = torch.contiguous_format,
        limit: int | None = None,
    ) -> Iterator[Batch]:
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


def in_memory(config: DatasetConfig, images_B: Tensor, labels_B: Tensor) -> ImageSet:
    """Images of a data set, normalised and augmented as it is configured."""
    return ImageSet(images_B, labels_B, tuple(config.mean), tuple(config.std), config.crop_padding, config.flip)
