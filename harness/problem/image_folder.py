"""Image files in ImageNet's layout, or in folders named after their classes, streamed through timm's loader.

Files are decoded, cropped and resized in worker processes while the device trains, pinned where it is a GPU, and
normalised there. What is drawn for an image follows from (seed, epoch, image), so it does not depend on the number
of workers, and an epoch can be repeated without what went before.

Batches come from the workers through pipes, not through shared memory: that is small in containers, and a batch that
finds no room there is never sent and waited for without end.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data.loader import PrefetchLoader
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.config import ConfigError, DatasetConfig
from harness.method import Batch
from harness.problem.folders import data_root
from harness.problem.images import ImageSet, batch_ranges, full_batches
from harness.problem.picture_files import Items, Listing, counted, listed, some, test_size
from harness.problem.pictures import (
    NOTES,
    TRANSPARENT,
    TURNED,
    WIDENED,
    Examined,
    UnreadablePicture,
    examine,
    read_picture,
)
from harness.processes import cores
from harness.randomness import derive, generator
from harness.validation import Faults, printable

CROP_SHARE = 0.875
"""side of the central crop that is evaluated, as a share of the shorter side (He et al. 2016: 224 of 256)"""
CPU = torch.device("cpu")
Transform = Callable[[Any], Any]
"""from a PIL image to a uint8 array (C, H, W)"""
WAIT_SECONDS = 600
"""Longer than any batch takes to be decoded: workers that give none in that time give none at all."""
LOOK_SECONDS = 5
"""How often a loader that waits for a batch looks whether its workers are alive"""


STARTED = "fork" if sys.platform == "linux" else None
"""How loaders start workers: in the way of jobs (None) each would import all libraries anew, for every pass"""


class WorkersLost(RuntimeError):
    """Processes that decode images cannot be started, were killed, or have given no batch for WAIT_SECONDS."""


class _Decoded(Dataset[tuple[Any, int]]):
    """Images at `items`, (path, label, seed), decoded to uint8 (C, H, W) arrays; random transforms follow the seed.

    In the place of one that cannot be read there is what is wrong with it: raised in a worker it would be a traceback.
    """

    def __init__(self, items: Sequence[tuple[str, int, int]], mode: str, transform: Transform) -> None:
        self.items = items
        self.mode = mode
        self.transform = transform

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label, seed = self.items[index]
        try:
            image = read_picture(path, self.mode)
        except UnreadablePicture as error:
            return error, label
        # transforms draw from Python's and torch's own streams, which are the training's where no worker decodes
        before = random.getstate()
        try:
            with torch.random.fork_rng(devices=[]):
                random.seed(seed)
                torch.default_generator.manual_seed(seed)
                return self.transform(image), label
        finally:
            random.setstate(before)


def _together(images: list[tuple[Any, int]]) -> tuple[np.ndarray, np.ndarray] | UnreadablePicture:
    """A batch as arrays, which are sent through a pipe where tensors would go through shared memory."""
    refused = next((image for image, _ in images if isinstance(image, UnreadablePicture)), None)
    return refused or (np.stack([image for image, _ in images]), np.array([label for _, label in images]))


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

    def labelled(self, labels_B: Tensor) -> StreamedImages:
        return replace(self, labels_B=labels_B.cpu())

    def held(self) -> ImageSet:
        items = self._items(range(len(self)))
        decoded = list(self._decoded(items, 256, self._transform(augment=False)))
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

    def _decoded(
        self, items: list[tuple[str, int, int]], batch_size: int, transform: Transform
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches uint8 (B, C, H, W) with their labels; UnreadablePicture or WorkersLost where one cannot be had."""
        workers = min(self.config.workers, cores())  # more would wait for each other
        loader = DataLoader(
            _Decoded(items, "L" if self.config.channels == 1 else "RGB", transform),
            batch_sampler=[list(inside) for inside in batch_ranges(len(items), batch_size)],
            num_workers=workers,
            collate_fn=_together,
            timeout=LOOK_SECONDS if workers else 0,
            multiprocessing_context=STARTED if workers else None,
            # a stream of its own, which only numbers the workers
            generator=torch.Generator(),
        )
        before = set(multiprocessing.active_children())
        try:
            made = iter(loader)
        except OSError as error:
            raise self._lost(error) from error
        started = [process for process in multiprocessing.active_children() if process not in before]
        while True:
            batch = self._awaited(made, started)
            if batch is None:
                return
            if isinstance(batch, UnreadablePicture):
                raise batch
            images_B, labels_B = map(torch.from_numpy, batch)
            # here rather than in a thread of the loader's, which cannot be interrupted where a worker is killed
            yield images_B.pin_memory() if self.device.type == "cuda" else images_B, labels_B

    def _awaited(self, made: Iterator[Any], started: list[Any]) -> Any:
        """The next batch, None at the end; the loader is asked repeatedly, as each time it looks for its workers."""
        waited = 0
        while waited < WAIT_SECONDS:
            # what was raised when one ended may have been taken for a fault of the code that ran then
            gone = [process for process in started if not process.is_alive()]
            if gone:
                raise self._lost(f"process {gone[0].pid} ended with {gone[0].exitcode}")
            try:
                return next(made, None)
            except RuntimeError as error:
                if not str(error).startswith("DataLoader"):
                    raise
                if not str(error).startswith("DataLoader timed out"):
                    raise self._lost(error) from error
                waited += LOOK_SECONDS
        raise self._lost(f"none has given a batch for {WAIT_SECONDS} s")

    def _lost(self, why: object) -> WorkersLost:
        return WorkersLost(
            f"a process that decodes images was lost ({printable(str(why).strip())}): try fewer, "
            f"dataset.{self.config.name}.workers is {self.config.workers}, or 0, which needs none"
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
            self._decoded(items, batch_size, self._transform(augment)),  # type: ignore[arg-type]
            mean=tuple(config.mean),
            std=tuple(config.std),
            channels=config.channels,
            device=self.device,
        )
        for images_B, labels_B in loader:
            for tensor in (images_B, labels_B) if images_B.is_cuda else ():
                # copied on a stream of the loader's: its memory is not to be written to while training still reads it
                tensor.record_stream(torch.cuda.current_stream(self.device))
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


