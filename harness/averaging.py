"""The mean that a federation takes of its clients' weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def weighted_mean(parts: Iterable[tuple[float, Tensor]]) -> Tensor:
    """sum_k weight_k x values_k / sum_k weight_k of tensors of one shape, float64: a running sum of one tensor's size.

    Dividing at the end keeps the sum of float32 values times whole numbers exact but for those of very different size,
    so that its order does not matter; shares such as 1/10 would be rounded before.
    """
    total: Tensor | None = None
    weights: float = 0
    for weight, values in parts:
        total = values.double().mul_(weight) if total is None else total.add_(values, alpha=weight)
        weights += weight
    if total is None:
        raise ValueError("parts must be at least 1, got none")
    return total.div_(weights)
