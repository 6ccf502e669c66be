"""Every weight a straight line in time, fitted as training goes on: online CMD with the epoch as its only reference.

The recursion is that of `cmd.online_recursion`, whose reference is here the epoch, its square root or its logarithm.

Shape suffix: N trainable weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.clock import CLOCKS, Basis, check_clock
from harness.method import Observer, Proposal, Run, Snapshot, State


@dataclass(eq=False)
class ClockOnline(Observer):
    """The weighted regression of w(1..t) on x, the epoch in the `basis`, evaluated at the present one.

    A snapshot counts `forgetting` ** k after k later ones; before the first epoch's end it proposes nothing. ValueError
    where the basis is not known or forgetting is not above 0 and at most 1.
    """

    basis: Basis = "t"
    forgetting: float = 1.0

    def __post_init__(self) -> None:
        check_clock(self.basis, self.forgetting)

    def memory_floats(self, N: int) -> int:
        """Mean and covariance with x."""
        return 2 * N

    def begin(self, run: Run) -> None:
        self.run = run
        self.n = self.mu = self.S = self.x = 0.0
        """snapshots by their weight, the mean of x, its squares about that, and the latest x"""
        self.wbar_N: Tensor | None = None
        self.C_N: Tensor | None = None
        """sum over snapshots of (w - mean) (x - mean)"""

    @torch.no_grad()
    def observe(self, snapshot: Snapshot) -> None:
        if snapshot.t < 1:
            return
        if self.wbar_N is None or self.C_N is None:
            self.wbar_N, self.C_N = torch.zeros_like(snapshot.theta_N), torch.zeros_like(snapshot.theta_N)
        f, self.x = self.forgetting, CLOCKS[self.basis](snapshot.t)
        self.n = f * self.n + 1
        d = self.x - self.mu
        self.mu += d / self.n
        self.S = f * self.S + d * (self.x - self.mu)
        change_N = snapshot.theta_N - self.wbar_N
        self.wbar_N.add_(change_N, alpha=1 / self.n)
        self.C_N.mul_(f).add_(change_N, alpha=d * (1 - 1 / self.n))

    def propose(self) -> Proposal | None:
        if self.wbar_N is None or self.C_N is None:
            return None
        slope = (self.x - self.mu) / self.S if self.S > 0 else 0.0
        return Proposal(self.wbar_N.add(self.C_N, alpha=slope))

    def state_dict(self) -> State:
        vectors = {"wbar_N": self.wbar_N, "C_N": self.C_N}
        copies = {name: None if vector is None else vector.clone() for name, vector in vectors.items()}
        return {**copies, "n": self.n, "mu": self.mu, "S": self.S, "x": self.x}

    def load_state_dict(self, state: State) -> None:
        self.n, self.mu, self.S, self.x = state["n"], state["mu"], state["S"], state["x"]
        self.wbar_N, self.C_N = (
            None if state[name] is None else state[name].to(self.run.device, copy=True) for name in ("wbar_N", "C_N")
        )
