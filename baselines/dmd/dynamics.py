"""Dynamic mode decomposition of snapshots, from their T x T inner products alone.

Schmid, Dynamic mode decomposition of numerical and experimental data (J. Fluid Mech. 2010); Tu et al., On dynamic mode
decomposition: theory and applications (J. Comput. Dyn. 2014). With X all snapshots but the last, X = U S V' of rank r,
the projected map A = U' X_next V S^-1 needs inner products only, and so do the coordinates U' x of every snapshot. What
comes out are coefficients of snapshots; nothing of size N x r exists.

The offset. Linear dynamics rest at 0 alone, unless a mode is spent on resting elsewhere. Subtracting the mean is no way
out: at full rank all eigenvalues become roots of unity (Chen et al., J. Nonlinear Sci. 2012). `first`
decomposes the motion since the first snapshot. That motion starts at 0, where a linear map stays, so that what was
linear becomes affine; `constant`, the default, therefore appends a row of ones to the coordinates: z_next = A z + d,
fitted together, which recovers linear and affine dynamics exactly and holds any fixed point. The row's own eigenvalue,
exactly 1, is not reported. `none` decomposes the weights as they are.

Forecasts are anchored at the last snapshot: z(h) = z + (1 + A + ... + A^(h-1)) u with the next step u = A z + d - z,
the same as A^h z for d = 0, and without cancellation where an eigenvalue is close to 1.

Shape suffixes: T snapshots, R directions kept, S singular values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from baselines.dmd.rank import ACCURACY, Offset, Rank, choose_rank

STEADY = 1e-3
"""distance from 1 within which an eigenvalue is not clipped: a step grows by a tenth in 100 snapshots, at most"""
PARALLEL = 0.9
"""cosine from which two eigenvectors are of one group, whose eigenvalues are clipped as one"""


@dataclass(frozen=True)
class Dynamics:
    """z_next = A z + d in the coordinates of R directions; float64 and complex128 tensors on the CPU."""

    basis_TR: Tensor
    """each direction, of norm 1, as a combination of the (shifted) snapshots"""
    z_TR: Tensor
    """coordinates of every snapshot"""
    A_RR: Tensor
    d_R: Tensor
    """zero without a constant row"""
    eigenvalues_R: Tensor
    """eigenvalues of A, largest modulus first"""
    vectors_RR: Tensor
    """eigenvectors of A in columns, of norm 1"""
    rank: Rank
    energy: float
    """share of the squared singular values of X that the directions carry"""
    residual: float
    """norm of what the map leaves of all next snapshots, relative to theirs (with an offset, to their motion's)"""
    shift: bool
    """whether coordinates are of the motion since the first snapshot"""

    @classmethod
    def fit(cls, gram_TT: Tensor, N: int, rank: int | str, energy: float, offset: Offset) -> Dynamics:
        """From the inner products of T >= 3 snapshots of N weights, or for an offset of their motions; see `gram`."""
        X_SS = gram_TT[:-1, :-1]
        values_S, vectors_SS = torch.linalg.eigh(X_SS)
        squares_S = values_S.flip(0).clamp(min=0)
        motion_S = squares_S if offset != "none" else _motion(X_SS)
        chosen = choose_rank(rank, energy, squares_S, motion_S, N)
        R = chosen.used
        V_SR = vectors_SS.flip(1)[:, :R]
        basis_SR = V_SR / squares_S[:R].sqrt()
        z_TR = gram_TT[:, :-1] @ basis_SR
        d_R = _drift(z_TR[1:], V_SR) if offset == "constant" else torch.zeros(R, dtype=torch.float64)
        A_RR = (z_TR[1:] - d_R).T @ basis_SR
        eigenvalues_R, vectors_RR = torch.linalg.eig(A_RR)
        order_R = eigenvalues_R.abs().argsort(descending=True, stable=True)
        total = float(squares_S.sum())
        return cls(
            basis_TR=torch.cat([basis_SR, torch.zeros(1, R, dtype=torch.float64)]),
            z_TR=z_TR,
            A_RR=A_RR,
            d_R=d_R,
            eigenvalues_R=eigenvalues_R[order_R],
            vectors_RR=vectors_RR[:, order_R],
            rank=chosen,
            energy=float(squares_S[:R].sum()) / total if total > 0 else 1.0,
            residual=_residual(gram_TT, z_TR, A_RR, d_R),
            shift=offset != "none",
        )

    def forecast(self, h: int, clip: bool) -> Tensor:
        """Coordinates (R,) h steps after the last snapshot; `clip` brings growing eigenvalues to the unit circle.

        A mode whose eigenvalue is clipped keeps its distance from the fixed point. Not finite where it overflows.
        """
        clips_R = self._clips() if clip and len(self.A_RR) > 0 else torch.ones(0)
        if bool((clips_R < 1).any()):
            gain_R = geometric_sums(self.eigenvalues_R, h, clips_R)
            moved_R: Tensor = (self.vectors_RR @ (gain_R * self._by_mode(self._step()))).real
            return self.z_TR[-1] + moved_R
        z_R, step_R = self.z_TR[-1].clone(), self._step()
        for _ in range(h):
            z_R += step_R
            step_R = self.A_RR @ step_R
        return z_R

    def _clips(self) -> Tensor:
        """The factor that each eigenvalue is clipped with, 1 where it is not.

        Rounding splits the eigenvalues of a motion that is polynomial in time about the circle, with eigenvectors
        that are nearly parallel and coefficients that cancel: clipping some of such a group would leave anything.
        A group is brought to the circle by its mean, and left as it is where it lies about 1, a steady motion.
        """
        near_RR = (self.vectors_RR.mH @ self.vectors_RR).abs() > PARALLEL
        for _ in range(len(near_RR)):
            near_RR = (near_RR.double() @ near_RR.double()) > 0
        share_RR = near_RR.to(self.eigenvalues_R.dtype) / near_RR.sum(1, keepdim=True)
        mean_R = share_RR @ self.eigenvalues_R
        spread_R = ((self.eigenvalues_R - mean_R[:, None]).abs() * near_RR).amax(1)
        steady_R = (mean_R - 1).abs() <= spread_R.clamp(min=STEADY)
        clips_R: Tensor = (1 / mean_R.abs().clamp(min=1)).where(~steady_R, 1.0)
        return clips_R

    def _step(self) -> Tensor:
        """The next step of the last snapshot."""
        now_R = self.z_TR[-1]
        step_R: Tensor = self.A_RR @ now_R + self.d_R - now_R
        return step_R

    def _by_mode(self, z_R: Tensor) -> Tensor:
        """Coordinates of eigenvectors; the smallest that come closest where A has too few of these."""
        z_R = z_R.to(self.vectors_RR.dtype)
        modes_R, singular = torch.linalg.solve_ex(self.vectors_RR, z_R)
        if singular != 0:
            modes_R = torch.linalg.lstsq(self.vectors_RR, z_R[:, None], driver="gelsd").solution[:, 0]
        by_mode_R: Tensor = modes_R
        return by_mode_R

    @property
    def amplitudes_R(self) -> Tensor:
        """Distance of the last snapshot from where it came to rest, by mode, in the norm of the weights."""
        return self._by_mode(self._step()).abs().div((self.eigenvalues_R - 1).abs().clamp(min=ACCURACY))

    def in_sample(self) -> Tensor:
        """Coordinates (T, R) that the dynamics give for the fitted snapshots from the best start.

        The best in the sense of least squares over all snapshots (Jovanovic et al., Phys. Fluids 2014, with d beside
        it): a start at the first snapshot would let its error grow over the whole run. Decaying modes are set at the
        first snapshot, growing ones at the last, so that no power overflows.
        """
        T, R = self.z_TR.shape
        if R == 0:
            return self.z_TR.clone()
        gain_TR, drive_TR = self._responses(T)
        base_TR = drive_TR @ self.vectors_RR.T
        reduced = torch.zeros(0, R + 1, dtype=torch.complex128)
        for gain_R, rest_R in zip(gain_TR, self.z_TR - base_TR, strict=True):
            rows = torch.cat([self.vectors_RR * gain_R, rest_R[:, None]], dim=1)
            reduced = torch.linalg.qr(torch.cat([reduced, rows]), mode="r").R
        start_R = torch.linalg.lstsq(reduced[:R, :R], reduced[:R, R:], driver="gelsd").solution[:, 0]
        z_TR: Tensor = (base_TR + (gain_TR * start_R) @ self.vectors_RR.T).real
        return z_TR

    def _responses(self, T: int) -> tuple[Tensor, Tensor]:
        """By snapshot and mode: what a start of 1 gives, and what d gives on a start of 0; (T, R) each."""
        d_R, growing_R = self._by_mode(self.d_R), self.eigenvalues_R.abs() > 1
        decay_R = self.eigenvalues_R.where(~growing_R, 0.0)
        inverse_R = 1 / self.eigenvalues_R.where(growing_R, 1.0)
        ahead = [(torch.ones_like(d_R), torch.zeros_like(d_R))]
        back = ahead[:]
        for _ in range(T - 1):
            gain_R, drive_R = ahead[-1]
            ahead.append((decay_R * gain_R, decay_R * drive_R + d_R))
            gain_R, drive_R = back[-1]
            back.append((inverse_R * gain_R, inverse_R * (drive_R - d_R)))
        both = zip(zip(*ahead, strict=True), zip(*reversed(back), strict=True), strict=True)
        gain_TR, drive_TR = (torch.stack(b).where(growing_R, torch.stack(a)) for a, b in both)
        return gain_TR, drive_TR

    def coefficients(self, z_R: Tensor) -> Tensor:
        """The weights at these coordinates as a combination (T,) of the snapshots."""
        c_T = self.basis_TR @ z_R
        if self.shift:
            # sum c_t (w_t - w_1) + w_1; the first motion is 0 whatever its coefficient
            c_T[0] = 1 - c_T[1:].sum()
        return c_T

    def scalars(self) -> dict[str, float]:
        """Rank asked for and used, largest modulus, and the relative residual of the fit."""
        numbers = {"rank_asked": float(self.rank.asked), "rank": float(self.rank.used), "residual": self.residual}
        return {**numbers, "largest_modulus": self.largest_modulus}

    @property
    def largest_modulus(self) -> float:
        """0 where nothing moved."""
        return float(self.eigenvalues_R[0].abs()) if len(self.eigenvalues_R) > 0 else 0.0

    def tables(self) -> dict[str, pd.DataFrame]:
        """`eigenvalues`, one row per mode with its amplitude at the last snapshot, and `fit`, one row in all."""
        eigenvalues = pd.DataFrame(
            {
                "mode": range(len(self.eigenvalues_R)),
                "real": self.eigenvalues_R.real.numpy(),
                "imaginary": self.eigenvalues_R.imag.numpy(),
                "modulus": self.eigenvalues_R.abs().numpy(),
                "amplitude": self.amplitudes_R.numpy(),
            }
        )
        rank = {"rank_asked": self.rank.asked, "rank": self.rank.used, "cut": self.rank.cut}
        row = {"snapshots": len(self.z_TR), **rank, "energy": self.energy, "residual": self.residual}
        return {"eigenvalues": eigenvalues, "fit": pd.DataFrame([row])}


def geometric_sums(eigenvalues_R: Tensor, h: int, clips_R: Tensor) -> Tensor:
    """1 + l + ... + l^(h-1) per eigenvalue l; ((c l)^h - 1) / (l - 1) for one that is clipped with a factor c < 1."""
    clipped_R, ratio_R = clips_R < 1, eigenvalues_R * clips_R
    scale_R = ((ratio_R - 1) / (eigenvalues_R - 1).where(clipped_R, 1.0)).where(clipped_R, 1.0)
    sums_R, power_R = torch.zeros_like(ratio_R), torch.ones_like(ratio_R)
    for _ in range(h):
        sums_R = sums_R + power_R
        power_R = power_R * ratio_R
    gains_R: Tensor = sums_R * scale_R
    return gains_R


def _motion(X_SS: Tensor) -> Tensor:
    """Squared singular values of the motion since the first snapshot, from the weights' own inner products."""
    first_S = X_SS[0]
    shifted_SS = X_SS - first_S - first_S[:, None] + X_SS[0, 0]
    squares_S: Tensor = torch.linalg.eigvalsh(shifted_SS).flip(0).clamp(min=0)
    return squares_S


def _drift(next_SR: Tensor, V_SR: Tensor) -> Tensor:
    """d of the least squares z_next ~ A z + d: regression on what of a row of ones the coordinates do not explain."""
    ones_S = torch.ones(len(V_SR), dtype=torch.float64)
    rest_S = ones_S - V_SR @ (V_SR.T @ ones_S)
    # The first coordinates are 0 for a motion since the first snapshot, hence rest_S[0] is 1.
    d_R: Tensor = next_SR.T @ rest_S / (rest_S @ rest_S)
    return d_R


def _residual(gram_TT: Tensor, z_TR: Tensor, A_RR: Tensor, d_R: Tensor) -> float:
    total = float(gram_TT.diagonal()[1:].sum())
    outside = total - float(z_TR[1:].square().sum())
    inside = float((z_TR[1:] - z_TR[:-1] @ A_RR.T - d_R).square().sum())
    return math.sqrt(max(outside + inside, 0.0) / total) if total > 0 else 0.0
