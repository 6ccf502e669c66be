"""Principal components of the whole run: of all linear models of their rank the one with the least squared error.

The control for CMD's modes at an equal rank, or at equal storage: CMD keeps two floats and a label per weight, as much
as the mean and one component. The components are found through the T x T inner products of the snapshots, and the model
of epoch t is a combination of snapshots with c = 1/T + V V[t]', V the leading eigenvectors in columns.

Shape suffixes: T snapshots, R components.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from baselines.gram import combine, gram
from baselines.kernel import kernel_scalars, kernel_table, row_of
from baselines.parameters import check_whole
from baselines.subspace import RESOLVED
from harness.method import Proposal, Reconstruction, Run


@dataclass(eq=False)
class PCAReconstruction(Reconstruction):
    """The mean of w(1..T) and its first `rank` principal components; with rank T - 1 it is the run itself.

    Where the snapshots span fewer directions beyond rounding, it has as many as they do, which leaves nothing
    unexplained. ValueError where rank is below 1, or above T - 1.
    """

    rank: int = 1

    def __post_init__(self) -> None:
        check_whole("rank", self.rank, 1)

    def needs(self, epochs: int) -> tuple[int, int]:
        if self.rank > epochs - 1:
            raise ValueError(f"rank must be at most epochs - 1 = {epochs - 1}, got {self.rank}")
        return 1, epochs

    def fit(self, run: Run) -> None:
        self.window = run.trajectory.window(*self.needs(run.epochs))
        gram_TT = gram(self.window, shift=True)
        centred_TT = gram_TT - gram_TT.mean(0) - gram_TT.mean(1, keepdim=True) + gram_TT.mean()
        squares_T, V_TT = torch.linalg.eigh(centred_TT)
        self.squares_T = squares_T.flip(0).clamp(min=0)
        resolved = int((self.squares_T > RESOLVED * self.squares_T[0]).sum())
        V_TR = V_TT.flip(1)[:, : min(self.rank, resolved)]
        self.V_TR = V_TR - V_TR.mean(0)

    def _kernel(self, t: int) -> Tensor:
        """Coefficients (1, T) of the snapshots that give the model of epoch t; ValueError unless t is one of them."""
        ts = self.window.ts
        kernel_T: Tensor = 1 / len(ts) + self.V_TR @ self.V_TR[row_of(ts, t)]
        return kernel_T[None]

    def reconstruct(self, t: int) -> Proposal:
        return Proposal(combine(self.window, self._kernel(t), shift=False)[0])

    def scalars(self) -> dict[str, float]:
        """Components used, the share of the motion that they leave, and the last epoch's kernel."""
        used, total = self.V_TR.shape[1], float(self.squares_T.sum())
        rest = float(self.squares_T[used:].sum()) / total if total > 0 else 0.0
        ts = self.window.ts
        return {"rank": float(used), "unexplained": rest, **kernel_scalars(self._kernel(ts[-1]), ts)}

    def tables(self) -> dict[str, pd.DataFrame]:
        """The kernel of the last epoch."""
        ts = self.window.ts
        return {"kernel": kernel_table(self._kernel(ts[-1]), ts)}
