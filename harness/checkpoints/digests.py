"""One pass over the tensors of a checkpoint: a digest of each, and whether all of its numbers are finite."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from harness.checkpoints.errors import Unreadable
from harness.checkpoints.places import Files, Place, pieces


def begin_digest(dtype: torch.dtype, shape: tuple[int, ...]) -> hashlib._Hash:
    """The digest of a tensor before its bytes: of its type and shape."""
    return hashlib.sha256(f"{dtype}|{shape}|".encode())


def raw_bytes(piece: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, without a copy."""
    raw: memoryview = piece.view(torch.uint8).numpy().data
    return raw


def digest(place: Place) -> tuple[str, bool]:
    """SHA-256 of a tensor's type, shape and bytes in C order, and whether it is finite; its file is passed once."""
    found, finite = begin_digest(place.dtype, place.shape), True
    with Files() as files:
        for piece in pieces(files, place):
            found.update(raw_bytes(piece))
            if finite and place.dtype.is_floating_point:
                finite = bool(piece.isfinite().all())
    return found.hexdigest(), finite


def digests(snapshots: Sequence[tuple[str, Mapping[str, Place]]], threads: int) -> list[dict[str, str]]:
    """The digests of the tensors of every snapshot by their names; tensors that share their bytes are passed once.

    Unreadable, naming file and tensor, where a number is not finite.
    """
    tasks = {place.identity: place for _, tensors in snapshots for place in tensors.values()}
    with ThreadPoolExecutor(max(1, threads)) as pool:
        done = dict(zip(tasks, pool.map(digest, tasks.values()), strict=True))
    for path, tensors in snapshots:
        for name, place in tensors.items():
            if not done[place.identity][1]:
                raise Unreadable(f"{path}: tensor {name} must be finite, got a value that is not")
    return [{name: done[place.identity][0] for name, place in tensors.items()} for _, tensors in snapshots]