def _in_order(function: Callable[[str], Examined], paths: Iterable[str]) -> Iterator[Examined]:
    """What a function makes of each path, in their order, in as many threads as there are cores."""
    threads = min(32, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[Examined]] = deque()
        for path in paths:
            ahead.append(pool.submit(function, path))
            if len(ahead) > 2 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def drawn(items: Items, classes: int, tests: int, seed: int) -> tuple[Items, Items]:
    """Pictures of one set of class folders as a training part and a test part of `tests` pictures.

    Of the pictures of a class, in a seeded order, the i-th of n has the place (i + 1/2) / n; the test part has those
    of the lowest places, each class about its share, and the training part the others in the order of their places, so
    that any beginning of it has its share of every class, too.
    """
    by_class: list[list[int]] = [[] for _ in range(classes)]
    for index, (_, label) in enumerate(items):
        by_class[label].append(index)
    places: list[tuple[float, int, int]] = []
    for label, indices in enumerate(by_class):
        shuffled = torch.randperm(len(indices), generator=generator(seed, "split/class", label)).tolist()
        places += [((2 * i + 1) / len(indices), label, indices[j]) for i, j in enumerate(shuffled)]
    ordered = tuple(items[index] for *_, index in sorted(places))
    return ordered[tests:], ordered[:tests]


_draws: dict[tuple[Path, str, int], tuple[Listing, tuple[Items, Items]]] = {}
"""what was drawn by root, key and seed, for the listing that it was drawn from"""


