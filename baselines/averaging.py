"""The mean of the weights over time, as one vector that takes in a snapshot at a time.

Shape suffixes: N trainable weights, T snapshots taken in.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from baselines.kernel import kernel_scalars, kernel_table
from harness.method import Observer, Proposal, Run, Snapshot, State


class RunningMean(Observer):
    """A weighted mean mean_N += c_n (w - mean_N), where c_n is the share of the n-th snapshot taken in.

    A subclass says which snapshots count (`counts`), all from some first one on, and their shares (`share`); c_1 is 1
    by definition. Snapshots are taken in after every epoch, or at a cadence of 1 after every optimizer step.
    """

    run: Run
    mean_N: Tensor | None
    n: int
    """snapshots taken in"""
    t: int
    """the epoch of the last one"""
    step: int
    """the optimizer step of the last one"""

    @abstractmethod
    def counts(self, snapshot: Snapshot) -> bool:
        """Whether the mean takes this snapshot in."""

    def share(self, n: int) -> float:
        """c_n; uniform unless a subclass says otherwise."""
        return 1 / n

    def begin(self, run: Run) -> None:
        self.run, self.mean_N, self.n, self.t, self.step = run, None, 0, 0, 0

    @torch.no_grad()
    def observe(self, snapshot: Snapshot) -> None:
        if not self.counts(snapshot):
            return
        self.n += 1
        self.t, self.step = snapshot.t, snapshot.step
        if self.mean_N is None:
            self.mean_N = snapshot.theta_N.detach().clone()
        else:
            self.mean_N.lerp_(snapshot.theta_N, self.share(self.n))

    def propose(self) -> Proposal | None:
        return None if self.mean_N is None else Proposal(self.mean_N.clone())

    def _kernel(self) -> tuple[Tensor, Sequence[int] | Sequence[float]]:
        """Coefficients (1, T) of the snapshots taken in, and their epochs, with fractions where these are of steps."""
        share_T = torch.tensor([1.0, *map(self.share, range(2, self.n + 1))], dtype=torch.float64)
        # What later snapshots leave of each
        left_T = torch.cat([(1 - share_T[1:]).flip(0).cumprod(0).flip(0), torch.ones(1, dtype=torch.float64)])
        return (share_T * left_T)[None], self._epochs()

    def _epochs(self) -> Sequence[int] | Sequence[float]:
        """When the snapshots were taken in, all up to the last."""
        if self.cadence == "epoch":
            return range(self.t - self.n + 1, self.t + 1)
        return [step / self.run.steps_per_epoch for step in range(self.step - self.n + 1, self.step + 1)]

    def scalars(self) -> dict[str, float]:
        """Of a mean over epochs its age and effective number of snapshots."""
        if self.n == 0 or self.cadence != "epoch":
            return {}
        c_1T, _ = self._kernel()
        return kernel_scalars(c_1T, range(self.t - self.n + 1, self.t + 1))

    def tables(self) -> dict[str, pd.DataFrame]:
        """The kernel."""
        return {} if self.n == 0 else {"kernel": kernel_table(*self._kernel())}

    def state_dict(self) -> State:
        mean_N = None if self.mean_N is None else self.mean_N.clone()
        return {"mean_N": mean_N, "n": self.n, "t": self.t, "step": self.step}

    def load_state_dict(self, state: State) -> None:
        mean_N: Tensor | None = state["mean_N"]
        self.mean_N = None if mean_N is None else mean_N.to(self.run.device, copy=True)
        self.n, self.t = state["n"], state["t"]
        # a state of before steps were counted is of the end of an epoch
        self.step = state.get("step", self.t * self.run.steps_per_epoch)
