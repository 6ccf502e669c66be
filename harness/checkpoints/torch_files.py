"""Files of `torch.save`: what they hold and where their tensors' bytes lie, with nothing of them run.

Since torch 1.6 such a file is an uncompressed zip archive with a pickle and one entry per storage; before, it was one
pickle after another and then the storages. Both are read here, the first also within another file, as torch's
distributed checkpoints have it.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from harness.checkpoints.errors import Unreadable
from harness.checkpoints.inert import Reader, StorageOf, TensorOf, read_pickle
from harness.checkpoints.places import Place, is_c_order
from harness.validation import reason

LEGACY = 0x1950A86A20F9469CFC6C
"""the number that begins a file of torch before 1.6"""
MOST_PICKLE_BYTES = 1 << 29
ZIP_HEADER = 30
"""bytes of a zip entry's own header before its name"""


class Window(io.RawIOBase):
    """A part of a file, for reading."""

    def __init__(self, file: BinaryIO, first: int, length: int) -> None:
        self._file, self._first, self._length, self._at = file, first, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._length - self._at))
        data = os.pread(self._file.fileno(), count, self._first + self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@dataclass(frozen=True)
class TorchFile:
    """The value that a file holds, its tensors as `TensorOf`, and where each of these lies."""

    value: Any
    place: Callable[[TensorOf], Place]


def is_torch_zip(start: bytes) -> bool:
    return start.startswith(b"PK\x03\x04")


def read_torch(path: Path, first: int = 0, length: int | None = None) -> TorchFile:
    """What a file of `torch.save` holds, or a part of a file; Unreadable, one line with its path, where it is none."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        window = Window(file, first, size - first if length is None else length)
        start = window.read(4) or b""
        window.seek(0)
        if is_torch_zip(start):
            return _read_zip(path, window, first)
        return _read_legacy(path, io.BufferedReader(window), size)


def _read_zip(path: Path, window: Window, first: int) -> TorchFile:
    try:
        with zipfile.ZipFile(window) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            pickles = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
            if len(pickles) != 1:
                raise Unreadable(f"{path}: a zip archive that torch did not write, without one data.pkl")
            root = pickles[0][: -len("data.pkl")]
            if entries[pickles[0]].file_size > MOST_PICKLE_BYTES:
                raise Unreadable(f"{path}: a pickle of more than {MOST_PICKLE_BYTES} bytes")
            order = entries.get(f"{root}byteorder")
            if order is not None and archive.read(order) == b"big":
                raise Unreadable(f"{path}: written on a machine with another order of bytes")
            value = read_pickle(io.BytesIO(archive.read(pickles[0])), str(path))
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"{path}: a damaged zip archive: {reason(error)}") from error
    data: dict[str, tuple[int, int]] = {}
    for name, entry in entries.items():
        if name.startswith(f"{root}data/"):
            if entry.compress_type != zipfile.ZIP_STORED:
                raise Unreadable(f"{path}: compressed, which torch never writes")
            window.seek(entry.header_offset)
            header = window.read(ZIP_HEADER) or b""
            if len(header) < ZIP_HEADER or not is_torch_zip(header):
                raise Unreadable(f"{path}: a damaged zip archive: no header of {name}")
            names, extra = struct.unpack("<HH", header[26:30])
            begin = first + entry.header_offset + ZIP_HEADER + names + extra
            data[name[len(f"{root}data/") :]] = begin, entry.file_size
    return TorchFile(value, _placer(path, data))


def _read_legacy(path: Path, file: BinaryIO, size: int) -> TorchFile:
    magic = _whole(path, file)
    if magic != LEGACY:
        raise Unreadable(f"{path}: neither safetensors nor a file of torch.save")
    for _ in range(2):  # the version of the format, and of what machine it is
        _whole(path, file)
    reader = Reader(file)
    value = reader.read(str(path))
    keys = _whole(path, file)
    if not isinstance(keys, list) or any(view for view in reader.views):
        raise Unreadable(
            f"{path}: an early file of torch with views of storages; save it again with torch 1.6 or newer"
        )
    data, at = {}, file.tell()
    itemsize = {storage.key: storage.dtype.itemsize for storage in reader.storages}
    for key in keys:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or key not in itemsize:
            raise Unreadable(f"{path}: shorter than it says of itself")
        length = struct.unpack("<q", head)[0] * itemsize[key]
        if not 0 <= length <= size:
            raise Unreadable(f"{path}: a storage of {length} bytes")
        data[key] = at + 8, length
        at += 8 + length
    if at > size:
        raise Unreadable(f"{path}: shorter than it says of itself")
    return TorchFile(value, _placer(path, data))


def _whole(path: Path, file: BinaryIO) -> Any:
    return read_pickle(file, str(path))


def _placer(path: Path, data: Mapping[str, tuple[int, int]]) -> Callable[[TensorOf], Place]:
    """Where a tensor lies, of the storages in `data`, each with its offset and its bytes."""

    def place(tensor: TensorOf) -> Place:
        storage: StorageOf = tensor.storage
        if storage.key not in data:
            raise Unreadable(f"{path}: a tensor without its storage {storage.key!r}")
        begin, length = data[storage.key]
        step = tensor.dtype.itemsize
        if min((tensor.offset, *tensor.shape, *tensor.stride), default=0) < 0 or len(tensor.shape) != len(
            tensor.stride
        ):
            raise Unreadable(f"{path}: a tensor of shape {tensor.shape} with stride {tensor.stride}")
        reach = sum((size - 1) * own for size, own in zip(tensor.shape, tensor.stride, strict=True)) + 1
        if 0 not in tensor.shape and (tensor.offset + reach) * step > length:
            raise Unreadable(f"{path}: a tensor of shape {tensor.shape} that is larger than its storage")
        stride = None if is_c_order(tensor.shape, tensor.stride) else tensor.stride
        return Place(path, begin + tensor.offset * step, tensor.dtype, tensor.shape, stride)

    return place
