"""Running out of a device's memory, said in one line with the batch size at fault and what to change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

REFUSALS = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUDA ran out of memory outside PyTorch's allocator",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""in what is raised by torch's CPU allocator, by a GPU's driver, such as for pinned memory or a process's own, and by
its libraries, none of which is torch's OutOfMemoryError"""


class OutOfMemory(RuntimeError):
    """The device's memory does not hold a batch, its activations and the weights."""


@contextlib.contextmanager
def bounded_by(key: str, batch_size: int) -> Iterator[None]:
    """Turns the device's out-of-memory error in the block, whose batches `key` sizes, into an OutOfMemory."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not any(said in str(error) for said in REFUSALS):
            raise
        raise OutOfMemory(
            f"out of memory at {key}={batch_size}: set a smaller {key}, precision=bfloat16 on a GPU, "
            "engine.per_device=1 or engine.workers=1, or fewer methods at once"
        ) from error
