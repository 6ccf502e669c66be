"""What is handed over between server and clients: its size in bytes, and the model's buffers in it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from harness.method import Buffers, Payload

BUFFER = "buffer/"
"""what the names of the model's buffers begin with in what is handed over"""


def size_in_bytes(payload: Payload) -> int:
    """What a payload takes on the wire: its values' bytes, a bit for each value of a bool tensor; names take none."""
    return sum(
        (tensor.numel() + 7) // 8 if tensor.dtype == torch.bool else tensor.numel() * tensor.element_size()
        for tensor in payload.values()
    )


def with_buffers(payload: Payload, buffers: Buffers) -> dict[str, Tensor]:
    """A method's payload and the model's buffers; ValueError where a name of the method's is one of a buffer."""
    taken = [name for name in payload if name.startswith(BUFFER)]
    if taken:
        raise ValueError(f"a payload's names must not begin with {BUFFER}, got {taken[0]}")
    return {**payload, **{f"{BUFFER}{name}": buffer for name, buffer in buffers.items()}}


def parted(whole: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The inverse of `with_buffers`: the method's payload and the buffers."""
    own = {name: tensor for name, tensor in whole.items() if not name.startswith(BUFFER)}
    buffers = {name.removeprefix(BUFFER): whole[name] for name in whole if name.startswith(BUFFER)}
    return own, buffers


def owned(payload: Payload) -> dict[str, Tensor]:
    """Copies that outlive whatever the tensors are views of."""
    return {name: tensor.detach().clone() for name, tensor in payload.items()}


class BufferMean:
    """The mean of clients' buffers as they come, in float64; those of whole numbers are rounded."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights = 0

    def add(self, weight: int, buffers: Buffers) -> None:
        self._weights += weight
        for name, buffer in buffers.items():
            part = buffer.double() * weight
            self._sums[name] = self._sums[name].add_(part) if name in self._sums else part

    def into(self, buffers: Buffers) -> None:
        """Write the means over these buffers."""
        for name, total in self._sums.items():
            mean = total / self._weights
            buffers[name].copy_(mean if buffers[name].is_floating_point() else mean.round())
