"""Tensors and states in files that say so when they were damaged later.

They are stored as safetensors with a SHA-256 over their names, types, shapes, bytes and the metadata; nothing is ever
unpickled.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from harness.method import State
from harness.storage.files import CorruptFile, write_bytes
from harness.validation import reason


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
    """Store tensors and metadata as one safetensors file with their digest."""
    owned = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    header = {**metadata, "sha256": _digest(owned, metadata)}
    write_bytes(path, save(owned, header))


_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The JSON header of a safetensors file and the offset of its data; CorruptFile where there is none."""
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > 1 << 28:
                raise ValueError("header too long")
            return json.loads(file.read(length)), 8 + length
    except (ValueError, struct.error) as error:
        raise CorruptFile(f"{path}: {reason(error)}") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file from `write_tensors`; CorruptFile where their digest differs."""
    header, start = read_header(path)
    data = np.fromfile(path, dtype=np.uint8, offset=start)
    try:
        metadata: dict[str, str] = header.pop("__metadata__")
        tensors = {}
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            raw = torch.from_numpy(data[first:last]) if last > first else torch.empty(0, dtype=torch.uint8)
            tensors[name] = raw.clone().view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
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

    state: State = walk(json.loads(text))
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
    except (KeyError, ValueError) as error:
        raise CorruptFile(f"{path}: {reason(error)}") from error
