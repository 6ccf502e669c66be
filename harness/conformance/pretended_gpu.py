"""A GPU that is not there: tensors that lie on `cuda` for all that Python sees, computed on the CPU.

Operations refuse what a GPU refuses (tensors of two devices, a generator of the CPU, NumPy), and their numbers are the
CPU's to the last bit. So a method that forgets to move a tensor, or draws where it must not, is found on a machine
without a GPU. Kernels, streams, speed and the rounding of a real GPU are not imitated; nor is autocast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device("cpu")
THERE = torch.device("cuda", 0)
INSIDE = torch.device("meta")
"""the device that torch's own code takes the tensors for: one without streams"""

MEMORY = 1 << 30
"""bytes that it has"""

aten = torch.ops.aten
LAYOUT: dict[Any, Callable[..., Any]] = {
    aten.size.default: Tensor.size,
    aten.sym_size.default: Tensor.size,
    aten.stride.default: Tensor.stride,
    aten.sym_stride.default: Tensor.stride,
    aten.storage_offset.default: Tensor.storage_offset,
    aten.sym_storage_offset.default: Tensor.storage_offset,
    aten.dim.default: Tensor.dim,
    aten.numel.default: Tensor.numel,
    aten.sym_numel.default: Tensor.numel,
    aten.is_contiguous.default: Tensor.is_contiguous,
    aten.is_contiguous.memory_format: lambda tensor, memory_format: tensor.is_contiguous(memory_format=memory_format),
}
"""questions about a tensor's shape, which its values answer, also after an operation that changes it in place"""
MOVES = ("aten::_to_copy", "aten::copy_")
"""operations that take tensors from one device to the other"""
INDEXES = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
"""operations whose index may lie on the CPU where the tensor lies on a GPU"""


class ElsewhereTensor(Tensor):
    """A tensor that lies on `THERE`; `here` holds its values."""

    here: Tensor

    @staticmethod
    def __new__(cls: type[ElsewhereTensor], here: Tensor) -> ElsewhereTensor:
        made: ElsewhereTensor = Tensor._make_wrapper_subclass(
            cls, here.size(), strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype,
            device=INSIDE, dispatch_sizes_strides_policy="sizes",
        )  # fmt: skip
        made.here = here
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return THERE

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter  # type: ignore[override]
    def data(self, other: ElsewhereTensor) -> None:
        self.here = other.here

    def tolist(self) -> Any:
        return self.here.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"a tensor on {THERE} cannot be an array: copy it with .cpu() first")

    __array__ = numpy  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _compute(func, args, kwargs or {})


class _Names(TorchFunctionMode):
    """Calls that name `cuda` reach torch with the device that it takes the tensors for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.device:
            args, kwargs = tuple(map(_inside, args)), {name: _inside(value) for name, value in kwargs.items()}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == INSIDE:
            # made by no operation that could be seen there
            return func(*args, **{**kwargs, "device": CPU}).to(INSIDE)
        return func(*args, **kwargs)


def _inside(value: Any) -> Any:
    if isinstance(value, torch.device):
        return INSIDE if value.type == "cuda" else value
    return INSIDE if isinstance(value, str) and value.partition(":")[0] == "cuda" else value


def _leaves(value: Any) -> Iterator[Any]:
    """What nested lists and tuples hold. PyTorch's own trees do more, and take longer than most operations here."""
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """The same nested lists and tuples, with every leaf changed."""
    if isinstance(value, list | tuple):
        return type(value)([_mapped(change, inner) for inner in value])
    return change(value)


def _here(value: Any) -> Any:
    return value.here if isinstance(value, ElsewhereTensor) else value


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the tensors' values; RuntimeError where a GPU would not take it."""
    if func in LAYOUT:
        return LAYOUT[func](args[0].here, *args[1:])
    name = func._schema.name
    given = list(_leaves([args, list(kwargs.values())]))
    tensors = [value for value in given if isinstance(value, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, ElsewhereTensor)]
    asked = kwargs.get("device")
    lands_there = bool(there) if asked is None else torch.device(asked).type != "cpu"
    if there and name not in MOVES:
        mixed = [args[0]] if name in INDEXES else tensors
        if any(not isinstance(tensor, ElsewhereTensor) and tensor.dim() > 0 for tensor in mixed):
            raise RuntimeError(f"{name} must have all tensors on one device, got {THERE} and cpu")
    if lands_there and any(isinstance(value, torch.Generator) for value in given):
        raise RuntimeError(f"{name} must have a generator of {THERE}, got one of the cpu")
    if asked is not None:
        kwargs = {**kwargs, "device": CPU}
    out = func(*_mapped(_here, args), **{key: _mapped(_here, value) for key, value in kwargs.items()})
    if name == "aten::copy_":
        return args[0]
    wrapped = {id(tensor.here): tensor for tensor in there}

    def wrap(value: Any) -> Any:
        if not isinstance(value, Tensor) or not lands_there:
            return value
        return wrapped[id(value)] if id(value) in wrapped else ElsewhereTensor(value)

    return _mapped(wrap, out)


@contextlib.contextmanager
def pretended_gpu() -> Iterator[None]:
    """In the block `cuda` is a device that is there."""
    event = mock.Mock(**{"return_value.elapsed_time.return_value": 0.0})
    pretended = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "synchronize": lambda device=None: None,
        "get_device_name": lambda device=None: "pretended GPU",
        "get_device_properties": lambda device=None: SimpleNamespace(
            name="pretended GPU", total_memory=MEMORY, major=9, minor=0
        ),
        "is_bf16_supported": lambda including_emulation=True: True,
        "max_memory_allocated": lambda device=None: 0,
        "memory_allocated": lambda device=None: 0,
        "mem_get_info": lambda device=None: (MEMORY, MEMORY),
        "reset_peak_memory_stats": lambda device=None: None,
        "empty_cache": lambda: None,
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: None,
        "Event": event,
    }
    with contextlib.ExitStack() as stack:
        for name, value in pretended.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        # tensors made in inference mode cannot be wrapped
        stack.enter_context(mock.patch.object(torch, "inference_mode", torch.no_grad))
        stack.enter_context(_Names())
        stack.enter_context(_Operations())  # type: ignore[no-untyped-call]
        yield
