"""Which weights embedded CMD embeds: those whose coefficients moved least since the last window.

Brokman et al. (ICLR 2024): every few epochs a share of the weights, by the movement sqrt(da^2 + db^2) of their
coefficients. That is not free of scale: a weight of a small tensor moves little whatever it does. `scale_free`, ours,
is (|da| std(x) + |change of the modelled weight at x = mean(x)|) / std(w). Statistics are kept of free weights alone:
those of an embedded weight stop.

Shape suffixes: N weights, F free weights (references among them), T snapshots, B a block of weights, M modes.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from baselines.cmd.online_recursion import OnlineFit
from baselines.cmd.posthoc import CMD
from baselines.cmd.regression import spread
from harness.method import Trajectory

Movement = Literal["coefficients", "scale_free"]
MOVEMENTS: tuple[Movement, ...] = get_args(Movement)


def variation(trajectory: Trajectory, max_bytes: int) -> Tensor:
    """Every weight's sum of squares about its mean: (N,) float32."""
    squares: list[Tensor] = []
    for _, _, W_TB in trajectory.blocks(max_bytes // 4):
        # The float64 mean of equal float32 values is exact, hence constant weights give exactly 0.
        X_TB = W_TB.double()
        squares.append((X_TB - X_TB.mean(0)).square_().sum(0).float())
    return torch.cat(squares)


class FreeFit:
    """Online CMD of the weights that are not embedded, with what their choice needs."""

    def __init__(self, cmd: CMD, warmup: Trajectory, movement: Movement, max_bytes: int) -> None:
        device = cmd.wbar_N.device
        self.free_N = torch.ones_like(cmd.wbar_N, dtype=torch.bool)
        self.online = OnlineFit.start(cmd, device)
        self.squares_F = variation(warmup, max_bytes).to(device) if movement == "scale_free" else None
        self._close_window()

    def _close_window(self) -> None:
        self.last_a_F = self.online.a_N
        self.last_wbar_F = self.online.wbar_N.clone()
        self.last_mu_M = self.online.mu_M.clone()

    @torch.no_grad()
    def update(self, theta_N: Tensor) -> None:
        """Take in the snapshot of the next epoch."""
        theta_F = theta_N[self.free_N]
        change_F = theta_F - self.online.wbar_N
        self.online.update(theta_F)
        if self.squares_F is not None:
            self.squares_F.addcmul_(change_F, theta_F - self.online.wbar_N)

    def movement(self) -> Tensor:
        """How far each free weight's coefficients are from where they were at the last window: (F,) float32."""
        online = self.online
        da_F = online.a_N - self.last_a_F
        # The change of the model at x = mu, in differences: a and b themselves cancel where mu is large.
        drift_F = self.last_a_F * spread(online.mu_M - self.last_mu_M, online.mode_N)
        change_F = online.wbar_N - self.last_wbar_F - drift_F
        if self.squares_F is None:
            return torch.hypot(da_F, change_F - da_F * spread(online.mu_M, online.mode_N))
        std_M = (online.S_M / online.n).sqrt()
        moved_F = da_F.abs() * spread(std_M, online.mode_N) + change_F.abs()
        return torch.where(self.squares_F > 0, moved_F / (self.squares_F / online.n).sqrt(), 0.0)

    def eligible(self, moving_N: Tensor) -> Tensor:
        """Those of the free weights that move and are no references: (F,) bool."""
        eligible_F = moving_N[self.free_N]
        eligible_F[self.online.reference_M.to(eligible_F.device)] = False
        return eligible_F

    @torch.no_grad()
    def release(self, count: int, moving_N: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
        """Close a window: of the weights `moving_N` the `count` eligible ones that moved least leave, all if fewer.

        Gives their indices into theta_N (ascending), a, wbar and mode, and the largest movement among them (0 for
        none). Ties go to the lower index.
        """
        eligible_F = self.eligible(moving_N)
        count = min(count, int(eligible_F.sum()))
        movement_F = self.movement().where(eligible_F, torch.inf)
        chosen = movement_F.argsort(stable=True)[:count]
        largest = float(movement_F[chosen[-1]]) if count > 0 else 0.0
        chosen = chosen.sort().values
        index = torch.nonzero(self.free_N).squeeze(1)[chosen]
        released = index, self.online.a_N[chosen], self.online.wbar_N[chosen], self.online.mode_N[chosen]
        self._keep(torch.ones_like(eligible_F).index_fill_(0, chosen, False))
        self.free_N[index] = False
        self._close_window()
        return *released, largest

    def _keep(self, kept_F: Tensor) -> None:
        """Let go of all but these."""
        online = self.online
        rank_F = kept_F.cumsum(0) - 1
        reference_M = rank_F[online.reference_M.to(rank_F.device)].to(online.reference_M.device)
        vectors = {f.name: getattr(online, f.name)[kept_F] for f in fields(online) if f.name.endswith("_N")}
        self.online = replace(online, reference_M=reference_M, **vectors)
        if self.squares_F is not None:
            self.squares_F = self.squares_F[kept_F]

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything."""
        return {
            "online": self.online.state_dict(),
            "free_N": self.free_N.clone(),
            "squares_F": None if self.squares_F is None else self.squares_F.clone(),
            "last": (self.last_a_F.clone(), self.last_wbar_F.clone(), self.last_mu_M.clone()),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> FreeFit:
        """The inverse of `state_dict`; vectors over weights go to `device`."""
        fit = cls.__new__(cls)
        fit.online = OnlineFit.from_state(state["online"], device)
        fit.free_N = state["free_N"].to(device, copy=True)
        squares_F = state["squares_F"]
        fit.squares_F = None if squares_F is None else squares_F.to(device, copy=True)
        last_a_F, last_wbar_F, last_mu_M = state["last"]
        fit.last_a_F, fit.last_wbar_F = last_a_F.to(device, copy=True), last_wbar_F.to(device, copy=True)
        fit.last_mu_M = last_mu_M.clone()
        return fit
