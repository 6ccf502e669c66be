"""Safetensors files written tensor by tensor, so that no more than one of them is in memory."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from harness.checkpoints.digests import raw_bytes
from harness.checkpoints.safetensors_files import TYPES

NAMES = {dtype: name for name, dtype in TYPES.items()}
ALIGNED = 8


def write_safetensors(
    path: Path,
    tensors: Sequence[tuple[str, torch.dtype, tuple[int, ...]]],
    read: Callable[[str], Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Write a new file with these tensors, each given by `read` when its turn comes; FileExistsError where there is a
    file. ValueError for a type that safetensors files of this project do not have."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, dtype, shape in tensors:
        kind = NAMES.get(str(dtype).removeprefix("torch."))
        if kind is None:
            raise ValueError(f"tensor {name} must be of {', '.join(NAMES)}, got {dtype}")
        begin, end = end, end + prod(shape) * dtype.itemsize
        header[name] = {"dtype": kind, "shape": [*shape], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNED)
    with open(path, "xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, dtype, shape in tensors:
            tensor = read(name)
            assert tensor.dtype == dtype
            assert tuple(tensor.shape) == shape
            file.write(raw_bytes(tensor.detach().contiguous().reshape(-1)))
