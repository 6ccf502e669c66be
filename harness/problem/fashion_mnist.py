"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): 60,000 training and 10,000 test images, four idx files.

The files are looked for, gzipped or not, in the configured root and in the folder of Debian's package; `obtain`
puts them into the root, through torchvision where the network allows it and otherwise as Debian's package.
"""

from __future__ import annotations

import functools
import gzip
import os
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from harness.config import ConfigError, DatasetConfig
from harness.problem.folders import data_root, quiet_download
from harness.storage.files import write_bytes
from harness.validation import reason

if TYPE_CHECKING:
    from torch import Tensor

    from harness.problem.images import ImageSet

SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DEBIAN_PACKAGE = "dataset-fashion-mnist"
NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
COMMAND_SECONDS = 300.0


def _files_in(folder: Path) -> tuple[Path, ...] | None:
    """The four files of a folder in a fixed order, or None where one is missing."""
    found = []
    for name in (*NAMES["train"], *NAMES["test"]):
        path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
        if path is None:
            return None
        found.append(path)
    return tuple(found)


def payload(path: Path) -> bytes:
    """The decompressed bytes of a file; ConfigError where they are damaged."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(
            f"dataset: {path} must be a whole file, got {reason(error)}; remove it to have it fetched again"
        ) from error


def parse_idx(data: bytes) -> np.ndarray:
    """The uint8 array of an idx file: two zero bytes, type 8, rank, big-endian sizes, values in C order."""
    if len(data) < 4 or data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * data[3]:
        raise ValueError("no idx header of unsigned bytes")
    start = 4 + 4 * data[3]
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    values = np.frombuffer(bytearray(data[start:]), dtype=np.uint8)
    if values.size != int(np.prod(shape)):
        raise ValueError(f"{values.size} bytes where {' x '.join(map(str, shape))} are declared")
    return values.reshape(shape)


@functools.lru_cache(maxsize=2)
def _read_idx(path: Path, mtime_ns: int) -> Tensor:
    """Kept between calls, since the training and the validation split come from one file."""
    import torch

    try:
        return torch.from_numpy(parse_idx(payload(path)))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"dataset: {path} must be an idx file, got {reason(error)}") from error


class FashionMNIST:
    """The source `fashion_mnist`."""

    shape = (1, 28, 10)
    streams = False

    def totals(self, config: DatasetConfig) -> tuple[int, int]:
        return 60_000, 10_000

    def find(self, config: DatasetConfig) -> tuple[Path, ...] | None:
        root = data_root(config)
        for folder in (root, root / "FashionMNIST" / "raw", SYSTEM_FOLDER):
            files = _files_in(folder)
            if files is not None:
                return files
        return None

    def notes(self, config: DatasetConfig) -> tuple[str, ...]:
        return ()

    def payloads(self, files: tuple[Path, ...]) -> Iterator[bytes]:
        return map(payload, files)

    def open(self, config: DatasetConfig, files: tuple[Path, ...], part: str) -> ImageSet:
        from harness.problem.images import in_memory

        images, labels = (_read_idx(p, p.stat().st_mtime_ns) for p in (files[:2] if part == "train" else files[2:]))
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise ConfigError(
                f"dataset: {files[0].parent} must hold as many labels as images of rank 2, "
                f"got shapes {tuple(images.shape)} and {tuple(labels.shape)}"
            )
        return in_memory(config, images.unsqueeze(1), labels.long())

    def obtain(self, config: DatasetConfig) -> str | None:
        """Fetch the data into the root where it is not found; a line that says from where, None if present.

        Raises ConfigError naming all that was tried.
        """
        if self.find(config) is not None:
            return None
        root = data_root(config)
        key = f"dataset.{config.name}"
        try:
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / ".fashion-mnist.lock"):
                return None if self.find(config) is not None else self._fetch(root, key)
        except OSError as error:
            raise ConfigError(
                f"{key}.root must be a folder that can be written, got {root} ({error.strerror})"
            ) from error

    def _fetch(self, root: Path, key: str) -> str:
        tried = []
        for origin, fetch in FETCHERS:
            with tempfile.TemporaryDirectory(prefix="traindyn-") as temporary:
                try:
                    files = _files_in(fetch(Path(temporary)))
                    if files is None:
                        raise RuntimeError("files are missing from what it gave")
                    contents = [payload(path) for path in files]
                except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
                    tried.append(f"{origin} ({reason(error)[:160]})")
                    continue
                folder = root / "FashionMNIST" / "raw"
                for path, data in zip(files, contents, strict=True):
                    write_bytes(folder / path.name.removesuffix(".gz"), data)
                return f"Fashion-MNIST: fetched by {origin} into {folder}"
        raise ConfigError(
            f"{key}: no Fashion-MNIST found in {root} or {SYSTEM_FOLDER}; tried {', '.join(tried)}; "
            "dataset=digits needs no download"
        )


def _from_torchvision(folder: Path) -> Path:
    from torchvision.datasets import FashionMNIST as Download  # slow to import, rarely needed

    with quiet_download():
        Download(str(folder), download=True)
    return folder / "FashionMNIST" / "raw"


def _command(*words: str, cwd: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        words,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise RuntimeError(f"{' '.join(words[:2])}: {lines[-1] if lines else f'exit code {done.returncode}'}")


def _from_debian(folder: Path) -> Path:
    """Debian's package, unpacked and not installed, so without root; root may refresh stale package lists first."""
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise RuntimeError(f"no {program} on this machine")
    try:
        _command("apt-get", "download", DEBIAN_PACKAGE, cwd=folder)
    except RuntimeError:
        if os.geteuid() != 0:
            raise
        _command("apt-get", "update", cwd=folder)
        _command("apt-get", "download", DEBIAN_PACKAGE, cwd=folder)
    for package in folder.glob("*.deb"):
        _command("dpkg", "-x", str(package), str(folder), cwd=folder)
    return folder / SYSTEM_FOLDER.relative_to("/")


FETCHERS: tuple[tuple[str, Callable[[Path], Path]], ...] = (
    ("torchvision", _from_torchvision),
    ("apt-get download", _from_debian),
)
