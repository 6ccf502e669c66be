"""Which weights CMD clusters: a stratified sample of those that moved.

Step 1 of post-hoc CMD (Brokman et al., ICLR 2024): the sampling called U_B shares one half of the samples equally
between the tensors and one half in proportion to their sizes. Deviations: seeded; what rounding leaves is spread one by
one, not given to a single tensor; weights that never moved are drawn again within their tensor, since they correlate
with nothing.

Shape suffixes: T snapshots, B a block of weights, C constant weights, D drawn weights, K sampled weights, L tensors.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import torch
from torch import Tensor

from baselines.finite import first_not_finite
from harness.method import Layout, Trajectory


def sample_trajectories(
    trajectory: Trajectory, N: int, layout: Layout | None, samples: int, generator: torch.Generator, max_bytes: int
) -> tuple[Tensor, Tensor]:
    """A sample of the weights that moved, and their trajectories: (K,) int64 on the CPU and (T, K) float64.

    One pass over the trajectory, and another where weights are drawn again. In memory a pass reads little more than
    the first two snapshots.
    """
    index_D = sample_weights(N, layout, samples, torch.empty(0, dtype=torch.int64), generator)
    constant_C, x_TD = _survey(trajectory, index_D, max_bytes)
    moved_D = ~torch.isin(index_D, constant_C)
    if bool(moved_D.all()):
        return index_D, x_TD
    kept_D = index_D[moved_D]
    again_D = sample_weights(N, layout, samples, constant_C, generator, kept_D)
    x_TK = torch.cat([x_TD[:, moved_D.to(x_TD.device)], gather(trajectory, again_D, max_bytes)], dim=1)
    index_K, order_K = torch.cat([kept_D, again_D]).sort()
    return index_K, x_TK[:, order_K.to(x_TK.device)]


def _survey(trajectory: Trajectory, index_D: Tensor, max_bytes: int) -> tuple[Tensor, Tensor]:
    """The weights that never moved, and the trajectories of given ones, in one pass."""
    constant: list[Tensor] = []
    columns: list[Tensor] = []
    for start, stop, W_TB in trajectory.blocks(max_bytes // 4):
        constant_B = torch.nonzero(W_TB[0] == W_TB[1]).squeeze(1)
        for row_B in W_TB[2:]:
            if len(constant_B) == 0:
                break
            constant_B = constant_B[row_B[constant_B] == W_TB[0, constant_B]]
        constant.append(constant_B.cpu() + start)
        columns.append(_columns(W_TB, index_D, start, stop))
    return torch.cat(constant), torch.cat(columns, dim=1)


def _columns(W_TB: Tensor, index_D: Tensor, start: int, stop: int) -> Tensor:
    """The trajectories of those weights that lie in start..stop, of ascending indices."""
    first, last = torch.searchsorted(index_D, torch.tensor([start, stop])).tolist()
    # `index_select` would copy the whole block
    return W_TB[:, (index_D[first:last] - start).to(W_TB.device)].double()


def gather(trajectory: Trajectory, index_K: Tensor, max_bytes: int) -> Tensor:
    """Trajectories of single weights in any order: (T, K) float64 on the snapshots' device."""
    index_D, order_K = index_K.sort()
    columns = [_columns(W_TB, index_D, start, stop) for start, stop, W_TB in trajectory.blocks(max_bytes // 4)]
    x_TD = torch.cat(columns, dim=1)
    return x_TD[:, order_K.argsort().to(x_TD.device)]


def constant_weights(trajectory: Trajectory, layout: Layout | None, max_bytes: int) -> Tensor:
    """Indices of the weights that equal their first value in every snapshot: (C,) int64 on the CPU, ascending.

    ValueError, naming the first snapshot and the tensor, where a value is not finite.
    """
    refusal = first_not_finite(trajectory.blocks(max_bytes // 4), trajectory.ts, layout)
    if refusal is not None:
        raise ValueError(refusal)
    return _survey(trajectory, torch.empty(0, dtype=torch.int64), max_bytes)[0]


def sample_weights(
    N: int,
    layout: Layout | None,
    samples: int,
    constant_C: Tensor,
    generator: torch.Generator,
    kept_D: Tensor | None = None,
) -> Tensor:
    """`samples` distinct weights that moved, or all of those if fewer: (K,) int64 on the CPU, ascending.

    Stratified by tensor; plainly uniform where no layout is known or a tensor's equal share is below one. `kept_D` are
    moving weights drawn before by the same shares: only what is missing beside them is drawn.
    """
    strata = [(0, N)]
    if layout is not None and samples >= 2 * len(layout.names):
        strata = list(zip(layout.offsets, layout.sizes, strict=True))
    bounds_L = torch.tensor([[offset, offset + size] for offset, size in strata])
    moving_L = [size - n for (_, size), n in zip(strata, _within(constant_C, bounds_L), strict=True)]
    count_L = stratified_counts([size for _, size in strata], moving_L, samples)
    excluded_C = constant_C
    if kept_D is not None:
        kept_L = _within(kept_D, bounds_L)
        count_L = [count - kept for count, kept in zip(count_L, kept_L, strict=True)]
        moving_L = [moving - kept for moving, kept in zip(moving_L, kept_L, strict=True)]
        excluded_C = torch.cat([constant_C, kept_D]).sort().values
    drawn = []
    excluded_bounds_L = torch.searchsorted(excluded_C, bounds_L).tolist()
    for (offset, _), (first, last), moving, count in zip(strata, excluded_bounds_L, moving_L, count_L, strict=True):
        # The r-th weight that may be drawn has before it those excluded of which at most r others lie before.
        others_before_C = excluded_C[first:last] - offset - torch.arange(last - first)
        rank = draw(moving, count, generator)
        drawn.append(offset + rank + torch.searchsorted(others_before_C, rank, right=True))
    return torch.cat(drawn)


def _within(sorted_C: Tensor, bounds_L: Tensor) -> list[int]:
    """How many of ascending indices lie within each tensor's bounds (L, 2)."""
    return [last - first for first, last in torch.searchsorted(sorted_C, bounds_L).tolist()]


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
