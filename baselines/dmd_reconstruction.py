"""Dynamic mode decomposition as the harness runs it in-sample: a reconstruction of the whole run."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from baselines.dmd.decomposition import DMD
from baselines.dmd.rank import Offset, check_rank, check_rank_fits
from harness.method import Proposal, Reconstruction, Run


@dataclass(eq=False)
class DMDReconstruction(Reconstruction):
    """DMD of w(1..T) at rank `rank`, by default as many directions as post-hoc CMD has modes.

    ValueError where rank, energy or offset are out of bounds, or the run gives fewer than 3 snapshots or than the rank
    needs.
    """

    rank: int | str = 10
    energy: float = 0.9999
    offset: Offset = "constant"

    needs_even_steps = True

    def __post_init__(self) -> None:
        check_rank(self.rank, self.energy, self.offset)

    def needs(self, epochs: int) -> tuple[int, int]:
        if epochs < 3:
            raise ValueError(f"epochs must give DMD at least 3 snapshots, got {epochs}")
        check_rank_fits(self.rank, epochs, self.offset)
        return 1, epochs

    def memory_floats(self, N: int) -> int:
        """A snapshot and what is combined from all; blocks of weights beside them."""
        return 2 * N

    def fit(self, run: Run) -> None:
        window = run.trajectory.window(*self.needs(run.epochs))
        self.dmd = DMD.fit(window, self.rank, self.energy, self.offset, run.layout)

    def reconstruct(self, t: int) -> Proposal:
        return Proposal(self.dmd.reconstruct(t))

    def scalars(self) -> dict[str, float]:
        return self.dmd.dynamics.scalars()

    def tables(self) -> dict[str, pd.DataFrame]:
        return self.dmd.dynamics.tables()