class ImageFolder:
    """The source `image_folder`: its training part is `train`, its test part `val`, whose labels ImageNet gives.

    Where there is one set of class folders alone, both parts are drawn from it with `split_seed`, class by class.
    """

    shape = None
    streams = True

    def _listed(self, config: DatasetConfig) -> Listing:
        return listed(data_root(config), f"dataset.{config.name}.root")

    def _items(self, config: DatasetConfig) -> tuple[Items, Items]:
        """Files and classes of the training and of the test part; ConfigError where they are not as they must be."""
        found, key = self._listed(config), (data_root(config), config.name, config.split_seed)
        if found.val:
            return found.train, found.val
        known = _draws.get(key)
        if known is None or known[0] is not found:
            parts = drawn(found.train, len(found.classes), test_size(found), config.split_seed)
            known = _draws[key] = found, parts
        return known[1]

    def check(self, config: DatasetConfig) -> None:
        found, key, faults = self._listed(config), f"dataset.{config.name}", Faults()
        if config.channels not in (1, 3):
            faults.lines.append(
                f"{key}.channels must be 1 or 3, grey or RGB, for streamed images, got {config.channels}"
            )
        if len(found.classes) != config.classes:
            faults.lines.append(
                f"{key}.classes must be {len(found.classes)}, the folders in {printable(found.parts[0])}, "
                f"got {config.classes}: {key}.classes={len(found.classes)}"
            )
        faults.check()

    def ordered(self, config: DatasetConfig) -> bool:
        return not self._listed(config).val

    def totals(self, config: DatasetConfig) -> tuple[int, int]:
        found = self._listed(config)
        tests = test_size(found)
        return len(found.train) - tests, len(found.val) + tests

    def find(self, config: DatasetConfig) -> tuple[Path, ...] | None:
        found = self._listed(config)
        return tuple(Path(path) for part in (found.train, found.val) for path, _ in part)

    def obtain(self, config: DatasetConfig) -> str | None:
        self._items(config)
        try:
            if config.workers:
                multiprocessing.Lock()  # as a loader makes several
        except OSError as error:
            raise ConfigError(
                f"dataset.{config.name}.workers must be 0 where processes can share no lock "
                f"(/dev/shm: {error.strerror}), got {config.workers}"
            ) from error
        return None

    def notes(self, config: DatasetConfig) -> tuple[str, ...]:
        found = self._listed(config)
        train, test = self._items(config)
        seed = f"drawn with split_seed {config.split_seed}"
        if found.val:
            first, second = (printable(part.name) for part in found.parts)
            parts = (
                f"{second}/ is the test split; validation has {config.val_size:,} of {len(train):,} in {first}/, {seed}"
            )
            return (parts, *found.notes)
        pictures = len(found.train)
        parts = (
            f"one folder per class in {printable(found.parts[0])}, none of test pictures: of {pictures:,} pictures "
            f"{len(test):,} ({len(test) / pictures:.0%}) are the test split and {config.val_size:,} "
            f"({config.val_size / pictures:.0%}) validation, the same share of every class, {seed}"
        )
        tested = {label for _, label in test}
        lacking = [printable(name) for label, name in enumerate(found.classes) if label not in tested]
        some = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
        of = f"{len(lacking)} of {len(found.classes)} classes"
        none = (f"{of} are too small for a test picture, and trained on alone: {some}",) if lacking else ()
        return (parts, *none, *found.notes)

    def payloads(self, files: tuple[Path, ...]) -> Generator[bytes, None, tuple[str, ...]]:
        """Names below the root and contents of files, and what is done to their values; returns lines that say so.

        ConfigError at the end names the files that cannot be decoded.
        """
        paths = [str(path) for path in files]
        # of all paths the first and the last in alphabetical order share the least
        start = len(os.path.join(os.path.commonpath((min(paths), max(paths))), ""))
        done: Counter[str] = Counter()
        refused, brightest = [], 0
        for path, found in zip(paths, _in_order(examine, paths), strict=True):
            yield os.fsencode(path[start:].replace(os.sep, "/"))
            yield found.content
            done.update(found.done)
            brightest = max(brightest, found.brightest)
            if found.refusal is not None:
                refused.append(f"{printable(path)} ({found.refusal})")
        if refused:
            raise ConfigError(f"{len(refused)} of {len(paths)} images cannot be read: {some(refused)}")
        for what in sorted(set(done) & {TURNED, WIDENED, TRANSPARENT}):
            yield f"{what} {done[what]}".encode()  # such pictures have been read with other values: keys of their own
        highest = {WIDENED: f" (the highest value is {brightest:,})"}
        return tuple(
            f"{counted(done[what], 'picture')} {text}{highest.get(what, '')}"
            for what, text in NOTES.items()
            if done[what]
        )

    def open(self, config: DatasetConfig, files: tuple[Path, ...], part: str) -> StreamedImages:
        items = self._items(config)[part == "test"]
        return StreamedImages(config, tuple(path for path, _ in items), torch.tensor([label for _, label in items]))
