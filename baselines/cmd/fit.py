"""The model of CMD: every weight is an affine function of its mode's reference weight.

Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024), post-hoc CMD. Least squares
within a mode is w^_i(t) = mean(w_i) + a_i (x(t) - mean(x)) with a_i = Cov(w_i, x) / Var(x), which is kept in this
centred form: a_i x + b_i loses 3e-5 in float32 where |a_i| is 400.

Shape suffixes: N weights, T snapshots, B a block of weights, K sampled weights, M modes.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from baselines.cmd.clustering import references
from baselines.cmd.projection import NotFinite, Projection
from baselines.cmd.sampling import first_non_finite, gather
from baselines.cmd.threads import results, spans, workers
from harness.method import Layout, Trajectory

BLOCK_BYTES = 256 << 20
"""bound on what a fit holds beside its results and the clustering"""

PIECE = 1 << 19
"""weights that an elementwise pass holds temporaries for"""


@dataclass
class CMDModel:
    """A fitted decomposition; vectors over N are on the device of the snapshots, the rest on the CPU."""

    wbar_N: Tensor
    """float32 time averages"""
    a_N: Tensor
    """float32 slopes; 0 for a weight that never moved"""
    mode_N: Tensor
    """mode of each weight, in the smallest integer type that holds M; 0 for a weight that never moved"""
    rho_N: Tensor
    """float32 signed correlation with the mode's reference; 0 for a weight that never moved"""
    reference_M: Tensor
    """int64 index of each mode's reference weight, largest mode of the sample first"""
    references_TM: Tensor
    """float64 trajectories of the references"""
    mu_M: Tensor
    """float64 time averages of the references"""
    size_M: Tensor
    """int64 number of weights that moved, per mode"""
    mean_abs_rho_M: Tensor
    """float64 mean |rho| over those"""

    @property
    def b_N(self) -> Tensor:
        """Intercepts of a_i x + b_i, for comparison with the paper; evaluate with `decode`."""
        return self.wbar_N - self.a_N * spread(self.mu_M, self.mode_N)

    def decode(self, x_M: Tensor) -> Tensor:
        """theta_N where the references have the values x_M."""
        return decode(self.wbar_N, self.a_N, self.mode_N, x_M - self.mu_M)

    def reconstruct(self, index: int) -> Tensor:
        """The model theta_N of the index-th snapshot fitted."""
        return self.decode(self.references_TM[index])


def fit(
    trajectory: Trajectory,
    modes: int,
    sample_K: Tensor,
    max_bytes: int = BLOCK_BYTES,
    layout: Layout | None = None,
    x_TK: Tensor | None = None,
) -> CMDModel:
    """Post-hoc CMD over all snapshots given; `max_bytes` bounds what is held beside the result and the clustering.

    `sample_K` is clustered as it is; if it is empty (nothing moved), weight 0 stands as the only reference. `x_TK` are
    its trajectories where they are known. Fewer than `modes` modes can come out. Constant weights are their value.
    ValueError below 3 snapshots, where every correlation is 1, and where a value is not finite, naming the first
    snapshot and, with a layout, the tensor.
    """
    check_length(len(trajectory))
    if sample_K.numel() == 0:
        sample_K, x_TK = torch.zeros(1, dtype=torch.int64), None
    if x_TK is None:
        x_TK = gather(trajectory, sample_K, max_bytes)
    try:
        if not bool(torch.isfinite(x_TK).all()):
            raise NotFinite
        chosen_M = references(x_TK, modes)
        N = trajectory[0].theta_N.numel() if layout is None else layout.N
        return _project(trajectory, N, sample_K[chosen_M], x_TK[:, chosen_M.to(x_TK.device)], max_bytes)
    except NotFinite:
        raise ValueError(first_non_finite(trajectory, layout, max_bytes)) from None


def check_length(T: int) -> None:
    """ValueError below 3 snapshots."""
    if T < 3:
        raise ValueError(f"epochs must give CMD at least 3 snapshots, got {T}")


def _project(trajectory: Trajectory, N: int, reference_M: Tensor, x_TM: Tensor, max_bytes: int) -> CMDModel:
    """Assign every weight to the reference it correlates with most and fit it there; one pass."""
    device, x_TM = x_TM.device, x_TM.cpu()
    T, mu_M = len(x_TM), x_TM.mean(0)
    projection = Projection(N, x_TM, mu_M, device)
    # At most three blocks are alive: one being read, one being fitted, one whose last parts are
    column_bytes, part = 4 * T * projection.width, 8 * projection.width
    read_bytes = max(1, max_bytes // 4 // column_bytes) * column_bytes
    constant = 0
    with workers(device, -(-N // part)) as submit:
        running: list[Future[int]] = []
        for start, stop, W_TB in trajectory.blocks(read_bytes):
            parts = spans(0, stop - start, part)
            ahead = [submit(partial(projection.add, W_TB[:, a:b], start + a)) for a, b in parts]
            constant += sum(results(running))
            running = ahead
        constant += sum(results(running))
    projection.settle(reference_M, mu_M)
    wbar_N, a_N, mode_N, rho_N = projection.wbar_N, projection.a_N, projection.mode_N, projection.rho_N
    size_M, mean_abs_rho_M = _statistics(mode_N, rho_N, len(mu_M), constant)
    return CMDModel(wbar_N, a_N, mode_N, rho_N, reference_M, x_TM, mu_M, size_M, mean_abs_rho_M)


def _statistics(mode_N: Tensor, rho_N: Tensor, M: int, constant: int) -> tuple[Tensor, Tensor]:
    """Weights that moved and their mean |rho|, per mode; `constant` weights of mode 0 never did."""
    size_M = torch.zeros(M, dtype=torch.int64, device=mode_N.device)
    sum_M = torch.zeros(M, dtype=torch.float64, device=mode_N.device)
    for piece in pieces(len(mode_N)):
        size_M += torch.bincount(mode_N[piece], minlength=M)
        sum_M.index_add_(0, mode_N[piece].int(), rho_N[piece].abs().double())
    size_M[0] -= constant
    return size_M.cpu(), (sum_M / size_M.clamp(min=1)).cpu()


def spread(values_M: Tensor, mode_N: Tensor) -> Tensor:
    """The value of each weight's mode, float32 on the weights' device."""
    # uint8 indices would be read as a mask
    return values_M.to(mode_N.device, torch.float32).index_select(0, mode_N.int())


def pieces(N: int) -> Iterator[slice]:
    """Consecutive slices over N weights, so that temporaries stay small."""
    return (slice(start, stop) for start, stop in spans(0, N, PIECE))


def decode(wbar_N: Tensor, coefficient_N: Tensor, mode_N: Tensor, motion_M: Tensor) -> Tensor:
    """wbar + coefficient * motion of the weight's mode: (N,) float32."""
    theta_N = torch.empty_like(wbar_N)
    motion32_M = motion_M.to(wbar_N.device, torch.float32)

    def work(piece: slice) -> None:
        motion = spread(motion32_M, mode_N[piece])
        torch.addcmul(wbar_N[piece], coefficient_N[piece], motion, out=theta_N[piece])

    cut = list(pieces(len(theta_N)))
    with workers(wbar_N.device, len(cut)) as submit:
        results([submit(partial(work, piece)) for piece in cut])
    return theta_N
