"""The mean of the weights over time, as one vector that takes in a snapshot at a time.

Shape suffix: N trainable weights.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from harness.method import Observer, Proposal, Run, Snapshot, State


class RunningMean(Observer):
    """A weighted mean mean_N += c_n (w - mean_N), where c_n is the share of the n-th snapshot taken in.

    A subclass says which snapshots count (`counts`) and their shares (`share`); c_1 is 1 by definition.
    """

    run: Run
    mean_N: Tensor | None
    n: int
    """snapshots taken in"""

    @abstractmethod
    def counts(self, snapshot: Snapshot) -> bool:
        """Whether the mean takes this snapshot in."""

    def share(self, n: int) -> float:
        """c_n; uniform unless a subclass says otherwise."""
        return 1 / n

    def begin(self, run: Run) -> None:
        self.run, self.mean_N, self.n = run, None, 0

    @torch.no_grad()
    def observe(self, snapshot: Snapshot) -> None:
        if not self.counts(snapshot):
            return
        self.n += 1
        if self.mean_N is None:
            self.mean_N = snapshot.theta_N.detach().clone()
        else:
            self.mean_N.lerp_(snapshot.theta_N, self.share(self.n))

    def propose(self) -> Proposal | None:
        return None if self.mean_N is None else Proposal(self.mean_N.clone())

    def state_dict(self) -> State:
        return {"mean_N": None if self.mean_N is None else self.mean_N.clone(), "n": self.n}

    def load_state_dict(self, state: State) -> None:
        mean_N: Tensor | None = state["mean_N"]
        self.mean_N = None if mean_N is None else mean_N.to(self.run.device, copy=True)
        self.n = state["n"]
