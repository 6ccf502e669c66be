"""Inner products between snapshots, and combinations of snapshots, streamed over blocks of weights.

What needs the singular vectors of a trajectory (dynamic mode decomposition, principal components) finds them from
the T x T matrix of inner products, so that nothing of size N x T is ever held: snapshots are read twice instead, once
for the products and once for the combination. Products are float64: the error of a singular value s_i is then about
eps (s_1 / s_i)^2 relative.

Shape suffixes: N weights, T snapshots, B a block of weights, K combinations.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.method import Trajectory

BLOCK_BYTES = 16 << 20
"""float32 bytes of a block (T, B) as it is read"""

CACHE_BYTES = 1 << 21
"""float32 bytes of the pieces that a block is worked on in, on the CPU: on 2 cores, with 21 and 100 snapshots, 2 to 4
times (products) and 7 times (combinations) faster than whole blocks, which leave the cache once they are float64"""


def displacements(W_TB: Tensor, shift: bool) -> Tensor:
    """A block in float64, with `shift` as the motion since the first snapshot, which is exact."""
    X_TB = W_TB.double()
    return X_TB - X_TB[0] if shift else X_TB


def pieces(trajectory: Trajectory, shift: bool, max_bytes: int) -> Iterator[tuple[int, int, Tensor]]:
    """All weights in consecutive pieces (start, stop, X_TB) of `displacements`."""
    for start, stop, W_TB in trajectory.blocks(max_bytes):
        width = stop - start if W_TB.is_cuda else max(1, CACHE_BYTES // (4 * len(W_TB)))
        for first in range(start, stop, width):
            last = min(first + width, stop)
            yield first, last, displacements(W_TB[:, first - start : last - start], shift)


@torch.no_grad()
def gram(trajectory: Trajectory, shift: bool, max_bytes: int = BLOCK_BYTES) -> Tensor:
    """Inner products (T, T) of the snapshots, or with `shift` of their motions since the first: float64 on the CPU.

    2 N T^2 operations in one pass. Not finite where a snapshot is not.
    """
    T = len(trajectory)
    G_TT: Tensor | None = None
    for _, _, X_TB in pieces(trajectory, shift, max_bytes):
        if G_TT is None:
            G_TT = torch.zeros(T, T, dtype=torch.float64, device=X_TB.device)
        G_TT.addmm_(X_TB, X_TB.T)
    if G_TT is None:
        raise ValueError("snapshots must have at least 1 weight, got 0")
    return ((G_TT + G_TT.T) / 2).cpu()


@torch.no_grad()
def combine(trajectory: Trajectory, coefficients_KT: Tensor, shift: bool, max_bytes: int = BLOCK_BYTES) -> Tensor:
    """sum_t c_kt w_t, or with `shift` sum_t c_kt (w_t - w_first): (K, N) float32, each summed in float64.

    `coefficients_KT` is float64. One pass; the result is on the snapshots' device.
    """
    first = trajectory[0].theta_N
    result_KN = torch.empty(len(coefficients_KT), first.numel(), device=first.device)
    for start, stop, X_TB in pieces(trajectory, shift, max_bytes):
        result_KN[:, start:stop] = coefficients_KT.to(X_TB.device) @ X_TB
    return result_KN
