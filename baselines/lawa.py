"""Latest weight averaging: the mean of the k most recent epoch-end snapshots.

Kaddour, Stop Wasting My Time! Saving Days of ImageNet and BERT Training with Latest Weight Averaging (NeurIPS 2022
workshop). While fewer than k epochs have ended, the mean is over those.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from baselines.kernel import kernel_scalars, kernel_table
from baselines.parameters import check_whole
from harness.method import Observer, Proposal, Run, Snapshot, State


@dataclass(eq=False)
class LAWA(Observer):
    """The uniform mean of the latest `k` of w(1..t); ValueError where k is below 1."""

    k: int = 5

    def __post_init__(self) -> None:
        check_whole("k", self.k, 1)

    def memory_floats(self, N: int) -> int:
        return self.k * N

    def begin(self, run: Run) -> None:
        self.run = run
        self.t = 0
        self.latest_N: deque[Tensor] = deque(maxlen=self.k)
        """the snapshots themselves, oldest first: a sliding window must forget, so a sum is not enough"""

    def observe(self, snapshot: Snapshot) -> None:
        self.t = snapshot.t
        if snapshot.t >= 1:
            self.latest_N.append(snapshot.theta_N.detach().clone())

    def propose(self) -> Proposal | None:
        if len(self.latest_N) == 0:
            return None
        mean_N = torch.zeros_like(self.latest_N[0])
        for n, theta_N in enumerate(self.latest_N, start=1):
            mean_N.lerp_(theta_N, 1 / n)
        return Proposal(mean_N)

    def _kernel(self) -> tuple[Tensor, range]:
        """Coefficients of the latest snapshots, of shape (1, how many), and their epochs."""
        count = len(self.latest_N)
        return torch.full((1, count), 1 / count, dtype=torch.float64), range(self.t - count + 1, self.t + 1)

    def scalars(self) -> dict[str, float]:
        """Age and effective number of snapshots."""
        return kernel_scalars(*self._kernel()) if self.latest_N else {}

    def tables(self) -> dict[str, pd.DataFrame]:
        """The kernel."""
        return {"kernel": kernel_table(*self._kernel())} if self.latest_N else {}

    def state_dict(self) -> State:
        return {"latest_N": list(self.latest_N), "t": self.t}

    def load_state_dict(self, state: State) -> None:
        self.t = state["t"]
        self.latest_N = deque((theta_N.to(self.run.device) for theta_N in state["latest_N"]), maxlen=self.k)
