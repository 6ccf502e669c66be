"""The model of CMD: every weight is an affine function of its mode's reference weight.

Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024), post-hoc CMD. Least squares
within a mode is w^_i(t) = mean(w_i) + a_i (x(t) - mean(x)) with a_i = Cov(w_i, x) / Var(x), which is kept in this
centred form: a_i x + b_i loses 3e-5 in float32 where |a_i| is 400. Three passes over blocks of weights: what moved,
the sampled trajectories, the fit; in float64 per block, since sums of raw float32 values lose small motions.

Shape suffixes: N weights, T snapshots, B a block of weights, K sampled weights, M modes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.cmd.clustering import references
from harness.method import Trajectory

BLOCK_BYTES = 256 << 20
"""bound on what a fit holds beside its results"""

PIECE = 1 << 20
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


def fit(trajectory: Trajectory, modes: int, sample_K: Tensor, max_bytes: int = BLOCK_BYTES) -> CMDModel:
    """Post-hoc CMD over all snapshots given, in blocks such that `max_bytes` bounds what is held beside the result.

    `sample_K` is clustered as it is; if it is empty (nothing moved), weight 0 stands as the only reference. Fewer
    than `modes` modes can come out. Constant weights are their value. ValueError below 3 snapshots, where every
    correlation is 1. Snapshots must be finite (`sampling.constant_weights` checks).
    """
    check_length(len(trajectory))
    if sample_K.numel() == 0:
        sample_K = torch.zeros(1, dtype=torch.int64)
    x_TK = gather(trajectory, sample_K, max_bytes // 2)
    chosen_M = references(x_TK, modes)
    return _project(trajectory, sample_K[chosen_M], x_TK[:, chosen_M], max_bytes)


def check_length(T: int) -> None:
    """ValueError below 3 snapshots."""
    if T < 3:
        raise ValueError(f"epochs must give CMD at least 3 snapshots, got {T}")


def gather(trajectory: Trajectory, index_K: Tensor, max_bytes: int) -> Tensor:
    """Trajectories of single weights: (T, K) float64 on the CPU."""
    x_TK = torch.empty(len(trajectory), len(index_K), dtype=torch.float64)
    for start, stop, W_TB in trajectory.blocks(max_bytes):
        inside_K = (index_K >= start) & (index_K < stop)
        local = (index_K[inside_K] - start).to(W_TB.device)
        x_TK[:, inside_K] = W_TB[:, local].to("cpu", torch.float64)
    return x_TK


def _project(trajectory: Trajectory, reference_M: Tensor, x_TM: Tensor, max_bytes: int) -> CMDModel:
    """Assign every weight to the reference it correlates with most and fit it there."""
    mu_M = x_TM.mean(0)
    d_TM = x_TM - mu_M
    norm_M = torch.linalg.vector_norm(d_TM, dim=0)
    T, M = x_TM.shape
    theta_N = trajectory[0].theta_N
    wbar_N, a_N, rho_N = (torch.empty_like(theta_N) for _ in range(3))
    mode_N = torch.empty_like(theta_N, dtype=label_type(M))
    size_M, sum_abs_rho_M = torch.zeros(M, dtype=torch.int64), torch.zeros(M, dtype=torch.float64)
    for start, stop, W_TB in trajectory.blocks(_share(max_bytes, T, M)):
        own = (reference_M >= start) & (reference_M < stop) & (norm_M > 0)
        own_modes = torch.nonzero(own).squeeze(1)
        wbar_B, a_B, mode_B, rho_B, moved_B = _fit_block(W_TB, d_TM, norm_M, reference_M[own] - start, own_modes)
        for vector_N, part_B in ((wbar_N, wbar_B), (a_N, a_B), (mode_N, mode_B), (rho_N, rho_B)):
            vector_N[start:stop] = part_B
        size_M += torch.bincount(mode_B[moved_B].cpu(), minlength=M)
        sum_abs_rho_M.index_add_(0, mode_B.cpu(), rho_B.abs().cpu())
    mean_abs_rho_M = sum_abs_rho_M / size_M.clamp(min=1)
    return CMDModel(wbar_N, a_N, mode_N, rho_N, reference_M, x_TM, mu_M, size_M, mean_abs_rho_M)


def _share(max_bytes: int, T: int, M: int) -> int:
    """Bytes of a float32 block such that the block, its float64 copy and products over M fit `max_bytes`."""
    per_weight = 4 * T + 8 * T + 2 * 8 * M + 64
    return max(1, max_bytes * 4 * T // per_weight)


def _fit_block(
    W_TB: Tensor, d_TM: Tensor, norm_M: Tensor, own: Tensor, own_modes: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """wbar, a, mode, rho (float64, int64) and whether it moved, for each weight of a block.

    `own` are the references inside the block, which belong to `own_modes` whatever rounding says.
    """
    device = W_TB.device
    # The float64 mean of equal float32 values is exact, hence constant weights centre to exactly 0.
    X_TB = W_TB.double()
    wbar_B = X_TB.mean(0)
    X_TB -= wbar_B
    scale_M = norm_M.where(norm_M > 0, 1.0)
    product_MB = (d_TM / scale_M).T.contiguous().to(device) @ X_TB
    mode_B = product_MB.abs().argmax(0)
    mode_B[own.to(device)] = own_modes.to(device)
    product_B = product_MB.gather(0, mode_B[None])[0]
    norm_B = torch.linalg.vector_norm(X_TB, dim=0)
    moved_B = norm_B > 0
    rho_B = product_B / norm_B.where(moved_B, 1.0)
    return wbar_B, product_B / scale_M.to(device)[mode_B], mode_B, rho_B, moved_B


def label_type(M: int) -> torch.dtype:
    """The smallest integer type that holds the labels 0..M-1."""
    if M <= 1 << 8:
        return torch.uint8
    return torch.int16 if M <= 1 << 15 else torch.int32


def spread(values_M: Tensor, mode_N: Tensor) -> Tensor:
    """The value of each weight's mode, float32 on the weights' device."""
    # uint8 indices would be read as a mask
    return values_M.to(mode_N.device, torch.float32).index_select(0, mode_N.int())


def pieces(N: int) -> Iterator[slice]:
    """Consecutive slices over N weights, so that temporaries stay small."""
    return (slice(start, min(start + PIECE, N)) for start in range(0, N, PIECE))


def decode(wbar_N: Tensor, coefficient_N: Tensor, mode_N: Tensor, motion_M: Tensor) -> Tensor:
    """wbar + coefficient * motion of the weight's mode: (N,) float32."""
    theta_N = wbar_N.clone()
    for piece in pieces(len(theta_N)):
        theta_N[piece].addcmul_(coefficient_N[piece], spread(motion_M, mode_N[piece]))
    return theta_N
