"""Tensors and states in files that say so when they were damaged later.

They are stored as safetensors with a SHA-256 over their names, types, shapes, bytes and the metadata; nothing is ever
unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from harness.method import State
from harness.storage.files import CorruptFile, parsed_json, write_bytes
from harness.storage.inside import open_read
from harness.validation import reason, shown

MOST_HEADER_BYTES = 1 << 28
"""of what a file says of its tensors, the rest of a state among it"""
MOST_STATE_MAPPINGS = 20_000_000
"""and lists in that, such as the rows of many cells"""
LEAST_SPARSE_BYTES, LEAST_WRITTEN = 1 << 30, 64
"""files of more bytes of which less than the 64th was ever written are refused: they take memory that nobody filled"""


def _raw(tensor: Tensor) -> memoryview:
    """A tensor's bytes in C order, without a copy where it is contiguous on the CPU."""
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    raw: memoryview = flat.view(torch.uint8).numpy().data
    return raw


def digest_tensor(tensor: Tensor) -> str:
    """SHA-256 of a tensor's bytes."""
    return hashlib.sha256(_raw(tensor)).hexdigest()


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(sorted((k, v) for k, v in metadata.items() if k != "sha256")).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(_raw(tensor))
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Store tensors and metadata as one safetensors file with their digest; what shares memory is stored for each."""
    owned = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    places = Counter(tensor.untyped_storage().data_ptr() for tensor in owned.values())
    owned = {n: t.clone() if places[t.untyped_storage().data_ptr()] > 1 else t for n, t in owned.items()}
    header = {**metadata, "sha256": _digest(owned, metadata)}
    write_bytes(path, save(owned, header))


_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The JSON header of a safetensors file and the offset of its data; CorruptFile where there is none."""
    with open_read(path) as file:
        return _header(path, file)


def _header(path: Path, file: BinaryIO) -> tuple[dict[str, Any], int]:
    try:
        found = os.fstat(file.fileno())
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(MOST_HEADER_BYTES, found.st_size - 8):
            raise ValueError(f"a header of {length} bytes, of at most {MOST_HEADER_BYTES}, in {found.st_size} bytes")
        header = parsed_json(file.read(length), MOST_STATE_MAPPINGS)
        _check_header(header, found.st_size - 8 - length)
        if found.st_size > LEAST_SPARSE_BYTES and found.st_blocks * 512 * LEAST_WRITTEN < found.st_size:
            raise ValueError(f"{found.st_size} bytes of which {found.st_blocks * 512} were ever written")
        return header, 8 + length
    except (ValueError, struct.error) as error:
        raise CorruptFile(f"{path}: {reason(error)}") from error


def _check_header(header: Any, size: int) -> None:
    """ValueError where entries are not what tensors need, or lie over each other, apart or outside of `size` bytes."""
    if not isinstance(header, dict):
        raise ValueError("a header that is no mapping")  # noqa: TRY004  one kind of error for a damaged file
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("metadata that are no texts")
    spans = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            kind, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
            whole = all(type(number) is int and 0 <= number < 2**62 for number in (*shape, first, last))
            fits = whole and last - first == math.prod(shape) * _DTYPES[kind].itemsize
        except (KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            raise ValueError(f"tensor {shown(name)} has no type, shape and place that go together")
        spans.append((first, last))
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise ValueError("tensors that lie over each other or apart")
        end = last
    if end != size:
        raise ValueError(f"tensors of {end} bytes, followed by {size} bytes")


def read_unsealed(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, whatever its digest; CorruptFile where it is none."""
    with open_read(path) as file:
        header, start = _header(path, file)
        file.seek(start)
        data = np.fromfile(file, dtype=np.uint8)
    metadata: dict[str, str] = header.pop("__metadata__", {})
    tensors = {}
    try:
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            raw = torch.from_numpy(data[first:last]) if last > first else torch.empty(0, dtype=torch.uint8)
            tensors[name] = raw.clone().view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    except (ValueError, RuntimeError) as error:
        raise CorruptFile(f"{path}: {reason(error)}") from error
    return tensors, metadata


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file from `write_tensors`; CorruptFile where their digest differs."""
    tensors, metadata = read_unsealed(path)
    try:
        if _digest(tensors, metadata) != metadata["sha256"]:
            raise ValueError("checksum differs")
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise CorruptFile(f"{path}: {reason(error)}") from error
    return tensors, metadata


def pack(state: State) -> tuple[dict[str, Tensor], str]:
    """Split a nested state into its tensors and a JSON text that holds the rest, and which tensors lay on a GPU."""
    tensors: dict[str, Tensor] = {}

    def walk(value: Any) -> Any:
        if isinstance(value, Tensor):
            name = str(len(tensors))
            tensors[name] = value
            return {"tensor" if value.device.type == "cpu" else "device_tensor": name}
        if isinstance(value, np.ndarray):
            return {"array": walk(torch.from_numpy(value))}
        if isinstance(value, dict):
            return {"dict": [[walk(k), walk(v)] for k, v in value.items()]}
        if isinstance(value, list):
            return {"list": [walk(v) for v in value]}
        if isinstance(value, tuple):
            return {"tuple": [walk(v) for v in value]}
        if isinstance(value, np.generic):
            return value.item()
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"a state may hold tensors, arrays, numbers, strings, None, dicts and lists, got {type(value)}")

    return tensors, json.dumps(walk(state))


def unpack(tensors: Mapping[str, Tensor], text: str) -> State:
    """The inverse of `pack`; what lay on a GPU goes back to one, where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def walk(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        match kind:
            case "tensor":
                return tensors[content]
            case "device_tensor":
                return tensors[content].to(device)
            case "array":
                return walk(content).numpy()
            case "dict":
                return {walk(k): walk(v) for k, v in content}
            case "list":
                return [walk(v) for v in content]
            case "tuple":
                return tuple(walk(v) for v in content)
        raise CorruptFile(f"unknown entry {kind!r} in a stored state")

    state: State = walk(parsed_json(text.encode(), MOST_STATE_MAPPINGS))
    return state


def write_state(path: Path, state: State) -> None:
    """Store a nested state as one atomic file."""
    tensors, text = pack(state)
    write_tensors(path, tensors, {"state": text})


def read_state(path: Path) -> State:
    """A state from `write_state`; CorruptFile where it was damaged."""
    tensors, metadata = read_tensors(path)
    try:
        return unpack(tensors, metadata["state"])
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CorruptFile(f"{path}: {reason(error)}") from error
