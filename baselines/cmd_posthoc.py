"""Post-hoc CMD as the harness runs it: a reconstruction of the whole run.

Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024); the method is `baselines.cmd`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from baselines.cmd.analysis import Chosen, analysis, two_mode_plane
from baselines.cmd.buffers import split
from baselines.cmd.clustering import find_modes
from baselines.cmd.modes import ModeReport
from baselines.cmd.posthoc import CMD, FindModes, check_length, check_modes, decompose_run, mode_kernels
from baselines.kernel import kernel_scalars, kernel_table
from baselines.parameters import check_bool, check_whole
from harness.method import Plane, Proposal, Reconstruction, Run, State


@dataclass(eq=False)
class CMDPosthoc(Reconstruction):
    """CMD of w(first..T), or w(0..T) with `include_initial`: `modes` references out of `samples` clustered weights.

    ValueError where modes is below 1 or above samples, or the run gives fewer than 3 snapshots.
    """

    modes: int = 10
    samples: int = 1000
    include_initial: bool = False
    first: int = 1
    model_buffers: bool = False

    analyses: ClassVar[bool] = True
    """whether tables and the plane show more than the modes"""

    def __post_init__(self) -> None:
        check_modes(self.modes, self.samples)
        check_bool("include_initial", self.include_initial)
        check_whole("first", self.first, 0)
        check_bool("model_buffers", self.model_buffers)
        if self.include_initial and self.first > 1:
            raise ValueError(f"first must be 0 or 1 where include_initial is true, got {self.first}")

    @property
    def proposes_buffers(self) -> bool:  # type: ignore[override]
        return self.model_buffers

    def needs(self, epochs: int) -> tuple[int, int]:
        first = 0 if self.include_initial else self.first
        check_length(epochs + 1 - first)
        return first, epochs

    def memory_floats(self, N: int) -> int:
        """While it is fitted mean, slope, correlation, and the modes' labels at one byte."""
        return 3 * N + N // 4

    def fit(self, run: Run) -> None:
        self.run = run
        self.window = run.trajectory.window(*self.needs(run.epochs))
        cmd = self._decompose()
        self.report = ModeReport.of(cmd, run.layout)
        self.chosen = Chosen.of(cmd, self.report, run) if self.analyses else None
        self.cmd = cmd.without_rho()

    def _decompose(self) -> CMD:
        find = self._find(self.run)
        return decompose_run(self.run, self.window, self.modes, self.samples, self.model_buffers, find)

    def _find(self, run: Run) -> FindModes:
        """How modes and references are chosen out of the sample."""
        return find_modes

    def reconstruct(self, t: int) -> Proposal:
        ts = self.cmd.ts
        if t not in ts:
            raise ValueError(f"t must be in {ts[0]}..{ts[-1]}, got {t}")
        theta_E = self.cmd.reconstruct(t)
        if not self.model_buffers:
            return Proposal(theta_E)
        return split(theta_E, self.run.layout.N, self.window[ts.index(t)].buffers)

    def scalars(self) -> dict[str, float]:
        """The modes' numbers, and the age and effective number of snapshots of the last epoch's kernels."""
        kernel_MT = mode_kernels(self.cmd.references_TM, -1)
        return {**self.report.scalars(), **kernel_scalars(kernel_MT, self.cmd.ts, self.cmd.size_M)}

    def tables(self) -> dict[str, pd.DataFrame]:
        """Modes, layers, correlations against surrogates, kernels, the sample, weights over time, what fits leave."""
        kernel_MT = mode_kernels(self.cmd.references_TM, -1)
        own = self.report.tables(self.run.layout) | {"kernel": kernel_table(kernel_MT, self.cmd.ts, self.cmd.size_M)}
        return own if self.chosen is None else own | analysis(self.cmd, self.report, self.chosen, self.window, self.run)

    def plane(self) -> Plane | None:
        """The loss over the references of the two largest modes."""
        return two_mode_plane(self.cmd, self.run.layout.N) if self.analyses else None

    def fitted(self) -> State:
        """All of CMD, found again: the correlations of all weights are not held after `fit`."""
        return {"ts": list(self.cmd.ts), **self._decompose().tensors()}
