"""Pickles that are read and never run.

A pickle names functions and classes of its choice and has them called. Here it finds nothing to call: tensors,
storages, `OrderedDict` and `Size` are known by name and become plain descriptions of where a tensor's bytes lie, and
whatever else a pickle names becomes an `Inert` object, which notes what it was given and does nothing.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import torch

from harness.checkpoints.errors import Unreadable
from harness.validation import reason

DTYPES = {
    name: getattr(torch, name)
    for name in (
        *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"),
        *("uint16", "uint32", "uint64", "complex64", "complex128"),
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"),
    )
}
STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128, "UntypedStorage": torch.uint8,
}  # fmt: skip
MOST_MODULES = 100_000
"""modules within a pickled one, and mappings within each other"""


@dataclass(frozen=True)
class StorageOf:
    """Which storage of its file a tensor lies in, and the type that the file gives its elements."""

    key: str
    dtype: torch.dtype
    elements: int


@dataclass(frozen=True)
class TensorOf:
    """A tensor as a pickle describes it; offset and stride are in elements."""

    storage: StorageOf
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    is_parameter: bool = False
    requires_grad: bool = True


class Inert:
    """What a pickle asked to be made of a class or function that is not known here; nothing of that was called."""

    named = ""
    """module and name in the pickle"""
    args: tuple[Any, ...]
    state: dict[str, Any]
    items: list[Any]
    pairs: list[tuple[Any, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        made = super().__new__(cls)
        made.__dict__.update(args=args, state={}, items=[], pairs=[])
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes anything, and keeps it as `__new__` did."""

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, dict):
                self.__dict__["state"].update(part)

    def append(self, value: Any) -> None:
        self.__dict__["items"].append(value)

    add = append

    def extend(self, values: Any) -> None:
        self.__dict__["items"].extend(values)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__dict__["pairs"].append((key, value))


class _Rebuild:
    """The functions that a pickle of tensors asks for, as methods, since a pickle can write into a function's own
    attributes and not into a method's."""

    __slots__ = ()

    def tensor(self, storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Any:
        if not isinstance(storage, StorageOf):
            return Inert(storage, offset, size, stride)
        grad = bool(rest[0]) if rest else True
        shape, steps = tuple(map(int, size)), tuple(map(int, stride))
        return TensorOf(storage, int(offset), shape, steps, storage.dtype, False, grad)

    def tensor_of_type(self, storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Any:
        made, dtype = self.tensor(storage, offset, size, stride, *rest), rest[2] if len(rest) > 2 else None
        return replace(made, dtype=dtype) if isinstance(made, TensorOf) and isinstance(dtype, torch.dtype) else made

    def parameter(self, data: Any, requires_grad: Any = True, *rest: Any) -> Any:
        if not isinstance(data, TensorOf):
            return data
        return replace(data, is_parameter=True, requires_grad=bool(requires_grad))

    def with_attributes(self, function: Any, kind: Any, args: Any, state: Any = None) -> Any:
        """Of a tensor with attributes, the tensor."""
        known = function in (self.tensor, self.tensor_of_type, self.parameter)
        inert = isinstance(function, type) and issubclass(function, Inert)
        return function(*args) if known or inert else Inert(function, kind, args)


_REBUILD = _Rebuild()
KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _REBUILD.tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _REBUILD.tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _REBUILD.tensor_of_type,
    ("torch._utils", "_rebuild_parameter"): _REBUILD.parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _REBUILD.parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _REBUILD.with_attributes,
    ("torch.nn.parameter", "Parameter"): _REBUILD.parameter,
    **{("torch", name): dtype for name, dtype in DTYPES.items()},
}


class Reader(pickle.Unpickler):
    """Finds nothing but what is named above, and gives descriptions of storages."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: list[StorageOf] = []
        self.views: list[Any] = []
        """what early files say of storages that are parts of others"""

    def find_class(self, module: str, name: str) -> Any:
        known = KNOWN.get((module, name))
        if known is not None:
            return known
        if module in ("torch", "torch.storage") and name in STORAGES:
            return STORAGES[name]
        return type("Inert", (Inert,), {"named": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        kind = pid[0] if isinstance(pid, tuple) and pid else None
        if kind in ("module", b"module") and len(pid) > 1:  # an early file has a module's class with its source
            return pid[1]
        if kind not in ("storage", b"storage") or len(pid) < 5:
            return Inert(pid)
        dtype = pid[1] if isinstance(pid[1], torch.dtype) else torch.uint8
        self.storages.append(StorageOf(str(pid[2]), dtype, int(pid[4])))
        self.views += pid[5:6]
        return self.storages[-1]

    def read(self, what: str) -> Any:
        """The next pickle of the file, with nothing run; Unreadable, one line that begins with `what`, where there is
        none."""
        try:
            return self.load()
        except Exception as error:  # a pickle can ask the objects here for anything
            raise Unreadable(f"{what}: no readable pickle: {reason(error)}") from error


def read_pickle(file: BinaryIO, what: str) -> Any:
    """As `Reader.read`, of a file by itself."""
    return Reader(file).read(what)


def module_tensors(module: Inert) -> tuple[dict[str, TensorOf], dict[str, TensorOf]] | None:
    """Parameters and buffers of a pickled torch module by their names, in its own order; None where it is no module."""
    parameters: dict[str, TensorOf] = {}
    buffers: dict[str, TensorOf] = {}
    stack: list[tuple[str, Any]] = [("", module)]
    seen = 0
    while stack:
        prefix, one = stack.pop()
        state = one.state if isinstance(one, Inert) else None
        if not isinstance(state, dict) or not isinstance(state.get("_parameters"), dict):
            if not prefix:
                return None
            continue
        seen += 1
        if seen > MOST_MODULES:
            raise Unreadable(f"a pickled module must have at most {MOST_MODULES} modules within it")
        hidden = state.get("_non_persistent_buffers_set")
        left_out = set(hidden) if isinstance(hidden, set | frozenset | list | tuple) else set()
        if isinstance(hidden, Inert):
            left_out = {name for part in (hidden.items, *hidden.args) if isinstance(part, list) for name in part}
        for own, into in ((state["_parameters"], parameters), (state.get("_buffers") or {}, buffers)):
            into.update(
                {
                    f"{prefix}{name}": tensor
                    for name, tensor in own.items()
                    if isinstance(tensor, TensorOf) and not (into is buffers and name in left_out)
                }
            )
        children = state.get("_modules") or {}
        stack += [(f"{prefix}{name}.", child) for name, child in reversed(list(children.items()))]
    return parameters, buffers
