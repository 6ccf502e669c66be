"""The rows of one array as a trajectory: what the public classes fit where no stored trajectory is given.

Shape suffixes: N weights, T snapshots, B a block of weights.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.method import Snapshot

TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class Rows:
    """Row i of W_TN is the snapshot of `ts[i]`, by default i; blocks are views, on `device` where one is given.

    ValueError unless W_TN has two dimensions and holds floating-point numbers.
    """

    def __init__(
        self, W_TN: Tensor | NDArray[np.generic], ts: tuple[int, ...] | None = None, device: torch.device | None = None
    ) -> None:
        array_TN = W_TN.detach() if isinstance(W_TN, Tensor) else torch.as_tensor(W_TN)
        if array_TN.ndim != 2:
            raise ValueError(f"snapshots must have shape (T, N), got {tuple(array_TN.shape)}")
        if array_TN.dtype not in TYPES:
            raise ValueError(f"snapshots must be floating-point numbers, got {array_TN.dtype}")
        self.W_TN = array_TN
        self.ts = tuple(range(len(array_TN))) if ts is None else ts
        self.device = array_TN.device if device is None else device

    def __len__(self) -> int:
        return len(self.ts)

    def __getitem__(self, index: int) -> Snapshot:
        t = self.ts[index]
        return Snapshot(t, t, self.W_TN[index].to(self.device, torch.float32), {})

    def window(self, first: int, last: int) -> Rows:
        inside = [index for index, t in enumerate(self.ts) if first <= t <= last]
        rows = slice(inside[0], inside[-1] + 1) if inside else slice(0)
        return Rows(self.W_TN[rows], self.ts[rows], self.device)

    def blocks(self, max_bytes: int) -> Iterator[tuple[int, int, Tensor]]:
        N = self.W_TN.shape[1]
        width = max(1, max_bytes // (4 * max(len(self), 1)))
        for start in range(0, N, width):
            stop = min(start + width, N)
            yield start, stop, self.W_TN[:, start:stop].to(self.device)


def on_disk(T: int, N: int, folder: Path | str | None) -> Tensor:
    """A float32 array (T, N) in a memory-mapped temporary file that lives as long as the tensor does.

    OSError where the disk has no room for it.
    """
    handle, path = tempfile.mkstemp(prefix="cmd-warmup-", dir=folder)
    try:
        # without this a full disk would end the process with SIGBUS
        os.posix_fallocate(handle, 0, 4 * T * N)
        return torch.from_file(path, shared=True, size=T * N, dtype=torch.float32).view(T, N)
    finally:
        os.close(handle)
        os.unlink(path)
