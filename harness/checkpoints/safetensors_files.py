"""Files of safetensors: where their tensors lie, and their metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.checkpoints.errors import Unreadable
from harness.checkpoints.inert import DTYPES
from harness.checkpoints.places import Place
from harness.storage.files import CorruptFile
from harness.storage.tensors import read_header

TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def places_of(path: Path) -> dict[str, Place]:
    """Every tensor of a file by its name, in the order of their bytes; Unreadable where it is damaged."""
    header, data = _header(path)
    header.pop("__metadata__", None)
    entries = sorted(header.items(), key=lambda entry: entry[1]["data_offsets"])
    return {
        name: Place(path, data + entry["data_offsets"][0], DTYPES[TYPES[entry["dtype"]]], tuple(entry["shape"]))
        for name, entry in entries
    }


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a file."""
    found: dict[str, str] = _header(path)[0].get("__metadata__", {})
    return found


def _header(path: Path) -> tuple[dict[str, Any], int]:
    try:
        return read_header(path)
    except CorruptFile as error:
        raise Unreadable(str(error)) from error
