"""Which weights CMD clusters: a stratified sample of those that moved.

Brokman et al. (ICLR 2024): the sampling called U_B shares one half of the samples equally between the tensors and one
half in proportion to their sizes. Deviations: seeded; what rounding leaves is spread one by one, not given to a single
tensor; weights that never moved are not drawn, since they correlate with nothing.

Shape suffixes: T snapshots, B a block of weights, C constant weights, K sampled weights, L tensors.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import torch
from torch import Tensor

from harness.method import Layout, Trajectory


def constant_weights(trajectory: Trajectory, layout: Layout | None, max_bytes: int) -> Tensor:
    """Indices of the weights that equal their first value in every snapshot: (C,) int64 on the CPU, ascending.

    ValueError, naming the first snapshot and the tensor, where a value is not finite.
    """
    constant: list[Tensor] = []
    broken: list[tuple[int, int]] = []
    for start, _, W_TB in trajectory.blocks(max_bytes):
        if not all(torch.isfinite(bound) for bound in W_TB.aminmax()):
            index, weight = (~torch.isfinite(W_TB)).nonzero()[0].tolist()
            broken.append((index, start + weight))
        constant_C = torch.nonzero(W_TB[0] == W_TB[1]).squeeze(1)
        for row_B in W_TB[2:]:
            constant_C = constant_C[row_B[constant_C] == W_TB[0, constant_C]]
        constant.append(constant_C.cpu() + start)
    if broken:
        index, weight = min(broken)
        raise ValueError(non_finite(trajectory.ts[index], layout, weight))
    return torch.cat(constant)


def non_finite(t: int, layout: Layout | None, weight: int) -> str:
    """One line for a snapshot with a value that is not finite."""
    place = f"weight {weight}" if layout is None else tensor_name(layout, weight)
    return f"snapshot t={t} must be finite, got nan or inf in {place}"


def tensor_name(layout: Layout, weight: int) -> str:
    """Name of the tensor that holds this index into theta_N."""
    ends = torch.tensor([offset + size for offset, size in zip(layout.offsets, layout.sizes, strict=True)])
    return layout.names[int(torch.searchsorted(ends, weight, right=True))]


def sample_weights(
    N: int, layout: Layout | None, samples: int, constant_C: Tensor, generator: torch.Generator
) -> Tensor:
    """`samples` distinct weights that moved, or all of those if fewer: (K,) int64 on the CPU, ascending.

    Stratified by tensor; plainly uniform where no layout is known or a tensor's equal share is below one.
    """
    strata = [(0, N)]
    if layout is not None and samples >= 2 * len(layout.names):
        strata = list(zip(layout.offsets, layout.sizes, strict=True))
    bounds_L = torch.tensor([[offset, offset + size] for offset, size in strata])
    constant_bounds_L = torch.searchsorted(constant_C, bounds_L).tolist()
    moving_L = [size - (last - first) for (_, size), (first, last) in zip(strata, constant_bounds_L, strict=True)]
    count_L = stratified_counts([size for _, size in strata], moving_L, samples)
    drawn = []
    for (offset, _), (first, last), moving, count in zip(strata, constant_bounds_L, moving_L, count_L, strict=True):
        # The r-th moving weight has before it those constants of which at most r moving weights lie before.
        moving_before_C = constant_C[first:last] - offset - torch.arange(last - first)
        rank = draw(moving, count, generator)
        drawn.append(offset + rank + torch.searchsorted(moving_before_C, rank, right=True))
    return torch.cat(drawn)


def stratified_counts(size_L: Sequence[int], moving_L: Sequence[int], samples: int) -> list[int]:
    """How many samples each tensor gives: floor(K / 2L) + floor(K n / 2N), at most the weights that move in it.

    What rounding and full tensors leave goes one by one to the least-sampled tensor that is not full, the first on
    ties; fewer than `samples` in sum only where fewer move.
    """
    L, N = len(size_L), sum(size_L)
    count_L = [
        min(moving, samples // (2 * L) + samples * size // (2 * N))
        for size, moving in zip(size_L, moving_L, strict=True)
    ]
    left = min(samples, sum(moving_L)) - sum(count_L)
    queue = [(count, tensor) for tensor, count in enumerate(count_L) if count < moving_L[tensor]]
    heapq.heapify(queue)
    for _ in range(left):
        count, tensor = heapq.heappop(queue)
        count_L[tensor] = count + 1
        if count + 1 < moving_L[tensor]:
            heapq.heappush(queue, (count + 1, tensor))
    return count_L


def draw(population: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` distinct whole numbers below `population`, ascending, every set equally likely.

    Floyd's algorithm (Bentley and Floyd, Communications of the ACM 1987): O(count) however large the population.
    """
    uniform = torch.rand(count, dtype=torch.float64, generator=generator).tolist()
    chosen: set[int] = set()
    for top, u in zip(range(population - count, population), uniform, strict=True):
        number = int(u * (top + 1))
        chosen.add(top if number in chosen else number)
    return torch.tensor(sorted(chosen), dtype=torch.int64)
