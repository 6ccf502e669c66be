"""Online CMD as the harness runs it: an observer that models the base from the end of its warm-up on.

Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024); the method is `baselines.cmd`'s.
Modes and references are fixed once, by post-hoc CMD over the F + 1 snapshots w(1..F+1), hence at the end of epoch
F + 1; with `include_initial` over w(0..F). The published list of snapshots starts after the first epoch, so the former
is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch

from baselines.cmd.buffers import extended, join, split
from baselines.cmd.modes import ModeReport
from baselines.cmd.online_recursion import OnlineFit, check_online
from baselines.cmd.posthoc import decompose_run
from baselines.finite import check_finite
from baselines.kernel import kernel_table
from baselines.warmup import warmup_snapshots
from harness.method import Observer, Proposal, Run, Snapshot, State


@dataclass(eq=False)
class CMDOnline(Observer):
    """CMD with a warm-up of F = `warmup` epochs; before its end it proposes nothing.

    A snapshot counts `forgetting` ** k after k later ones, those of the warm-up alike. ValueError where modes is below
    1 or above samples, warmup is below 2 or not below the base's epochs, or forgetting is not above 0 and at most 1.
    """

    modes: int = 10
    samples: int = 1000
    warmup: int = 20
    include_initial: bool = False
    forgetting: float = 1.0
    model_buffers: bool = False

    def __post_init__(self) -> None:
        own = self.include_initial, self.forgetting, self.model_buffers
        check_online(self.modes, self.samples, self.warmup, *own)

    @property
    def proposes_buffers(self) -> bool:  # type: ignore[override]
        return self.model_buffers

    def needs(self, epochs: int) -> tuple[int, int]:
        first, last = warmup_snapshots(self.warmup, epochs)
        return (first - 1, last - 1) if self.include_initial else (first, last)

    def memory_floats(self, N: int) -> int:
        """Mean, covariance, and the modes' labels at one byte."""
        return 2 * N + N // 4

    def begin(self, run: Run) -> None:
        self.run = run
        self.window = self.needs(run.epochs)
        self.online: OnlineFit | None = None
        self.report: ModeReport | None = None
        self.own: Proposal | None = None
        """with `model_buffers`, the base's latest buffers, and during the warm-up its weights"""

    def observe(self, snapshot: Snapshot) -> None:
        first, last = self.window
        if self.model_buffers:
            theta_N = snapshot.theta_N[:0] if snapshot.t >= last else snapshot.theta_N
            self.own = Proposal(theta_N.clone(), {name: b.clone() for name, b in snapshot.buffers.items()})
        if snapshot.t < last:
            return
        if self.online is None:
            window = self.run.trajectory.window(first, last)
            cmd = decompose_run(self.run, window, self.modes, self.samples, self.model_buffers)
            self.report = ModeReport.of(cmd, self.run.layout)
            self.online = OnlineFit.start(cmd, snapshot.theta_N.device, self.forgetting)
            return
        theta_N, layout = snapshot.theta_N, self.run.layout
        if self.model_buffers:
            theta_N, layout = join(theta_N, snapshot.buffers), extended(layout, snapshot.buffers)
        check_finite(theta_N, snapshot.t, layout)
        self.online.update(theta_N)

    def propose(self) -> Proposal | None:
        """During the warm-up None, or with `model_buffers`, where a proposal must carry some, the base's own state."""
        if self.own is not None and self.own.buffers is not None:
            if self.online is None:
                return Proposal(self.own.theta_N.clone(), {n: b.clone() for n, b in self.own.buffers.items()})
            return split(self.online.model_N(), self.run.layout.N, self.own.buffers)
        return None if self.online is None else Proposal(self.online.model_N())

    def scalars(self) -> dict[str, float]:
        return {} if self.report is None else self.report.scalars()

    def tables(self) -> dict[str, pd.DataFrame]:
        """Modes, layers, correlations at the fit, and the kernel of every mode at the last epoch."""
        if self.report is None or self.online is None:
            return {}
        kernel_MT = self.online.kernels()
        if kernel_MT is None:
            return self.report.tables(self.run.layout)
        ts = range(self.window[0], self.window[0] + kernel_MT.shape[1])
        kernel = kernel_table(kernel_MT, ts, torch.tensor(self.report.size_M))
        return self.report.tables(self.run.layout) | {"kernel": kernel}

    def fitted(self) -> State:
        return {} if self.online is None else self.online.state_dict()

    def state_dict(self) -> State:
        """During the warm-up, whose snapshots come again with the run's trajectory, only what `model_buffers` keeps."""
        state: State = {}
        if self.own is not None and self.own.buffers is not None:
            state["own"] = {"theta_N": self.own.theta_N.clone(), **{n: b.clone() for n, b in self.own.buffers.items()}}
        if self.online is not None and self.report is not None:
            state |= {"online": self.online.state_dict(), "report": self.report.state_dict()}
        return state

    def load_state_dict(self, state: State) -> None:
        if "own" in state:
            own = {name: tensor.to(self.run.device, copy=True) for name, tensor in state["own"].items()}
            self.own = Proposal(own.pop("theta_N"), own)
        if "online" in state:
            self.online = OnlineFit.from_state(state["online"], self.run.device)
            self.report = ModeReport(**state["report"])
