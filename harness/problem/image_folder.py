"""Image files in ImageNet's layout: `train/<class>/` and `val/<class>/` below a root, streamed through timm's loader.

Files are decoded, cropped and resized in worker processes while the device trains, pinned where it is a GPU, and
normalised there. What is drawn for an image follows from (seed, epoch, image), so it does not depend on the number
of workers, and an epoch can be repeated without what went before.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.data.loader import PrefetchLoader, fast_collate
from timm.data.readers.reader_image_folder import find_images_and_targets
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.config import ConfigError, DatasetConfig
from harness.method import Batch
from harness.problem.folders import data_root
from harness.problem.images import ImageSet, batch_ranges, full_batches
from harness.randomness import derive, generator

CROP_SHARE = 0.875
"""side of the central crop that is evaluated, as a share of the shorter side (He et al. 2016: 224 of 256)"""
CPU = torch.device("cpu")
Transform = Callable[[Any], Any]
"""from a PIL image to a uint8 array (C, H, W)"""
PARTS = {"train": "train", "test": "val"}


class _Decoded(Dataset[tuple[Any, int]]):
    """Images at `items`, (path, label, seed), decoded to uint8 (C, H, W) arrays; random transforms follow the seed."""

    def __init__(self, items: Sequence[tuple[str, int, int]], mode: str, transform: Transform) -> None:
        self.items = items
        self.mode = mode
        self.transform = transform

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label, seed = self.items[index]
        try:
            with Image.open(path) as file:
                image = file.convert(self.mode)
        except OSError as error:
            raise OSError(f"{path} must be an image that can be read: {error}") from error
        # transforms draw from Python's and torch's own streams, which are the training's where no worker decodes
        before = random.getstate()
        try:
            with torch.random.fork_rng(devices=[]):
                random.seed(seed)
                torch.default_generator.manual_seed(seed)
                return self.transform(image), label
        finally:
            random.setstate(before)


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """Image files of one split, decoded as batches are asked for: `paths` and labels_B int64 on the CPU.

    `train_batches` augments by a crop of random area (at least `config.crop_scale` of the image) and aspect, resized
    to the image size, and by flips (Szegedy et al. 2015); everything else takes the central crop.
    """

    config: DatasetConfig
    paths: tuple[str, ...]
    labels_B: Tensor
    device: torch.device = CPU

    def __len__(self) -> int:
        return len(self.paths)

    def to(self, device: torch.device | str) -> StreamedImages:
        return replace(self, device=torch.device(device))

    def subset(self, indices: Tensor) -> StreamedImages:
        chosen = tuple(self.paths[i] for i in indices.tolist())
        return replace(self, paths=chosen, labels_B=self.labels_B[indices.cpu()])

    def held(self) -> ImageSet:
        items = self._items(range(len(self)))
        decoded = list(self._loader(items, 256, self._transform(augment=False)))
        images = ImageSet(
            torch.cat([images_B for images_B, _ in decoded]),
            self.labels_B,
            tuple(self.config.mean),
            tuple(self.config.std),
        )
        return images.to(self.device)

    def steps(self, batch_size: int, limit: int | None = None) -> int:
        return full_batches(len(self), batch_size, limit)

    def _items(self, order: Sequence[int], seed: Callable[[int], int] = lambda index: 0) -> list[tuple[str, int, int]]:
        labels = self.labels_B.tolist()
        return [(self.paths[i], labels[i], seed(i)) for i in order]

    def _transform(self, augment: bool) -> Transform:
        size, config = self.config.image_size, self.config
        made: Transform
        if augment:
            made = create_transform(
                size,
                is_training=True,
                scale=(config.crop_scale, 1.0),
                hflip=0.5 if config.flip else 0.0,
                color_jitter=None,  # type: ignore[arg-type]
                use_prefetcher=True,
            )
        else:
            made = create_transform(size, crop_pct=CROP_SHARE, use_prefetcher=True)
        return made

    def _loader(self, items: list[tuple[str, int, int]], batch_size: int, transform: Transform) -> DataLoader[Any]:
        mode = "L" if self.config.channels == 1 else "RGB"
        return DataLoader(
            _Decoded(items, mode, transform),
            batch_sampler=[list(inside) for inside in batch_ranges(len(items), batch_size)],
            num_workers=self.config.workers,
            collate_fn=fast_collate,
            pin_memory=self.device.type == "cuda",
            # a stream of its own, which only numbers the workers
            generator=torch.Generator(),
        )

    def _normalised(
        self,
        items: list[tuple[str, int, int]],
        batch_size: int,
        augment: bool,
        memory_format: torch.memory_format,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        config = self.config
        loader = PrefetchLoader(
            self._loader(items, batch_size, self._transform(augment)),
            mean=tuple(config.mean),
            std=tuple(config.std),
            channels=config.channels,
            device=self.device,
        )
        for images_B, labels_B in loader:
            yield images_B.contiguous(memory_format=memory_format), labels_B

    def batches(
        self, batch_size: int, memory_format: torch.memory_format = torch.contiguous_format
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return self._normalised(self._items(range(len(self))), batch_size, False, memory_format)

    def train_batches(
        self,
        batch_size: int,
        seed: int,
        epoch: int,
        augment: bool = True,
        memory_format: torch.memory_format = torch.contiguous_format,
        limit: int | None = None,
    ) -> Iterator[Batch]:
        order = torch.randperm(len(self), generator=generator(seed, "order", epoch)).tolist()
        order = order[: batch_size * self.steps(batch_size, limit)]
        items = self._items(order, lambda index: derive(seed, f"augmentation/{index}", epoch))
        made = self._normalised(items, batch_size, augment, memory_format)
        for index, (images_B, labels_B) in enumerate(made):
            yield Batch(images_B, labels_B, derive(seed, f"batch{index}", epoch))


@functools.lru_cache(maxsize=4)
def _listed(folder: Path, classes: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Image files below a folder with the index of their class, in a fixed order; walked once in a process."""
    found, _ = find_images_and_targets(str(folder), class_to_idx={name: i for i, name in enumerate(classes)})
    return tuple(found)


