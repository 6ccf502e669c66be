"""Post-hoc CMD as the harness runs it: a reconstruction of the whole run.

Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from baselines.cmd.buffers import WithBuffers, extended, split
from baselines.cmd.fit import BLOCK_BYTES, CMDModel, check_length, fit
from baselines.cmd.report import ModeReport
from baselines.cmd.sampling import sample_trajectories
from baselines.parameters import check_bool, check_whole
from harness.method import Proposal, Reconstruction, Run, State, Trajectory


def fit_run(run: Run, trajectory: Trajectory, modes: int, samples: int, model_buffers: bool = False) -> CMDModel:
    """CMD of a window of a run's trajectory, on a sample drawn from the run's own randomness.

    With `model_buffers` the model is of weights and buffers, see `buffers`; references are weights.
    """
    check_length(len(trajectory))
    layout, rng = run.layout, run.rng("cmd/sample")
    sample_K, x_TK = sample_trajectories(trajectory, layout.N, layout, samples, rng, BLOCK_BYTES)
    if not model_buffers:
        return fit(trajectory, modes, sample_K, BLOCK_BYTES, layout, x_TK)
    layout_E = extended(layout, trajectory[0].buffers)
    return fit(WithBuffers(trajectory), modes, sample_K, BLOCK_BYTES, layout_E, x_TK)


def check_modes(modes: int, samples: int, include_initial: bool = False) -> None:
    """What all forms of CMD ask of their parameters; ValueError."""
    check_whole("modes", modes, 1)
    check_whole("samples", samples, 1)
    check_bool("include_initial", include_initial)
    if modes > samples:
        raise ValueError(f"modes must be at most samples = {samples}, got {modes}")


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

    def __post_init__(self) -> None:
        check_modes(self.modes, self.samples, self.include_initial)
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
        """Mean, slope, correlation, and the modes' labels at one byte."""
        return 3 * N + N // 4

    def fit(self, run: Run) -> None:
        window = run.trajectory.window(*self.needs(run.epochs))
        self.window = window
        self.layout = run.layout
        self.model = fit_run(run, window, self.modes, self.samples, self.model_buffers)
        self.report = ModeReport.of(self.model, run.layout)

    def reconstruct(self, t: int) -> Proposal:
        ts = self.window.ts
        if t not in ts:
            raise ValueError(f"t must be in {ts[0]}..{ts[-1]}, got {t}")
        theta_E = self.model.reconstruct(ts.index(t))
        if not self.model_buffers:
            return Proposal(theta_E)
        return split(theta_E, self.layout.N, self.window[ts.index(t)].buffers)

    def scalars(self) -> dict[str, float]:
        return self.report.scalars()

    def tables(self) -> dict[str, pd.DataFrame]:
        return self.report.tables(self.layout)

    def fitted(self) -> State:
        return {"ts": list(self.window.ts), **vars(self.model)}
