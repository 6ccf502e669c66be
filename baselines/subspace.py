"""The subspace that a trajectory moves in, as an orthonormal basis found from inner products of its snapshots.

Li et al., Low Dimensional Trajectory Hypothesis is True: DNNs Can Be Trained in Tiny Subspaces (TPAMI 2022):
principal components of the centred snapshots through their T x T Gram matrix; and the span of uncentred ones, for
trainable weight averaging (Li et al., ICLR 2023). Ours: everything that is summed over weights is summed in float64,
and the basis is corrected a second time against its own inner products, since the first pass leaves an error of
eps (s_1 / s_d)^2, which is no longer small where singular values span many orders of magnitude.

Shape suffixes: N weights, T snapshots, D dimensions of the subspace.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from baselines.gram import BLOCK_BYTES, combine, gram
from baselines.parameters import check_whole
from harness.snapshots import MemoryTrajectory, Snapshots, as_trajectory

RESOLVED = 1e-13
"""least (s_k / s_1)^2 of a direction that is told from rounding: the float64 products carry no less with T snapshots
of a few hundred, and the snapshots' own float32 rounding lies about there"""


@dataclass(frozen=True, eq=False)
class Subspace:
    """span(P) for a P of orthonormal rows, with the singular values of the snapshots that it was found from."""

    P_DN: Tensor
    """float32, rows in order of decreasing singular value, orthonormal to 1e-6"""
    singular_values: Tensor
    """float64 on the CPU, decreasing: T - 1 of T centred snapshots, T of uncentred ones; beyond the rank, rounding"""

    @classmethod
    def fit(
        cls,
        snapshots: Snapshots,
        dimensions: int,
        max_bytes: int = BLOCK_BYTES,
    ) -> Subspace:
        """The first `dimensions` principal components of centred snapshots: an array (T, N), a list of (N,), or a
        trajectory.

        Reads the snapshots twice, in blocks of `max_bytes`; holds D N floats. ValueError where `dimensions` is below 1,
        above T - 1 or above the rank that the snapshots have beyond rounding, or where a snapshot is not finite.
        """
        trajectory = as_trajectory(snapshots)
        T = len(trajectory)
        check_whole("dimensions", dimensions, 1)
        if dimensions > T - 1:
            raise ValueError(f"dimensions must be at most {T - 1}, the {T} snapshots less 1, got {dimensions}")
        G_TT = gram(trajectory, shift=True, max_bytes=max_bytes)
        # centring is a product with I - 1 1'/T from both sides, exact enough on motions since the first snapshot
        G_TT = G_TT - G_TT.mean(0) - G_TT.mean(1, keepdim=True) + G_TT.mean()
        values_T, V_TT, rank = _principal(G_TT)
        if dimensions > rank:
            raise ValueError(
                f"dimensions must be at most {rank}, the rank of the {T} snapshots beyond rounding, got {dimensions}"
            )
        V_TD = V_TT[:, :dimensions] - V_TT[:, :dimensions].mean(0)
        coefficients_DT = (V_TD / values_T[:dimensions]).T
        P_DN = combine(trajectory, coefficients_DT, shift=True, max_bytes=max_bytes)
        return cls(orthonormalise(P_DN, max_bytes), values_T[:-1])

    @classmethod
    def span(cls, snapshots: Snapshots, max_bytes: int = BLOCK_BYTES) -> Subspace:
        """An orthonormal basis of the uncentred snapshots' span; those that depend on others add no dimension.

        The same span as the published Gram-Schmidt process, in an order that does not depend on the snapshots'.
        ValueError where there is no snapshot, or none but zeros, or one that is not finite.
        """
        trajectory = as_trajectory(snapshots)
        if len(trajectory) == 0:
            raise ValueError("snapshots must be at least 1, got 0")
        values_T, V_TT, rank = _principal(gram(trajectory, shift=False, max_bytes=max_bytes))
        if rank == 0:
            raise ValueError("snapshots must have a weight that is not 0")
        coefficients_DT = (V_TT[:, :rank] / values_T[:rank]).T
        P_DN = combine(trajectory, coefficients_DT, shift=False, max_bytes=max_bytes)
        return cls(orthonormalise(P_DN, max_bytes), values_T)

    @property
    def dimensions(self) -> int:
        return len(self.P_DN)

    def project(self, g_N: Tensor) -> Tensor:
        """Coordinates (D,) of a vector's part within the subspace: P g."""
        return self.P_DN @ g_N.to(self.P_DN)

    def lift(self, z_D: Tensor) -> Tensor:
        """The vector (N,) that has these coordinates: P' z."""
        return z_D.to(self.P_DN) @ self.P_DN

    def table(self) -> pd.DataFrame:
        """One row per component: its singular value, its share of the sum of squares, and whether it is used."""
        squares = self.singular_values.numpy() ** 2
        return pd.DataFrame(
            {
                "component": np.arange(1, len(squares) + 1),
                "singular_value": self.singular_values.numpy(),
                "share": squares / squares.sum(),
                "cumulative_share": squares.cumsum() / squares.sum(),
                "used": np.arange(len(squares)) < self.dimensions,
            }
        )


