"""The recursion of online CMD: the least-squares fit of every weight on its reference, one snapshot at a time.

Brokman et al. (ICLR 2024), in the equivalent centred form of Welford's recursion, which keeps no sums of raw values:
nothing of the past is kept but means and covariances. With a forgetting factor below 1 (ours) the fit is weighted.

Shape suffixes: N weights, M modes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from baselines.cmd.posthoc import CMD, check_modes
from baselines.cmd.regression import by_pieces, decode, spread
from baselines.parameters import check_bool, check_share
from baselines.warmup import check_warmup


def check_online(
    modes: int, samples: int, warmup: int, include_initial: bool, forgetting: float, model_buffers: bool
) -> None:
    """What online CMD asks of its parameters in anyone's loop and in the harness; ValueError."""
    check_modes(modes, samples)
    check_warmup(warmup)
    check_bool("include_initial", include_initial)
    check_share("forgetting", forgetting)
    check_bool("model_buffers", model_buffers)


@dataclass
class OnlineFit:
    """The least-squares fit of every weight on its reference, one snapshot at a time, in O(N).

    A snapshot counts `forgetting` ** k after k later ones. Vectors over N lie on the device of the snapshots, the rest
    is float64 on the CPU.
    """

    wbar_N: Tensor
    C_N: Tensor
    """sum over snapshots of (w - mean) (x - mean): covariance with the mode's reference, times n"""
    mode_N: Tensor
    reference_M: Tensor
    n: float
    """snapshots taken in, each by its weight"""
    mu_M: Tensor
    S_M: Tensor
    """sum over snapshots of (x - mean)^2"""
    x_M: Tensor
    """references in the latest snapshot"""
    forgetting: float = 1.0
    past_TM: Tensor | None = None
    """references in all snapshots so far; None in a state of before they were kept"""
    alike: int = 0
    """snapshots of the warm-up, which count alike"""

    @classmethod
    def start(cls, cmd: CMD, device: torch.device, forgetting: float = 1.0) -> OnlineFit:
        """Go on from post-hoc CMD of the warm-up, whose snapshots count alike; modes and references stay."""
        S_M = ((cmd.references_TM - cmd.mu_M) ** 2).sum(0)
        C_N = cmd.a_N * spread(S_M, cmd.mode_N)
        n = float(len(cmd.references_TM))
        x_M = cmd.references_TM[-1].clone()
        wbar_N, mode_N = cmd.wbar_N.to(device, copy=True), cmd.mode_N.to(device, copy=True)
        mu_M = cmd.mu_M.clone()
        own = wbar_N, C_N.to(device), mode_N, cmd.reference_M.clone(), n, mu_M, S_M, x_M, forgetting
        return cls(*own, cmd.references_TM.clone(), len(cmd.references_TM))

    def update(self, theta_N: Tensor) -> None:
        """Take in the next snapshot."""
        self.n = self.forgetting * self.n + 1
        self.x_M = theta_N[self.reference_M.to(theta_N.device)].to("cpu", torch.float64)
        if self.past_TM is not None:
            self.past_TM = torch.cat([self.past_TM, self.x_M[None]])
        d_M = self.x_M - self.mu_M
        self.mu_M += d_M / self.n
        self.S_M.mul_(self.forgetting).add_(d_M * (self.x_M - self.mu_M))
        d32_M = d_M.to(theta_N.device, torch.float32)
        by_pieces(lambda piece: self._update_piece(theta_N, d32_M, piece), len(theta_N), theta_N.device)

    @torch.no_grad()
    def _update_piece(self, theta_N: Tensor, d32_M: Tensor, piece: slice) -> None:
        """Mean and covariance of some weights: C += d (w - new mean), where w - new mean = (1 - 1/n)(w - mean)."""
        change = theta_N[piece] - self.wbar_N[piece]
        self.wbar_N[piece].add_(change, alpha=1 / self.n)
        C = self.C_N[piece]
        if self.forgetting != 1:
            C.mul_(self.forgetting)
        C.addcmul_(spread(d32_M, self.mode_N[piece]), change, value=1 - 1 / self.n)

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

    def kernels(self) -> Tensor | None:
        """Coefficients (M, T) of all snapshots so far in the model of the latest one, for a weight of each mode.

        c(s) = p_s (1 / sum p + d(s) d(T) / sum p d^2), p_s what the snapshot counts and d the reference about its
        weighted mean: float64. None where the references' past is not known.
        """
        if self.past_TM is None:
            return None
        T = len(self.past_TM)
        later_T = (T - 1 - torch.arange(T)).clamp(max=T - self.alike).double()
        p_T1 = (self.forgetting**later_T)[:, None]
        d_TM = self.past_TM - (p_T1 * self.past_TM).sum(0) / p_T1.sum()
        squares_M = (p_T1 * d_TM.square()).sum(0)
        slope_M = torch.where(squares_M > 0, d_TM[-1] / squares_M.where(squares_M > 0, 1.0), 0.0)
        return (p_T1 * (1 / p_T1.sum() + d_TM * slope_M)).T

    def _per_variance(self, values_M: Tensor) -> Tensor:
        return torch.where(self.S_M > 0, values_M / self.S_M.where(self.S_M > 0, 1.0), 0.0)

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> OnlineFit:
        """The inverse of `state_dict`; vectors over N go to `device`."""
        own: dict[str, Any] = {}
        for name, value in state.items():
            place = device if name.endswith("_N") else "cpu"
            own[name] = value.to(place, copy=True) if isinstance(value, Tensor) else value
        return cls(**own)
