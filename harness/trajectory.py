"""Recorded snapshots: one face over memory and over files, with the same block bounds.

A stored snapshot is one safetensors file that carries its own checksum. Whole snapshots are verified at every
read, blocks after one verifying pass over each file. Legend: N weights, T snapshots, B a block of weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.files import CorruptFile, read_header, read_tensors, write_tensors
from harness.method import Snapshot


def block_bounds(N: int, T: int, max_bytes: int) -> Iterator[tuple[int, int]]:
    """Consecutive (start, stop) over N weights such that T x (stop - start) float32 values fit `max_bytes`."""
    width = max(1, max_bytes // (4 * max(T, 1)))
    for start in range(0, N, width):
        yield start, min(start + width, N)


class MemoryTrajectory:
    """Snapshots held in memory."""

    def __init__(self, snapshots: Sequence[Snapshot]) -> None:
        self._snapshots = list(snapshots)

    def __len__(self) -> int:
        return len(self._snapshots)

    @property
    def ts(self) -> tuple[int, ...]:
        return tuple(s.t for s in self._snapshots)

    def __getitem__(self, index: int) -> Snapshot:
        return self._snapshots[index]

    def window(self, first: int, last: int) -> MemoryTrajectory:
        return MemoryTrajectory([s for s in self._snapshots if first <= s.t <= last])

    def blocks(self, max_bytes: int) -> Iterator[tuple[int, int, Tensor]]:
        N = self._snapshots[0].theta_N.numel() if self._snapshots else 0
        for start, stop in block_bounds(N, len(self), max_bytes):
            yield start, stop, torch.stack([s.theta_N[start:stop] for s in self._snapshots])


def snapshot_path(folder: Path, t: int) -> Path:
    return folder / f"{t:05d}.safetensors"


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Store one snapshot as `<t>.safetensors`, atomically."""
    tensors = {"theta_N": snapshot.theta_N, **{f"buffer.{n}": b for n, b in snapshot.buffers.items()}}
    write_tensors(snapshot_path(folder, snapshot.t), tensors, {"t": str(snapshot.t), "step": str(snapshot.step)})


def read_snapshot(folder: Path, t: int, device: torch.device) -> Snapshot:
    """A stored snapshot; CorruptFile where it was damaged."""
    tensors, metadata = read_tensors(snapshot_path(folder, t))
    if metadata.get("t") != str(t):
        raise CorruptFile(f"{snapshot_path(folder, t)}: holds t = {metadata.get('t')}")
    buffers = {n.removeprefix("buffer."): b.to(device) for n, b in tensors.items() if n.startswith("buffer.")}
    return Snapshot(t, int(metadata["step"]), tensors["theta_N"].to(device), buffers)


def stored_ts(folder: Path) -> tuple[int, ...]:
    """The epochs whose snapshots lie in `folder`."""
    return tuple(sorted(int(p.stem) for p in folder.glob("[0-9]*.safetensors")))


class StoredTrajectory:
    """Snapshots in a folder, up to a present that the harness moves; `device` is where tensors are given."""

    def __init__(self, folder: Path, device: torch.device, first: int = 0, last: int | None = None) -> None:
        self.folder = folder
        self.device = device
        self._first = first
        self._last = last
        self._parent: StoredTrajectory | None = None
        self._ts = [t for t in stored_ts(folder) if first <= t and (last is None or t <= last)]
        self._verified: set[int] = set()

    def extend(self, t: int) -> None:
        """The snapshot of epoch t has been written: let it be seen."""
        self._ts = [*(known for known in self._ts if known < t), t]

    def rewind(self, t: int) -> None:
        """Let nothing after epoch t be seen."""
        self._ts = [known for known in self._ts if known <= t]

    def __len__(self) -> int:
        return len(self.ts)

    @property
    def ts(self) -> tuple[int, ...]:
        if self._parent is None:
            return tuple(self._ts)
        return tuple(t for t in self._parent.ts if self._first <= t and (self._last is None or t <= self._last))

    def __getitem__(self, index: int) -> Snapshot:
        return read_snapshot(self.folder, self.ts[index], self.device)

    def window(self, first: int, last: int) -> StoredTrajectory:
        view = StoredTrajectory.__new__(StoredTrajectory)
        view.folder, view.device, view._first, view._last = self.folder, self.device, first, last
        view._parent, view._ts, view._verified = self, [], self._verified
        return view

    def blocks(self, max_bytes: int) -> Iterator[tuple[int, int, Tensor]]:
        ts = self.ts
        for t in ts:
            if t not in self._verified:
                read_snapshot(self.folder, t, torch.device("cpu"))
                self._verified.add(t)
        starts = []
        N = 0
        for t in ts:
            header, data = read_header(snapshot_path(self.folder, t))
            first, last = header["theta_N"]["data_offsets"]
            starts.append(data + first)
            N = (last - first) // 4
        for start, stop in block_bounds(N, len(ts), max_bytes):
            W_TB = np.empty((len(ts), stop - start), dtype=np.float32)
            for row_B, t, offset in zip(W_TB, ts, starts, strict=True):
                with open(snapshot_path(self.folder, t), "rb") as file:
                    if os.preadv(file.fileno(), [row_B.data], offset + 4 * start) != row_B.nbytes:
                        raise CorruptFile(f"{snapshot_path(self.folder, t)}: shorter than its header says")
            yield start, stop, torch.from_numpy(W_TB).to(self.device)
