"""Where the bytes of a tensor lie in somebody's files, and how they are read: by `preadv`, without a mapping or a copy.

Nothing here opens a file for writing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.checkpoints.errors import Unreadable

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
CHUNK = 1 << 22
"""bytes that are read at a time where a tensor is passed once"""


@dataclass(frozen=True)
class Place:
    """One tensor in one file.

    It lies in C order from `offset` on, unless it has a `stride` (in elements) or is put together of `chunks`, each
    with its first index in the whole: then it is no dense tensor of the file, and is copied to be read in blocks.
    """

    path: Path
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...] | None = None
    chunks: tuple[tuple[tuple[int, ...], Place], ...] = ()

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize

    @property
    def is_dense(self) -> bool:
        return self.stride is None and not self.chunks

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for two names of one tensor in one file."""
        return self.path, self.offset, self.dtype, self.shape, self.stride, self.chunks

    @property
    def files(self) -> set[Path]:
        return {self.path} if not self.chunks else {path for _, chunk in self.chunks for path in chunk.files}


def dense_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The stride of a tensor of this shape in C order."""
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))


def is_c_order(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether elements with this stride lie in C order; of a dimension of one element the stride says nothing."""
    return math.prod(shape) <= 1 or all(
        own == wanted for own, wanted, size in zip(stride, dense_stride(shape), shape, strict=True) if size > 1
    )


class Files:
    """Files that are open for reading, at most `most` at a time; closed at the end of a `with` block."""

    def __init__(self, most: int = 16) -> None:
        self._open: dict[Path, int] = {}
        self._most = most

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def read(self, path: Path, offset: int, into: memoryview) -> None:
        """Fill `into` with the bytes of a file from `offset` on; Unreadable where it ends before."""
        if path not in self._open:
            if len(self._open) >= self._most:
                self.close()
            self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        done = 0
        while done < len(into):
            count = os.preadv(self._open[path], [into[done:]], offset + done)
            if count == 0:
                raise Unreadable(f"{path}: shorter than it says of itself")
            done += count


def read_raw(files: Files, place: Place, first: int, count: int) -> Tensor:
    """`count` elements of a dense tensor from its element `first` on, in its own type, (count,)."""
    raw = np.empty(count * place.dtype.itemsize, dtype=np.uint8)
    if count:
        files.read(place.path, place.offset + first * place.dtype.itemsize, raw.data)
    return torch.from_numpy(raw).view(place.dtype)


def load(files: Files, place: Place) -> Tensor:
    """A whole tensor in its own type and shape, wherever its elements lie."""
    if place.chunks:
        whole = torch.empty(place.shape, dtype=place.dtype)
        for start, chunk in place.chunks:
            where = tuple(slice(at, at + size) for at, size in zip(start, chunk.shape, strict=True))
            whole[where] = load(files, chunk)
        return whole
    if place.stride is None:
        return read_raw(files, place, 0, place.numel).reshape(place.shape)
    if place.numel == 0:
        return torch.empty(place.shape, dtype=place.dtype)
    reach = 1 + sum((size - 1) * step for size, step in zip(place.shape, place.stride, strict=True))
    span = read_raw(files, Place(place.path, place.offset, place.dtype, (reach,)), 0, reach)
    return span.as_strided(place.shape, place.stride).contiguous()


def pieces(files: Files, place: Place) -> Iterator[Tensor]:
    """A tensor's elements in C order and its own type, in pieces of CHUNK bytes; at once where it is not dense."""
    if not place.is_dense:
        yield load(files, place).reshape(-1)
        return
    step = CHUNK // place.dtype.itemsize
    for first in range(0, place.numel, step):
        yield read_raw(files, place, first, min(step, place.numel - first))
