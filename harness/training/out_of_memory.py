"""Running out of a device's memory, said in one line with the batch size at fault and what to change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

CPU_REFUSAL = "can't allocate memory"
"""in what torch's CPU allocator raises"""


class OutOfMemory(RuntimeError):
    """The device's memory does not hold a batch, its activations and the weights."""


@contextlib.contextmanager
def bounded_by(key: str, batch_size: int) -> Iterator[None]:
    """Turns the device's out-of-memory error in the block, whose batches `key` sizes, into an OutOfMemory."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and CPU_REFUSAL not in str(error):
            raise
        raise OutOfMemory(
            f"out of memory at {key}={batch_size}: set a smaller {key}, precision=bfloat16 on a GPU, "
            "engine.per_device=1 or engine.workers=1, or fewer methods at once"
        ) from error
