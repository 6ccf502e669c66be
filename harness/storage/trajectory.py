"""Recorded snapshots in files, with the block bounds of those in memory (`harness.snapshots`).

A stored snapshot is one safetensors file that carries its own checksum. Whole snapshots are verified at every
read; blocks while they are first read from end to end, so that they cost no second reading. Files are read, not
mapped, into one block at a time. Legend: N weights, T snapshots, B a block of weights.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.method import Snapshot
from harness.snapshots import block_bounds
from harness.storage.files import CorruptFile
from harness.storage.inside import open_read
from harness.storage.paths import snapshot_path, stored_ts
from harness.storage.tensors import _DTYPES, read_header, read_tensors, write_tensors
from harness.validation import reason


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


CHUNK = 1 << 22
"""bytes read at a time where a file is only verified"""


class _StoredWeights:
    """theta_N inside a stored snapshot, read in consecutive pieces; `verify` digests them as they pass.

    The digest is that of `storage.tensors`: the metadata, then every tensor by name, with type, shape and bytes.
    """

    def __init__(self, path: Path, verify: bool) -> None:
        self.path = path
        self._header, self._data = read_header(path)
        try:
            first, last = self._header["theta_N"]["data_offsets"]
            self._metadata: dict[str, str] = self._header.pop("__metadata__")
            self._offset, self.N = self._data + first, (last - first) // 4
            self._digest = hashlib.sha256(self._described()) if verify else None
            self._pass([name for name in sorted(self._header) if name < "theta_N"])
            self._announce("theta_N")
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise CorruptFile(f"{path}: {reason(error)}") from error

    def _described(self) -> bytes:
        return json.dumps(sorted((k, v) for k, v in self._metadata.items() if k != "sha256")).encode()

    def _announce(self, name: str) -> None:
        entry: dict[str, Any] = self._header[name]
        if self._digest is not None:
            self._digest.update(f"{name}|{_DTYPES[entry['dtype']]}|{tuple(entry['shape'])}|".encode())

    def _pass(self, names: list[str]) -> None:
        """Digest whole tensors."""
        for name in names if self._digest is not None else ():
            self._announce(name)
            first, last = self._header[name]["data_offsets"]
            for start in range(first, last, CHUNK):
                self._read(np.empty(min(CHUNK, last - start), dtype=np.uint8), self._data + start)

    def _read(self, into: np.ndarray[Any, Any], offset: int) -> None:
        with open_read(self.path) as file:
            if os.preadv(file.fileno(), [into.data], offset) != into.nbytes:
                raise CorruptFile(f"{self.path}: shorter than its header says")
        if self._digest is not None:
            self._digest.update(into.data)

    def read(self, start: int, row_B: np.ndarray[Any, Any]) -> None:
        """Fill row_B with the weights from `start` on."""
        self._read(row_B, self._offset + 4 * start)

    def finish(self) -> None:
        """All weights have been read: CorruptFile where the digest differs."""
        self._pass([name for name in sorted(self._header) if name > "theta_N"])
        if self._digest is not None and self._digest.hexdigest() != self._metadata.get("sha256"):
            raise CorruptFile(f"{self.path}: checksum differs")


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
        """Let what is stored up to epoch t be seen, and nothing after it."""
        self._ts = [known for known in stored_ts(self.folder) if known <= t]

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
        files = [_StoredWeights(snapshot_path(self.folder, t), t not in self._verified) for t in ts]
        N = files[0].N if files else 0
        for file in files:
            if file.N != N:
                raise CorruptFile(f"{file.path}: holds {file.N} weights, {files[0].path.name} holds {N}")
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for start, stop in block_bounds(N, len(ts), max_bytes):
                W_TB = np.empty((len(ts), stop - start), dtype=np.float32)
                list(pool.map(_StoredWeights.read, files, [start] * len(files), W_TB))
                if stop == N:
                    # before the last block is given, so that who has seen all has seen what was written
                    list(pool.map(_StoredWeights.finish, files))
                    self._verified.update(ts)
                yield start, stop, torch.from_numpy(W_TB).to(self.device)
