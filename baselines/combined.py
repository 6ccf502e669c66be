"""Reconstructions that choose one combination of snapshots from the whole run, and give it for every epoch.

Shape suffix: T snapshots.
"""

from __future__ import annotations

from abc import abstractmethod

import pandas as pd
from torch import Tensor

from baselines.gram import combine
from baselines.kernel import kernel_scalars, kernel_table
from harness.method import Proposal, Reconstruction, Run, Trajectory


class Combined(Reconstruction):
    """The weights sum_t c(t) w(t), where a subclass finds c (T,), float64, over the window that it reads."""

    window: Trajectory
    c_T: Tensor

    @abstractmethod
    def needs(self, epochs: int) -> tuple[int, int]: ...

    @abstractmethod
    def find(self, run: Run) -> Tensor:
        """The coefficients c (T,) of the snapshots of `window`, in sum 1."""

    def fit(self, run: Run) -> None:
        self.window = run.trajectory.window(*self.needs(run.epochs))
        self.c_T = self.find(run)

    def reconstruct(self, t: int) -> Proposal:
        return Proposal(combine(self.window, self.c_T[None], shift=False)[0])

    def scalars(self) -> dict[str, float]:
        """Age and effective number of snapshots."""
        return kernel_scalars(self.c_T[None], self.window.ts)

    def tables(self) -> dict[str, pd.DataFrame]:
        """The kernel."""
        return {"kernel": kernel_table(self.c_T[None], self.window.ts)}


def check_first(first: int, epochs: int, least: int = 1) -> tuple[int, int]:
    """The window first..epochs of a base; ValueError where it has fewer than `least` snapshots."""
    if first > epochs + 1 - least:
        raise ValueError(f"first must be at most {epochs + 1 - least} in {epochs} epochs, got {first}")
    return first, epochs
