"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images of 3x32x32 in 10 or 100 classes.

Both published formats are read from the configured root: the binary version (a record is its label, for CIFAR-100
the coarse one before it, and 3,072 bytes of pixels), which is preferred, and the Python version, whose pickled
batches are taken apart by an unpickler that makes arrays and nothing else.
"""

from __future__ import annotations

import functools
import io
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock
from numpy._core.multiarray import _reconstruct

from harness.config import ConfigError, DatasetConfig
from harness.problem.folders import data_root, quiet_download
from harness.validation import reason

if TYPE_CHECKING:
    from torch import Tensor

    from harness.problem.images import ImageSet

HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
PIXELS = 3 * 32 * 32
TEN, HUNDRED = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"), ("train",)
FOLDERS = {
    10: {
        "cifar-10-batches-bin": tuple(f"{name}.bin" for name in (*TEN, "test_batch")),
        "cifar-10-batches-py": (*TEN, "test_batch"),
    },
    100: {
        "cifar-100-binary": tuple(f"{name}.bin" for name in (*HUNDRED, "test")),
        "cifar-100-python": (*HUNDRED, "test"),
    },
}
"""by classes: the folders of the published archives and their files, the test part last"""


ARRAYS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""what a pickled array asks for, by module and name"""


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numbers, strings, containers and numpy arrays, and refuses whatever else a pickle may call."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAYS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR batch does")
        return ARRAYS[module, name]


def _parse_pickled(data: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 3072) and labels (n,) of a batch of the Python version."""
    batch = _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
    label_name = b"labels" if classes == 10 else b"fine_labels"
    pixels, labels = np.asarray(batch[b"data"]), np.asarray(batch[label_name])
    if pixels.dtype != np.uint8 or labels.dtype.kind != "i":
        raise ValueError(f"pixels of type {pixels.dtype} and labels of type {labels.dtype}")
    return pixels, labels


def _parse_binary(data: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 3072) and labels (n,) of a batch of the binary version."""
    labels = 1 if classes == 10 else 2
    if len(data) % (labels + PIXELS):
        raise ValueError(f"{len(data)} bytes, which is no multiple of {labels + PIXELS}")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, labels + PIXELS)
    return records[:, labels:], records[:, labels - 1]


def _read(path: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    parse = _parse_binary if path.suffix == ".bin" else _parse_pickled
    try:
        pixels, labels = parse(path.read_bytes(), classes)
        if pixels.ndim != 2 or pixels.shape[1] != PIXELS or labels.shape != pixels.shape[:1]:
            raise ValueError(f"pixels of shape {pixels.shape} and labels of shape {labels.shape}")
        if labels.size == 0 or not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError(f"labels that are not 0 to {classes - 1}")
    # whatever a damaged pickle raises
    except Exception as error:
        reason = " ".join(f"{error or type(error).__name__}".split())[:160]
        raise ConfigError(f"dataset: {path} must be a batch of CIFAR-{classes}: {reason}") from error
    return pixels, labels


@functools.lru_cache(maxsize=2)
def _read_all(paths: tuple[Path, ...], mtimes_ns: tuple[int, ...], classes: int) -> tuple[Tensor, Tensor]:
    """Images (n, 3, 32, 32) and labels; kept between calls, since training and validation come from one part."""
    import torch

    parts = [_read(path, classes) for path in paths]
    pixels = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in parts]).astype(np.int64)
    return torch.from_numpy(pixels), torch.from_numpy(labels)


class CIFAR:
    """The sources `cifar10` and `cifar100`."""

    streams = False

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.shape = (3, 32, classes)

    def totals(self, config: DatasetConfig) -> tuple[int, int]:
        return 50_000, 10_000

    def find(self, config: DatasetConfig) -> tuple[Path, ...] | None:
        root = data_root(config)
        for folder, names in FOLDERS[self.classes].items():
            # the root may be the folder itself
            for place in (root / folder, *([root] if root.name == folder else [])):
                paths = tuple(place / name for name in names)
                if all(path.is_file() for path in paths):
                    return paths
        return None

    def _part(self, files: tuple[Path, ...], part: str) -> tuple[Tensor, Tensor]:
        paths = files[-1:] if part == "test" else files[:-1]
        return _read_all(paths, tuple(path.stat().st_mtime_ns for path in paths), self.classes)

    def notes(self, config: DatasetConfig) -> tuple[str, ...]:
        return ()

    def payloads(self, files: tuple[Path, ...]) -> Iterator[bytes]:
        """Pixels and labels rather than files, so that both formats are the same data."""
        import torch

        for part in ("train", "test"):
            images, labels = self._part(files, part)
            yield images.numpy().tobytes()
            yield labels.to(torch.uint8).numpy().tobytes()

    def open(self, config: DatasetConfig, files: tuple[Path, ...], part: str) -> ImageSet:
        from harness.problem.images import in_memory

        return in_memory(config, *self._part(files, part))

    def obtain(self, config: DatasetConfig) -> str | None:
        """Fetch the data into the root where it is not found; a line that says from where, None if present.

        Raises ConfigError saying how to get it.
        """
        if self.find(config) is not None:
            return None
        root, name = data_root(config), f"CIFAR-{self.classes}"
        binary, python = FOLDERS[self.classes]
        try:
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / f".cifar-{self.classes}.lock"):
                if self.find(config) is None:
                    FETCH[self.classes](root / python)
        except Exception as error:  # of the file system, the network, the archive
            raise ConfigError(
                f"dataset.{config.name}: no {name} in {root}, and it could not be fetched ({reason(error)[:160]}): "
                f"unpack the binary or the Python version from {HOME} there, to {root / binary} or {root / python}, "
                f"or set dataset.{config.name}.root"
            ) from error
        return f"{name}: fetched by torchvision into {root / python}"


def _fetch(classes: int, folder: Path) -> None:
    """torchvision's archive of the Python version, its checksum verified and nothing in it unpickled."""
    from torchvision.datasets import CIFAR10, CIFAR100  # slow to import, rarely needed
    from torchvision.datasets.utils import download_and_extract_archive

    published = CIFAR10 if classes == 10 else CIFAR100
    # beside the root, so that the folder appears there whole
    with tempfile.TemporaryDirectory(prefix=".cifar-", dir=folder.parent) as temporary:
        with quiet_download():
            download_and_extract_archive(published.url, temporary, filename=published.filename, md5=published.tgz_md5)
        shutil.move(Path(temporary) / published.base_folder, folder)


FETCH = {classes: functools.partial(_fetch, classes) for classes in (10, 100)}