class Coordinates:
    """Weights theta = origin + P' z of which only z (D,) is trained, by any optimizer of `torch.optim` over `z_D`.

    theta is computed anew from z for every step, so it never leaves the subspace by more than the rounding of one
    float32 sum; steps on theta itself would add that rounding up. SGD with momentum on z is, in exact arithmetic, SGD
    on theta with the gradient P' P g: momentum and decay commute with P where the origin is 0 or nothing decays.
    """

    def __init__(self, subspace: Subspace, origin_N: Tensor | None = None) -> None:
        self.subspace = subspace
        self.origin_N = origin_N
        """None is 0"""
        P_DN = subspace.P_DN
        self.z_D = nn.Parameter(torch.zeros(subspace.dimensions, dtype=P_DN.dtype, device=P_DN.device))

    def take_gradient(self, g_N: Tensor) -> None:
        """Give z the gradient P g of a loss whose gradient in theta is g."""
        self.z_D.grad = self.subspace.project(g_N)

    @torch.no_grad()
    def theta_N(self) -> Tensor:
        """The weights at z, a new vector."""
        moved_N = self.subspace.lift(self.z_D)
        return moved_N if self.origin_N is None else moved_N.add_(self.origin_N)


def _principal(G_TT: Tensor) -> tuple[Tensor, Tensor, int]:
    """Singular values, decreasing, eigenvectors as columns, and how many of them are beyond rounding."""
    if not bool(G_TT.isfinite().all()):
        raise ValueError("snapshots must be finite")
    squares_T, V_TT = torch.linalg.eigh(G_TT)
    squares_T, V_TT = squares_T.flip(0).clamp_min(0), V_TT.flip(1)
    rank = int((squares_T > RESOLVED * squares_T[0]).sum())
    return squares_T.sqrt(), V_TT, rank


@torch.no_grad()
def orthonormalise(P_DN: Tensor, max_bytes: int = BLOCK_BYTES) -> Tensor:
    """P itself, its nearly orthonormal rows made so in place: P <- L^-1 P, where P P' = L L' in float64.

    A row changes by those above it alone. ValueError where rows are not independent.
    """
    D, N = P_DN.shape
    L_DD, failed = torch.linalg.cholesky_ex(gram(MemoryTrajectory(P_DN), shift=False, max_bytes=max_bytes))
    if int(failed) != 0:
        raise ValueError("rows must be independent")
    # its inverse costs no digits where rows are nearly orthonormal, and products are faster than substitution
    inverse_DD = torch.linalg.inv(L_DD).to(P_DN.device)
    width = max(1, max_bytes // (4 * D))
    for start in range(0, N, width):
        block_DB = P_DN[:, start : start + width]
        block_DB.copy_(inverse_DD @ block_DB.double())
    return P_DN
