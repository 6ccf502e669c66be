"""Online CMD: the least-squares fit of every weight on its reference, one snapshot at a time, in O(N).

Brokman et al. (ICLR 2024), in the equivalent centred form of Welford's recursion, which keeps no sums of raw values.
Nothing of the past is kept but means and covariances.

Shape suffixes: N weights, M modes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from baselines.cmd.fit import CMDModel, decode, pieces, spread


@dataclass
class OnlineFit:
    """The state of online CMD; vectors over N are on the device of the snapshots, the rest float64 on the CPU."""

    wbar_N: Tensor
    C_N: Tensor
    """sum over snapshots of (w - mean) (x - mean): covariance with the mode's reference, times n"""
    mode_N: Tensor
    reference_M: Tensor
    n: int
    mu_M: Tensor
    S_M: Tensor
    """sum over snapshots of (x - mean)^2"""
    x_M: Tensor
    """references in the latest snapshot"""

    @classmethod
    def start(cls, model: CMDModel, device: torch.device) -> OnlineFit:
        """Go on from a post-hoc fit of the warm-up, whose modes and references stay."""
        S_M = ((model.references_TM - model.mu_M) ** 2).sum(0)
        C_N = model.a_N * spread(S_M, model.mode_N)
        n = len(model.references_TM)
        x_M = model.references_TM[-1].clone()
        wbar_N, mode_N = model.wbar_N.to(device, copy=True), model.mode_N.to(device, copy=True)
        return cls(wbar_N, C_N.to(device), mode_N, model.reference_M.clone(), n, model.mu_M.clone(), S_M, x_M)

    @torch.no_grad()
    def update(self, theta_N: Tensor) -> None:
        """Take in the next snapshot."""
        self.n += 1
        self.x_M = theta_N[self.reference_M.to(theta_N.device)].to("cpu", torch.float64)
        d_M = self.x_M - self.mu_M
        self.mu_M += d_M / self.n
        self.S_M += d_M * (self.x_M - self.mu_M)
        for piece in pieces(len(theta_N)):
            w, wbar = theta_N[piece], self.wbar_N[piece]
            wbar.add_(w - wbar, alpha=1 / self.n)
            self.C_N[piece].addcmul_(spread(d_M, self.mode_N[piece]), w - wbar)

    @property
    def a_N(self) -> Tensor:
        """Slopes C / S; 0 where the reference has not moved."""
        return self.C_N * spread(self._per_variance(torch.ones_like(self.S_M)), self.mode_N)

    @property
    def b_N(self) -> Tensor:
        """Intercepts of a_i x + b_i, for comparison with the paper."""
        return self.wbar_N - self.a_N * spread(self.mu_M, self.mode_N)

    def model_N(self) -> Tensor:
        """The model of the latest snapshot: wbar + C / S (x - mu)."""
        return decode(self.wbar_N, self.C_N, self.mode_N, self._per_variance(self.x_M - self.mu_M))

    def _per_variance(self, values_M: Tensor) -> Tensor:
        return torch.where(self.S_M > 0, values_M / self.S_M.where(self.S_M > 0, 1.0), 0.0)

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> OnlineFit:
        """The inverse of `state_dict`; vectors over N go to `device`."""
        return cls(
            **{k: v.to(device if k.endswith("_N") else "cpu", copy=True) for k, v in state.items() if k != "n"},
            n=state["n"],
        )
