"""The mean of CMD's kernels for all weights: the sharpest control for having modes.

Post-hoc CMD (Brokman et al., ICLR 2024) is linear in the snapshots: a weight of the mode with reference x is modelled
as sum_s c(s) w(s) with c(s) = 1/T + d(s) d(t) / sum d^2, d = x - mean(x), one kernel per mode. Here every weight has
the same kernel, their mean by the weights in each mode. It sees the same snapshots, ages as much as CMD does, and has
everything of CMD but that weights differ: what CMD gains over this, its modes give.

Shape suffixes: T snapshots, M modes.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from baselines.cmd.modes import ModeReport
from baselines.cmd.posthoc import check_length, check_modes, decompose_run, mode_kernels
from baselines.gram import combine
from baselines.kernel import kernel_scalars, kernel_table, row_of, shares
from baselines.parameters import check_whole
from harness.method import Proposal, Reconstruction, Run


@dataclass(eq=False)
class CMDMeanKernel(Reconstruction):
    """Post-hoc CMD of w(first..T), of which only the size-weighted mean of the modes' kernels is kept.

    ValueError where modes is below 1 or above samples, or the run gives fewer than 3 snapshots.
    """

    modes: int = 10
    samples: int = 1000
    first: int = 1

    def __post_init__(self) -> None:
        check_modes(self.modes, self.samples)
        check_whole("first", self.first, 0)

    def needs(self, epochs: int) -> tuple[int, int]:
        check_length(epochs + 1 - self.first)
        return self.first, epochs

    def memory_floats(self, N: int) -> int:
        """While modes are found, what post-hoc CMD holds: mean, slope, correlation, and labels at one byte."""
        return 3 * N + N // 4

    def fit(self, run: Run) -> None:
        self.run = run
        self.window = run.trajectory.window(*self.needs(run.epochs))
        cmd = decompose_run(run, self.window, self.modes, self.samples)
        self.report = ModeReport.of(cmd, run.layout)
        self.share_M = shares(cmd.size_M)
        self.references_TM = cmd.references_TM

    def _kernel(self, t: int) -> Tensor:
        """Coefficients (1, T) of the snapshots that give the model of epoch t; ValueError unless t is one of them."""
        ts = self.window.ts
        return (self.share_M @ mode_kernels(self.references_TM, row_of(ts, t)))[None]

    def reconstruct(self, t: int) -> Proposal:
        return Proposal(combine(self.window, self._kernel(t), shift=False)[0])

    def scalars(self) -> dict[str, float]:
        """The modes' numbers, and the last epoch's kernel."""
        ts = self.window.ts
        return {**self.report.scalars(), **kernel_scalars(self._kernel(ts[-1]), ts)}

    def tables(self) -> dict[str, pd.DataFrame]:
        """Modes, layers, correlations, and the kernel of the last epoch."""
        ts = self.window.ts
        return self.report.tables(self.run.layout) | {"kernel": kernel_table(self._kernel(ts[-1]), ts)}
