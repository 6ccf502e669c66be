"""Online CMD as the harness runs it: an observer that models the base from the end of its warm-up on.

Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024). Modes and references are fixed
once, by post-hoc CMD over the F + 1 snapshots w(1..F+1), hence at the end of epoch F + 1; with `include_initial` over
w(0..F). The published list of snapshots starts after the first epoch, so the former is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch

from baselines.cmd.posthoc import check_modes, fit_run
from baselines.cmd.recursion import OnlineFit
from baselines.cmd.report import ModeReport
from baselines.cmd.sampling import non_finite
from baselines.parameters import check_whole
from harness.method import Observer, Proposal, Run, Snapshot, State


@dataclass(eq=False)
class CMDOnline(Observer):
    """CMD with a warm-up of F = `warmup` epochs; before its end it proposes nothing.

    ValueError where modes is below 1 or above samples, or warmup is below 2 or not below the base's epochs.
    """

    modes: int = 10
    samples: int = 1000
    warmup: int = 20
    include_initial: bool = False

    def __post_init__(self) -> None:
        check_modes(self.modes, self.samples, self.include_initial)
        # F + 1 snapshots, and among fewer than 3 every correlation is 1
        check_whole("warmup", self.warmup, 2)

    def needs(self, epochs: int) -> tuple[int, int]:
        if self.warmup >= epochs:
            raise ValueError(f"warmup must be below epochs = {epochs}, got {self.warmup}")
        return (0, self.warmup) if self.include_initial else (1, self.warmup + 1)

    def memory_floats(self, N: int) -> int:
        """Mean, covariance, and the modes' labels at one byte."""
        return 2 * N + N // 4

    def begin(self, run: Run) -> None:
        self.run = run
        self.window = self.needs(run.epochs)
        self.online: OnlineFit | None = None
        self.report: ModeReport | None = None

    def observe(self, snapshot: Snapshot) -> None:
        first, last = self.window
        if snapshot.t < last:
            return
        if self.online is None:
            model = fit_run(self.run, self.run.trajectory.window(first, last), self.modes, self.samples)
            self.report = ModeReport.of(model)
            self.online = OnlineFit.start(model, snapshot.theta_N.device)
            return
        if not all(torch.isfinite(bound) for bound in snapshot.theta_N.aminmax()):
            weight = int((~torch.isfinite(snapshot.theta_N)).nonzero()[0])
            raise ValueError(non_finite(snapshot.t, self.run.layout, weight))
        self.online.update(snapshot.theta_N)

    def propose(self) -> Proposal | None:
        return None if self.online is None else Proposal(self.online.model_N())

    def scalars(self) -> dict[str, float]:
        return {} if self.report is None else self.report.scalars()

    def tables(self) -> dict[str, pd.DataFrame]:
        return {} if self.report is None else {"modes": self.report.table(self.run.layout)}

    def state_dict(self) -> State:
        """Empty during the warm-up, whose snapshots come again with the run's trajectory."""
        if self.online is None or self.report is None:
            return {}
        return {"online": self.online.state_dict(), "report": self.report.state_dict()}

    def load_state_dict(self, state: State) -> None:
        if "online" in state:
            self.online = OnlineFit.from_state(state["online"], self.run.device)
            self.report = ModeReport(**state["report"])
