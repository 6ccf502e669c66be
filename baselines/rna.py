"""Regularised nonlinear acceleration: the combination of the last snapshots whose residual is least.

Scieur, d'Aspremont and Bach, Regularized Nonlinear Acceleration (NeurIPS 2016): an iteration w(i+1) = g(w(i)) is taken
for a linear one near its fixed point, whose extrapolation minimises ||sum_i c_i r_i||^2 + lambda ||c||^2 with
sum c = 1 over the residuals r_i = w(i+1) - w(i). An epoch is one such step here, and lambda is chosen by the probe's
loss, as theirs is by the objective's. On runs whose epochs are mostly noise it is close to the mean of the last k.

Shape suffix: T snapshots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.combined import Combined
from baselines.gram import combine, gram
from baselines.parameters import check_whole
from harness.method import Run


def extrapolations(residuals_KK: Tensor) -> list[tuple[float, Tensor]]:
    """lambda and the coefficients (K,), in sum 1, of the residuals with these inner products: float64.

    (G / ||G|| + lambda I) z = 1 and c = z / sum z, for lambda 0 and the geometric means of neighbouring eigenvalues of
    G / ||G||; one that is not finite is left out, and all where nothing moves.
    """
    eigen_K = torch.linalg.eigvalsh(residuals_KK).clamp(min=0)
    if float(eigen_K[-1]) == 0:
        return []
    G_KK, eigen_K = residuals_KK / eigen_K[-1], eigen_K / eigen_K[-1]
    between = (eigen_K[1:] * eigen_K[:-1]).sqrt().tolist()
    found = []
    for regular in dict.fromkeys([0.0, *between]):
        shifted_KK = G_KK + regular * torch.eye(len(G_KK), dtype=torch.float64)
        z_K, info = torch.linalg.solve_ex(shifted_KK, torch.ones(len(G_KK), dtype=torch.float64))
        c_K = z_K / z_K.sum()
        if int(info) == 0 and bool(c_K.isfinite().all()):
            found.append((regular, c_K))
    return found


@dataclass(eq=False)
class RNA(Combined):
    """sum_i c_i w(i+1) over the last `k` changes from epoch to epoch, or w(T) where that is no better.

    The same for every epoch; a shorter run has all its changes combined. ValueError where k is below 1.
    """

    k: int = 5

    needs_probe = True

    def __post_init__(self) -> None:
        check_whole("k", self.k, 1)

    def needs(self, epochs: int) -> tuple[int, int]:
        return max(epochs - self.k, 0), epochs

    def memory_floats(self, N: int) -> int:
        """A combination, and a block of the snapshots."""
        return 2 * N

    def find(self, run: Run) -> Tensor:
        motion_TT = gram(self.window, shift=True)
        step_KT = torch.diff(torch.eye(len(self.window), dtype=torch.float64), dim=0)
        residuals_KK = step_KT @ motion_TT @ step_KT.T
        c_T = torch.zeros(len(self.window), dtype=torch.float64)
        c_T[-1] = 1.0
        self.regular, least = math.nan, run.probe_loss(self.window[len(self.window) - 1].theta_N)
        for regular, c_K in extrapolations((residuals_KK + residuals_KK.T) / 2):
            tried_T = torch.cat([torch.zeros(1, dtype=torch.float64), c_K])
            loss = run.probe_loss(combine(self.window, tried_T[None], shift=False)[0])
            if loss < least:
                self.regular, least, c_T = regular, loss, tried_T
        return c_T

    def scalars(self) -> dict[str, float]:
        """lambda, where an extrapolation is better than the last snapshot, with the kernel's age and number."""
        chosen = {} if math.isnan(self.regular) else {"regularisation": self.regular}
        return {**chosen, **super().scalars()}
