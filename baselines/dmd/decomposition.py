"""Dynamic mode decomposition for anyone's snapshots, without the harness.

    dmd = DMD.fit(snapshots_TN, rank=5)
    dmd.eigenvalues, dmd.forecast(10), dmd.reconstruct(3)

See `dynamics` for the method and its sources.

Shape suffixes: N weights, T snapshots.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from baselines.dmd.dynamics import Dynamics
from baselines.dmd.rank import Offset, check_rank, check_rank_fits
from baselines.finite import first_not_finite
from baselines.gram import BLOCK_BYTES, combine, gram
from harness.method import Layout, Trajectory
from harness.snapshots import Snapshots, as_trajectory


def finite_gram(
    trajectory: Trajectory, offset: Offset, layout: Layout | None = None, max_bytes: int = BLOCK_BYTES
) -> Tensor:
    """Inner products (T, T) of the snapshots or their motions, as the offset asks; ValueError where not finite."""
    gram_TT = gram(trajectory, offset != "none", max_bytes)
    if not bool(gram_TT.isfinite().all()):
        found = first_not_finite(trajectory.blocks(max_bytes), trajectory.ts, layout)
        raise ValueError(found or "snapshots must have squares that float64 holds, got inf")
    return gram_TT


@dataclass(frozen=True)
class DMD:
    """Linear dynamics of snapshots. Refers to the snapshots: weights are combined from them when asked for."""

    trajectory: Trajectory
    dynamics: Dynamics
    max_bytes: int = BLOCK_BYTES

    @classmethod
    def fit(
        cls,
        snapshots: Snapshots,
        rank: int | str = "energy",
        energy: float = 0.9999,
        offset: Offset = "constant",
        layout: Layout | None = None,
        max_bytes: int = BLOCK_BYTES,
    ) -> DMD:
        """DMD of all snapshots: a floating-point tensor or array (T, N), a list of (N,), or a trajectory in memory or
        in files.

        `rank` is a number of directions, `energy` for as many as carry that share of the squared motion, or
        `gavish_donoho`; it is cut where float64 inner products no longer carry it (`dynamics.rank`). `offset` is
        `constant`, `first` or `none`, see `dynamics`. `max_bytes` bounds a block of weights. ValueError where T is
        below 3, N below 1, a parameter out of bounds, or a value not finite, naming its snapshot and with a `layout`
        its tensor.
        """
        check_rank(rank, energy, offset)
        trajectory = as_trajectory(snapshots)
        if len(trajectory) < 3:
            raise ValueError(f"snapshots must be at least 3, got {len(trajectory)}")
        check_rank_fits(rank, len(trajectory), offset)
        gram_TT = finite_gram(trajectory, offset, layout, max_bytes)
        N = trajectory[0].theta_N.numel()
        return cls(trajectory, Dynamics.fit(gram_TT, N, rank, energy, offset), max_bytes)

    @property
    def eigenvalues(self) -> Tensor:
        """Growth and turn per snapshot of every mode, complex128, largest modulus first."""
        return self.dynamics.eigenvalues_R

    @property
    def amplitudes(self) -> Tensor:
        """Distance of the last snapshot from where it came to rest, by mode, in the norm of the weights."""
        return self.dynamics.amplitudes_R

    def forecast(self, h: int, clip: bool = True) -> Tensor:
        """The weights (N,) float32 that many snapshots after the last; 0 gives it projected on the directions kept.

        `clip` brings eigenvalues outside the unit circle to it, but for those of steady motion (`dynamics.STEADY`);
        those whose eigenvectors are nearly parallel as one. ValueError where h is below 0.
        """
        if h < 0:
            raise ValueError(f"h must be at least 0, got {h}")
        return self._weights(self.dynamics.forecast(h, clip))

    @cached_property
    def _in_sample_TR(self) -> Tensor:
        return self.dynamics.in_sample()

    def reconstruct(self, t: int) -> Tensor:
        """The weights (N,) that the dynamics give for the snapshot t; ValueError unless t is one of the fitted."""
        ts = self.trajectory.ts
        if t not in ts:
            raise ValueError(f"t must be one of the {len(ts)} snapshots {ts[0]}..{ts[-1]}, got {t}")
        return self._weights(self._in_sample_TR[ts.index(t)])

    def _weights(self, z_R: Tensor) -> Tensor:
        c_T = self.dynamics.coefficients(z_R)
        return combine(self.trajectory, c_T[None], False, self.max_bytes)[0]
