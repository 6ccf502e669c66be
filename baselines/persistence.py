"""The weights at the end of the warm-up, held from then on: the control for every forecast from the warm-up alone.

Who predicts w(t) from w(1..F+1), as `dmd` and `cmd_dmd` do, must come closer to it, or do better, than who says that
nothing changes any more.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from baselines.kernel import kernel_table
from baselines.warmup import check_warmup, warmup_snapshots
from harness.method import Observer, Proposal, Run, Snapshot, State


@dataclass(eq=False)
class Persistence(Observer):
    """w(F + 1) from the end of epoch F + 1 on, F = `warmup`; before that nothing.

    It reads the base no further and is charged so many epochs. ValueError where warmup is below 2 or not below the
    base's epochs.
    """

    warmup: int = 20

    def __post_init__(self) -> None:
        check_warmup(self.warmup)

    def needs(self, epochs: int) -> None:
        """No stored snapshot; ValueError where the base ends before the warm-up does."""
        warmup_snapshots(self.warmup, epochs)

    def epochs_read(self, epochs: int) -> int:
        return self.warmup + 1

    def begin(self, run: Run) -> None:
        self.run = run
        self.held_N: Tensor | None = None

    def observe(self, snapshot: Snapshot) -> None:
        if snapshot.t == self.warmup + 1:
            self.held_N = snapshot.theta_N.detach().clone()

    def propose(self) -> Proposal | None:
        return None if self.held_N is None else Proposal(self.held_N.clone())

    def tables(self) -> dict[str, pd.DataFrame]:
        """The kernel: the snapshot that is held, alone."""
        return {"kernel": kernel_table(torch.ones(1, 1), [self.warmup + 1])}

    def state_dict(self) -> State:
        return {"held_N": None if self.held_N is None else self.held_N.clone()}

    def load_state_dict(self, state: State) -> None:
        held_N: Tensor | None = state["held_N"]
        self.held_N = None if held_N is None else held_N.to(self.run.device, copy=True)
