"""Every weight a straight line in time, fitted as training goes on: online CMD with the epoch as its only reference.

The recursion is that of `cmd.online_recursion`, whose reference is here the epoch, its square root or its logarithm.

Shape suffix: N trainable weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from baselines.clock import CLOCKS, Basis, check_clock, clock_kernel
from baselines.kernel import kernel_scalars, kernel_table
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
        self.t = 0
        self.n = self.mu = self.S = 0.0
        """snapshots by their weight, the mean of x, and its squares about that"""
        self.wbar_N: Tensor | None = None
        self.C_N: Tensor | None = None
        """sum over snapshots of (w - mean) (x - mean)"""

    @torch.no_grad()
    def observe(self, snapshot: Snapshot) -> None:
        if snapshot.t < 1:
            return
        if self.wbar_N is None or self.C_N is None:
            self.wbar_N, self.C_N = torch.zeros_like(snapshot.theta_N), torch.zeros_like(snapshot.theta_N)
        self.t = snapshot.t
        f, x = self.forgetting, CLOCKS[self.basis](self.t)
        self.n = f * self.n + 1
        d = x - self.mu
        self.mu += d / self.n
        self.S = f * self.S + d * (x - self.mu)
        change_N = snapshot.theta_N - self.wbar_N
        self.wbar_N.add_(change_N, alpha=1 / self.n)
        self.C_N.mul_(f).add_(change_N, alpha=d * (1 - 1 / self.n))

    def propose(self) -> Proposal | None:
        if self.wbar_N is None or self.C_N is None:
            return None
        motion = CLOCKS[self.basis](self.t) - self.mu
        return Proposal(self.wbar_N.add(self.C_N, alpha=motion / self.S if self.S > 0 else 0.0))

    def _kernel(self) -> tuple[Tensor, tuple[int, ...]]:
        """Coefficients (1, t) of the snapshots so far, and their epochs."""
        ts = tuple(range(1, self.t + 1))
        return clock_kernel(ts, self.t, self.basis, self.forgetting)[None], ts

    def scalars(self) -> dict[str, float]:
        """Age and effective number of snapshots."""
        return kernel_scalars(*self._kernel()) if self.t > 0 else {}

    def tables(self) -> dict[str, pd.DataFrame]:
        """The kernel."""
        return {"kernel": kernel_table(*self._kernel())} if self.t > 0 else {}

    def state_dict(self) -> State:
        vectors = {"wbar_N": self.wbar_N, "C_N": self.C_N}
        copies = {name: None if vector is None else vector.clone() for name, vector in vectors.items()}
        return {**copies, "n": self.n, "mu": self.mu, "S": self.S, "t": self.t}

    def load_state_dict(self, state: State) -> None:
        self.n, self.mu, self.S, self.t = state["n"], state["mu"], state["S"], state["t"]
        self.wbar_N, self.C_N = (
            None if state[name] is None else state[name].to(self.run.device, copy=True) for name in ("wbar_N", "C_N")
        )
