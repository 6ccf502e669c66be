"""The base itself: stochastic gradient descent, or whatever trained it, without anything on top."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch

from baselines.kernel import kernel_table
from harness.method import Observer, Proposal, Run, Snapshot, State


@dataclass(eq=False)
class Base(Observer):
    """Proposes nothing, hence stands for the base's own weights."""

    def memory_floats(self, N: int) -> int:
        return 0

    def begin(self, run: Run) -> None:
        self.epochs = run.epochs

    def observe(self, snapshot: Snapshot) -> None:
        pass

    def propose(self) -> Proposal | None:
        return None

    def tables(self) -> dict[str, pd.DataFrame]:
        """The kernel: the last snapshot alone."""
        return {"kernel": kernel_table(torch.ones(1, 1), [self.epochs])}

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        pass
