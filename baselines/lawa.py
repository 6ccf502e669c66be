"""Latest weight averaging: the mean of the k most recent snapshots, taken every so often.

Kaddour, Stop Wasting My Time! Saving Days of ImageNet and BERT Training with Latest Weight Averaging (NeurIPS 2022
workshop) averages the ends of epochs; Ajroldi et al., When, Where and Why to Average Weights? (ICML 2025) the states
after every so many optimizer steps, here `every`. While fewer than k have come, the mean is over those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from baselines.kernel import kernel_scalars, kernel_table
from baselines.parameters import check_between, check_from, check_whole
from harness.method import Observer, Proposal, Run, Snapshot, State


@dataclass(eq=False)
class LAWA(Observer):
    """The uniform mean of the latest `k` snapshots: of the ends of epochs, or of the states after `every` steps.

    `every` is null for epochs, a number of optimizer steps, or below 1 a share of all steps of the run, which comes to
    at least one. The first `start` of the run counts for nothing. ValueError where k is below 1, every is not a whole
    number from 1 on or a share between 0 and 1, or start is not at least 0 and below 1.
    """

    k: int = 5
    every: int | float | None = None
    start: float = 0.0

    def __post_init__(self) -> None:
        check_whole("k", self.k, 1)
        if isinstance(self.every, float):
            check_between("every", self.every, 0, 1)
        elif self.every is not None:
            check_whole("every", self.every, 1)
        check_from("start", self.start, 0, 1)
        self.cadence = "epoch" if self.every is None else 1

    def memory_floats(self, N: int) -> int:
        return self.k * N

    def begin(self, run: Run) -> None:
        self.run = run
        self.t = 0
        steps = run.epochs * run.steps_per_epoch
        self.stride = max(1, round(self.every * steps)) if isinstance(self.every, float) else self.every
        """steps between two snapshots, None for epochs"""
        # rounded, since 0.07 * 100 is above 7 in floating point
        self.after = round(self.start * steps, 9)
        """the step from which on snapshots count"""
        self.latest_N: deque[Tensor] = deque(maxlen=self.k)
        """the snapshots themselves, oldest first: a sliding window must forget, so a sum is not enough"""
        self.last = 0
        """the step of the last one"""

    def observe(self, snapshot: Snapshot) -> None:
        self.t = snapshot.t
        due = snapshot.t >= 1 if self.stride is None else snapshot.step >= 1 and snapshot.step % self.stride == 0
        if due and snapshot.step >= self.after:
            self.latest_N.append(snapshot.theta_N.detach().clone())
            self.last = snapshot.step

    def propose(self) -> Proposal | None:
        if len(self.latest_N) == 0:
            return None
        mean_N = torch.zeros_like(self.latest_N[0])
        for n, theta_N in enumerate(self.latest_N, start=1):
            mean_N.lerp_(theta_N, 1 / n)
        return Proposal(mean_N)

    def _epochs(self) -> Sequence[int] | Sequence[float]:
        """When the snapshots in the mean were taken."""
        count = len(self.latest_N)
        if self.stride is None:
            return range(self.t - count + 1, self.t + 1)
        steps = range(self.last - self.stride * (count - 1), self.last + 1, self.stride)
        return [step / self.run.steps_per_epoch for step in steps]

    def _coefficients(self) -> Tensor:
        """Of the snapshots in the mean, (1, how many)."""
        count = len(self.latest_N)
        return torch.full((1, count), 1 / count, dtype=torch.float64)

    def scalars(self) -> dict[str, float]:
        """Of a mean over epochs its age and effective number of snapshots."""
        if not self.latest_N or self.stride is not None:
            return {}
        return kernel_scalars(self._coefficients(), range(self.t - len(self.latest_N) + 1, self.t + 1))

    def tables(self) -> dict[str, pd.DataFrame]:
        """The kernel."""
        return {"kernel": kernel_table(self._coefficients(), self._epochs())} if self.latest_N else {}

    def state_dict(self) -> State:
        return {"latest_N": list(self.latest_N), "t": self.t, "last": self.last}

    def load_state_dict(self, state: State) -> None:
        self.t = state["t"]
        self.last = state.get("last", 0)  # a state of before steps were counted is of epochs
        self.latest_N = deque((theta_N.to(self.run.device) for theta_N in state["latest_N"]), maxlen=self.k)
