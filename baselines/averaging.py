"""The mean of the weights over time, as one vector that takes in a snapshot at a time.

Shape suffixes: N trainable weights, T snapshots taken in.
"""

from __future__ import annotations

from abc import abstractmethod

import pandas as pd
import torch
from torch import Tensor

from baselines.kernel import kernel_scalars, kernel_table
from harness.method import Observer, Proposal, Run, Snapshot, State


class RunningMean(Observer):
    """A weighted mean mean_N += c_n (w - mean_N), where c_n is the share of the n-th snapshot taken in.

    A subclass says which snapshots count (`counts`), all from some first one on, and their shares (`share`); c_1 is 1
    by definition. Means over epochs give their kernel.
    """

    run: Run
    mean_N: Tensor | None
    n: int
    """snapshots taken in"""
    t: int
    """the epoch of the last one"""

    @abstractmethod
    def counts(self, snapshot: Snapshot) -> bool:
        """Whether the mean takes this snapshot in."""

    def share(self, n: int) -> float:
        """c_n; uniform unless a subclass says otherwise."""
        return 1 / n

    def begin(self, run: Run) -> None:
        self.run, self.mean_N, self.n, self.t = run, None, 0, 0

    @torch.no_grad()
    def observe(self, snapshot: Snapshot) -> None:
        if not self.counts(snapshot):
            return
        self.n += 1
        self.t = snapshot.t
        if self.mean_N is None:
            self.mean_N = snapshot.theta_N.detach().clone()
        else:
            self.mean_N.lerp_(snapshot.theta_N, self.share(self.n))

    def propose(self) -> Proposal | None:
        return None if self.mean_N is None else Proposal(self.mean_N.clone())

    def _kernel(self) -> tuple[Tensor, range]:
        """Coefficients (1, T) of the snapshots taken in, and their epochs."""
        share_T = torch.tensor([1.0, *map(self.share, range(2, self.n + 1))], dtype=torch.float64)
        # What later snapshots leave of each
        left_T = torch.cat([(1 - share_T[1:]).flip(0).cumprod(0).flip(0), torch.ones(1, dtype=torch.float64)])
        return (share_T * left_T)[None], range(self.t - self.n + 1, self.t + 1)

    def scalars(self) -> dict[str, float]:
        """Of a mean over epochs its age and effective number of snapshots."""
        return {} if self.n == 0 or self.cadence != "epoch" else kernel_scalars(*self._kernel())

    def tables(self) -> dict[str, pd.DataFrame]:
        """Of a mean over epochs its kernel."""
        return {} if self.n == 0 or self.cadence != "epoch" else {"kernel": kernel_table(*self._kernel())}

    def state_dict(self) -> State:
        return {"mean_N": None if self.mean_N is None else self.mean_N.clone(), "n": self.n, "t": self.t}

    def load_state_dict(self, state: State) -> None:
        mean_N: Tensor | None = state["mean_N"]
        self.mean_N = None if mean_N is None else mean_N.to(self.run.device, copy=True)
        self.n, self.t = state["n"], state["t"]
