"""The snapshots of an adopted run, with the face of every other trajectory and nothing of them copied.

Blocks are read with `preadv` from somebody's files, cast to float32 on the way. Every tensor is held to its digest the
first time that it is read from end to end, and every file to its size, time and inode whenever it is opened.
Legend: N weights, T snapshots, B a block of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from harness.checkpoints.digests import begin_digest, raw_bytes
from harness.checkpoints.errors import SourceChanged, Unreadable
from harness.checkpoints.places import Files, Place, load, read_raw
from harness.checkpoints.runs import AdoptedRun, Source
from harness.method import Snapshot
from harness.snapshots import block_bounds


class _Weights:
    """theta_N of one snapshot, read in consecutive pieces; `verify` digests the tensors as they pass."""

    def __init__(self, run: AdoptedRun, place: int, verify: bool) -> None:
        self.source = run.sources[place]
        self._files = Files(most=1)
        self._wanted = [tensor.digests[place] for tensor in run.weights]
        self._names = run.layout.names
        self._places = places_of(run, self.source, self._names)
        self._starts = [*run.layout.offsets, run.N]
        self._verify = verify
        self._digest = begin_digest(torch.float32, ())

    def read(self, start: int, row_B: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
        """Fill row_B with the weights from `start` on."""
        row, stop = torch.from_numpy(row_B), start + len(row_B)
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        for index in range(first, len(self._places)):
            begin, end = self._starts[index], self._starts[index + 1]
            if begin >= stop:
                break
            low, high = max(begin, start), min(end, stop)
            if high > low:
                part = self._part(index, low - begin, high - low)
                row[low - start : high - start].copy_(part)
                self._pass(index, part, low == begin, high == end)
        if stop == self._starts[-1]:
            self._files.close()

    def _part(self, index: int, first: int, count: int) -> Tensor:
        place = self._places[index]
        try:
            if place.is_dense:
                return read_raw(self._files, place, first, count)
            return load(self._files, place).reshape(-1)[first : first + count]
        except (OSError, Unreadable) as error:
            raise SourceChanged(f"{self.source.label}: cannot be read any more: {error}") from error

    def _pass(self, index: int, part: Tensor, begins: bool, ends: bool) -> None:
        if not self._verify:
            return
        if begins:
            self._digest = begin_digest(self._places[index].dtype, self._places[index].shape)
        self._digest.update(raw_bytes(part.contiguous()))
        if ends and self._digest.hexdigest() != self._wanted[index]:
            raise changed(self.source, self._names[index])


def changed(source: Source, name: str) -> SourceChanged:
    return SourceChanged(f"{source.label}: changed since it was adopted: tensor {name} has other values")


def places_of(run: AdoptedRun, source: Source, names: tuple[str, ...]) -> list[Place]:
    """Where tensors of a snapshot lie; SourceChanged where its file has them no more."""
    try:
        found = source.open()
        raw = run.by_name(found)
        return [found.tensors[raw[name]] for name in names]
    except SourceChanged:
        raise
    except (Unreadable, KeyError) as error:
        raise SourceChanged(f"{source.label}: changed since it was adopted: {error}") from error


def read_named(run: AdoptedRun, place: int, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Tensors of a snapshot in their own types by their names, each held to its digest."""
    source, wanted = run.sources[place], {tensor.name: tensor.digests[place] for tensor in run.tensors}
    read = {}
    with Files() as files:
        for name, where in zip(names, places_of(run, source, names), strict=True):
            try:
                read[name] = load(files, where)
            except (OSError, Unreadable) as error:
                raise SourceChanged(f"{source.label}: cannot be read any more: {error}") from error
            found = begin_digest(where.dtype, where.shape)
            found.update(raw_bytes(read[name].reshape(-1)))
            if found.hexdigest() != wanted[name]:
                raise changed(source, name)
    return read


class AdoptedTrajectory:
    """Snapshots of an adopted run, up to a present that the harness moves; `device` is where tensors are given."""

    def __init__(self, run: AdoptedRun, device: torch.device) -> None:
        self.run = run
        self.device = device
        self._first, self._last = 0, run.epochs
        self._present = [run.epochs]
        """the last epoch that is to be seen, shared with windows"""
        self._verified: set[int] = set()

    def extend(self, t: int) -> None:
        """Let the snapshot of epoch t be seen."""
        self._present[0] = t

    def rewind(self, t: int) -> None:
        """Let what lies up to epoch t be seen, and nothing after it."""
        self._present[0] = t

    @property
    def ts(self) -> tuple[int, ...]:
        last = min(self._last, self._present[0])
        return tuple(t for t in self.run.ts if self._first <= t <= last)

    def __len__(self) -> int:
        return len(self.ts)

    def __getitem__(self, index: int) -> Snapshot:
        place = self.run.ts.index(self.ts[index])
        source, row_N = self.run.sources[place], np.empty(self.run.N, dtype=np.float32)
        _Weights(self.run, place, source.t not in self._verified).read(0, row_N)
        self._verified.add(source.t)
        buffers = read_named(self.run, place, tuple(own.name for own in self.run.buffers))
        theta_N = torch.from_numpy(row_N).to(self.device)
        return Snapshot(source.t, source.step, theta_N, {name: b.to(self.device) for name, b in buffers.items()})

    def window(self, first: int, last: int) -> AdoptedTrajectory:
        view = AdoptedTrajectory.__new__(AdoptedTrajectory)
        view.run, view.device, view._first, view._last = self.run, self.device, first, last
        view._present, view._verified = self._present, self._verified
        return view

    def blocks(self, max_bytes: int) -> Iterator[tuple[int, int, Tensor]]:
        ts = self.ts
        rows = [_Weights(self.run, self.run.ts.index(t), t not in self._verified) for t in ts]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for start, stop in block_bounds(self.run.N, len(ts), max_bytes):
                W_TB = np.empty((len(ts), stop - start), dtype=np.float32)
                list(pool.map(_Weights.read, rows, [start] * len(rows), W_TB))
                if stop == self.run.N:
                    self._verified.update(ts)
                yield start, stop, torch.from_numpy(W_TB).to(self.device)
