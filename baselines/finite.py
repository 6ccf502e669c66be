"""Snapshots that hold nan or inf are refused in one line that says which, and in which tensor.

Shape suffixes: N weights, T snapshots, B a block of weights.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from harness.method import Layout


def tensor_name(layout: Layout, weight: int) -> str:
    """The name of the tensor that holds this index into theta_N."""
    ends = torch.tensor([offset + size for offset, size in zip(layout.offsets, layout.sizes, strict=True)])
    return layout.names[int(torch.searchsorted(ends, weight, right=True))]


def all_finite(values: Tensor) -> bool:
    """Whether no value is nan or inf, in one pass without a mask; there must be at least one."""
    return all(bool(torch.isfinite(bound)) for bound in values.aminmax())


def check_finite(theta_N: Tensor, t: int, layout: Layout) -> None:
    """ValueError naming the snapshot and the tensor where a weight is not finite."""
    if not all_finite(theta_N):
        raise ValueError(_refusal(t, layout, int((~torch.isfinite(theta_N)).nonzero()[0])))


def first_not_finite(
    blocks: Iterable[tuple[int, int, Tensor]], ts: tuple[int, ...], layout: Layout | None
) -> str | None:
    """The line for the first snapshot, by time, that is not finite in blocks (start, stop, W_TB); None without one."""
    found: list[tuple[int, int]] = []
    for start, _, W_TB in blocks:
        if not all_finite(W_TB):
            index, weight = (~torch.isfinite(W_TB)).nonzero()[0].tolist()
            found.append((index, start + weight))
    if not found:
        return None
    index, weight = min(found)
    return _refusal(ts[index], layout, weight)


def _refusal(t: int, layout: Layout | None, weight: int) -> str:
    place = f"weight {weight}" if layout is None else tensor_name(layout, weight)
    return f"snapshot t={t} must be finite, got nan or inf in {place}"