class ImageFolder:
    """The source `image_folder`: its training part is `train`, its test part `val`, whose labels ImageNet gives."""

    shape = None
    streams = True

    def _items(self, config: DatasetConfig) -> tuple[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]:
        """Files and classes of the training and of the test part; ConfigError where a part is missing."""
        root, key = data_root(config), f"dataset.{config.name}"
        train = root / PARTS["train"]
        try:
            classes = tuple(sorted(path.name for path in train.iterdir() if path.is_dir()))
        except OSError as error:
            raise ConfigError(
                f"{key}.root must be a folder with train/<class>/ and val/<class>/, got {root} ({error.strerror})"
            ) from error
        if len(classes) != config.classes:
            raise ConfigError(f"{key}.classes must be {len(classes)}, the folders in {train}, got {config.classes}")
        parts = tuple(_listed(root / PARTS[part], classes) for part in ("train", "test"))
        for part, items in zip(("train", "test"), parts, strict=True):
            if not items:
                raise ConfigError(
                    f"{key}.root must hold images in {PARTS[part]}/<class>/, got none in {root / PARTS[part]}"
                )
        return parts[0], parts[1]

    def totals(self, config: DatasetConfig) -> tuple[int, int]:
        train, test = self._items(config)
        return len(train), len(test)

    def find(self, config: DatasetConfig) -> tuple[Path, ...] | None:
        return tuple(Path(path) for part in self._items(config) for path, _ in part)

    def obtain(self, config: DatasetConfig) -> str | None:
        self._items(config)
        return None

    def payloads(self, files: tuple[Path, ...]) -> Iterator[bytes]:
        for path in files:
            yield f"{path.parent.parent.name}/{path.parent.name}/{path.name}".encode()
            yield path.read_bytes()

    def open(self, config: DatasetConfig, files: tuple[Path, ...], part: str) -> StreamedImages:
        items = self._items(config)[part == "test"]
        return StreamedImages(config, tuple(path for path, _ in items), torch.tensor([label for _, label in items]))
