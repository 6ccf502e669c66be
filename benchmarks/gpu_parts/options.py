"""What was asked for, and the images that all parts read."""

from __future__ import annotations

import argparse
import gzip
import random
import struct
from dataclasses import dataclass
from pathlib import Path

from harness.problem.fashion_mnist import NAMES, SYSTEM_FOLDER

FILES = (*NAMES["train"], *NAMES["test"])
IMAGES = {"train": 60_000, "test": 10_000}
SIDE, CLASSES = 28, 10


class BadInput(ValueError):
    """What cannot be started with, in one line."""


@dataclass(frozen=True)
class Options:
    """Of one run of the script."""

    minutes: float
    out: Path
    device: str
    tiny: bool
    parts: str
    data: Path | None
    """folder of Fashion-MNIST's four files; None: random images"""

    @property
    def work(self) -> Path:
        """A folder for what is needed on the way, gone at the end."""
        return self.out / "work"

    @property
    def root(self) -> Path:
        """Where the harness and torchvision find Fashion-MNIST."""
        return self.work / "data"

    @property
    def images(self) -> str:
        """What the images are, in words."""
        if self.data is None:
            return "random pixels and labels in the shape of Fashion-MNIST: accuracies mean nothing"
        return f"Fashion-MNIST from {self.data}"

    @property
    def overrides(self) -> tuple[str, ...]:
        """What every run of the harness here has in common."""
        return (f"dataset.fashion_mnist.root={self.root}", "tracker=none")


def options(given: argparse.Namespace) -> Options:
    """The checked options; BadInput."""
    data = given.data
    if data is not None and (lacking := _lacking(data)):
        raise BadInput(f"--data must be a folder of Fashion-MNIST's four files, got {data} without {lacking[0]}")
    if data is None and not _lacking(SYSTEM_FOLDER):
        data = SYSTEM_FOLDER
    if given.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise BadInput("--device must be cpu where torch finds no CUDA device, got cuda")
    try:
        (given.out / "work").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out must be a folder that can be written, got {given.out} ({error.strerror})") from error
    parts = "".join(sorted(set(given.parts)))
    return Options(given.minutes, given.out.resolve(), given.device, given.tiny, parts, data)


def _source(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _lacking(folder: Path) -> list[str]:
    return [name for name in FILES if _source(folder, name) is None]


def lay_out_images(options: Options) -> None:
    """Write the four files, unpacked, where the harness and torchvision find them; BadInput where one is damaged."""
    raw = options.root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for part, names in NAMES.items():
        if options.data is None:
            for name, content in zip(names, _random(IMAGES[part]), strict=True):
                (raw / name).write_bytes(content)
            continue
        for name in names:
            source = _source(options.data, name)
            assert source is not None
            try:
                data = source.read_bytes()
                (raw / name).write_bytes(gzip.decompress(data) if source.suffix == ".gz" else data)
            except (OSError, EOFError) as error:
                raise BadInput(f"--data must hold whole files, got {source} ({error})") from error


def _random(count: int) -> tuple[bytes, bytes]:
    """An idx file of random images, and one of their labels."""
    draw = random.Random(0)
    shape = (count, SIDE, SIDE)
    pixels = struct.pack(">4B3I", 0, 0, 8, 3, *shape) + draw.randbytes(count * SIDE * SIDE)
    labels = bytes(value % CLASSES for value in draw.randbytes(count))
    return pixels, struct.pack(">4BI", 0, 0, 8, 1, count) + labels
