"""Post-hoc CMD as the harness runs it: a reconstruction of the whole run.

Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from baselines.cmd.fit import BLOCK_BYTES, CMDModel, check_length, fit
from baselines.cmd.report import ModeReport
from baselines.cmd.sampling import constant_weights, sample_weights
from baselines.parameters import check_bool, check_whole
from harness.method import Proposal, Reconstruction, Run, Trajectory


def fit_run(run: Run, trajectory: Trajectory, modes: int, samples: int) -> CMDModel:
    """CMD of a window of a run's trajectory, on a sample drawn from the run's own randomness."""
    check_length(len(trajectory))
    constant_C = constant_weights(trajectory, run.layout, BLOCK_BYTES // 2)
    sample_K = sample_weights(run.layout.N, run.layout, samples, constant_C, run.rng("cmd/sample"))
    return fit(trajectory, modes, sample_K)


def check_modes(modes: int, samples: int, include_initial: bool) -> None:
    """What both forms of CMD ask of their parameters; ValueError."""
    check_whole("modes", modes, 1)
    check_whole("samples", samples, 1)
    check_bool("include_initial", include_initial)
    if modes > samples:
        raise ValueError(f"modes must be at most samples = {samples}, got {modes}")


@dataclass(eq=False)
class CMDPosthoc(Reconstruction):
    """CMD of w(1..T), or w(0..T) with `include_initial`: `modes` references out of `samples` clustered weights.

    ValueError where modes is below 1 or above samples, or the run gives fewer than 3 snapshots.
    """

    modes: int = 10
    samples: int = 1000
    include_initial: bool = False

    def __post_init__(self) -> None:
        check_modes(self.modes, self.samples, self.include_initial)

    def needs(self, epochs: int) -> tuple[int, int]:
        first = 0 if self.include_initial else 1
        check_length(epochs + 1 - first)
        return first, epochs

    def memory_floats(self, N: int) -> int:
        """Mean, slope, correlation, and the modes' labels at one byte."""
        return 3 * N + N // 4

    def fit(self, run: Run) -> None:
        window = run.trajectory.window(*self.needs(run.epochs))
        self.ts = window.ts
        self.layout = run.layout
        self.model = fit_run(run, window, self.modes, self.samples)
        self.report = ModeReport.of(self.model)

    def reconstruct(self, t: int) -> Proposal:
        if t not in self.ts:
            raise ValueError(f"t must be in {self.ts[0]}..{self.ts[-1]}, got {t}")
        return Proposal(self.model.reconstruct(self.ts.index(t)))

    def scalars(self) -> dict[str, float]:
        return self.report.scalars()

    def tables(self) -> dict[str, pd.DataFrame]:
        return {"modes": self.report.table(self.layout)}
