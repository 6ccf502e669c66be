"""Where images come from: one `Source` per value of `dataset.<name>.source`.

A plan asks sources for sizes and files: what only reading images needs, torch above all, is imported when it is read.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeGuard

import numpy as np

from harness.config import ConfigError, DatasetConfig, nearest
from harness.problem.cifar import CIFAR
from harness.problem.fashion_mnist import FashionMNIST

if TYPE_CHECKING:
    from torch import Tensor

    from harness.problem.images import Images, ImageSet


class Source(Protocol):
    """A data set as it is published: a training part and a test part, in files."""

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Channels, height and width, classes, where the source is one data set; None where the preset tells."""

    @property
    def streams(self) -> bool:
        """Whether images are decoded as they are needed, rather than held in memory."""

    def totals(self, config: DatasetConfig) -> tuple[int, int]:
        """Images in the training and in the test part; reads no image."""

    def find(self, config: DatasetConfig) -> tuple[Path, ...] | None:
        """The files that hold the data, in a fixed order; None where it is absent."""

    def obtain(self, config: DatasetConfig) -> str | None:
        """Fetch absent data; one line saying from where, None where it was present. ConfigError if all fails."""

    def notes(self, config: DatasetConfig) -> tuple[str, ...]:
        """A line on everything found with the data that is not used."""

    def payloads(self, files: tuple[Path, ...]) -> Iterator[bytes]:
        """The decompressed data in a fixed order: what its digest is taken over.

        ConfigError names files that cannot be used. A generator may return lines on what is done to the data.
        """

    def open(self, config: DatasetConfig, files: tuple[Path, ...], part: str) -> Images:
        """The `train` or the `test` part, as the configuration has it normalised and augmented."""


class Streamed(Source, Protocol):
    """A source whose images are decoded as they are needed, in whatever files a person has."""

    def check(self, config: DatasetConfig) -> None:
        """ConfigError where the configuration is not what the files say."""

    def ordered(self, config: DatasetConfig) -> bool:
        """Whether the training part comes in a seeded order of which any beginning has its share of every class."""


def streamed(source: Source) -> TypeGuard[Streamed]:
    """Whether a source has what only streamed ones have."""
    return source.streams


class Digits:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, values 0..16 (Alpaydin and Kaynak 1998).

    They come without an official split: a permutation, the same for every `split_seed`, holds out 360 for testing.
    """

    shape = (1, 8, 10)
    streams = False
    TEST_IMAGES = 360
    TOTAL = 1797

    def totals(self, config: DatasetConfig) -> tuple[int, int]:
        return self.TOTAL - self.TEST_IMAGES, self.TEST_IMAGES

    def find(self, config: DatasetConfig) -> tuple[Path, ...] | None:
        # located without importing scikit-learn, so that a plan stays quick
        package = importlib.util.find_spec("sklearn")
        if package is None or package.origin is None:
            return None
        path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        return (path,) if path.is_file() else None

    def obtain(self, config: DatasetConfig) -> str | None:
        if self.find(config) is None:
            raise ConfigError(f"dataset.{config.name} comes with scikit-learn, which holds no digits.csv.gz here")
        return None

    def notes(self, config: DatasetConfig) -> tuple[str, ...]:
        return ()

    def payloads(self, files: tuple[Path, ...]) -> Iterator[bytes]:
        import torch

        images, labels = self._arrays(files)
        yield images.numpy().tobytes()
        yield labels.to(torch.uint8).numpy().tobytes()

    def open(self, config: DatasetConfig, files: tuple[Path, ...], part: str) -> ImageSet:
        import torch

        from harness.problem.images import in_memory
        from harness.randomness import generator

        images, labels = self._arrays(files)
        order = torch.randperm(self.TOTAL, generator=generator(0, "digits/test"))
        chosen = order[: self.TEST_IMAGES] if part == "test" else order[self.TEST_IMAGES :]
        # 0..16 to 0..255, the range of every other source
        scaled = (images[chosen].float() * (255 / 16)).round().to(torch.uint8)
        return in_memory(config, scaled.unsqueeze(1), labels[chosen])

    @staticmethod
    def _arrays(files: tuple[Path, ...]) -> tuple[Tensor, Tensor]:
        """Images (1797, 8, 8) and labels (1797,) of the file that comes with scikit-learn.

        Each line holds 64 pixels and the digit. Importing scikit-learn for it would take every job a second.
        """
        import torch

        table = torch.from_numpy(np.loadtxt(files[0], delimiter=",", dtype=np.uint8))
        return table[:, :-1].reshape(-1, 8, 8), table[:, -1].long()


def _image_folder() -> Source:
    from harness.problem.image_folder import ImageFolder  # imports timm, which takes seconds

    return ImageFolder()


SOURCES: dict[str, Callable[[], Source]] = {
    "digits": Digits,
    "fashion_mnist": FashionMNIST,
    "cifar10": lambda: CIFAR(10),
    "cifar100": lambda: CIFAR(100),
    "image_folder": _image_folder,
}


def find_source(config: DatasetConfig) -> Source:
    """The source that a configuration names."""
    if config.source not in SOURCES:
        known = nearest(config.source, SOURCES)
        raise ConfigError(f"dataset.{config.name}.source must be a known source, got {config.source!r}{known}")
    return SOURCES[config.source]()
