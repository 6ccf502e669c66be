"""Training with jumps: dynamic mode decomposition predicts the weights ahead, and training goes on from there.

Tano, Portwood and Ragusa, Accelerating training in artificial neural networks with dynamic mode decomposition
(2020, arXiv:2006.14371): train, decompose the recorded weights, jump, train again. Deviations: snapshots are those of
epochs, not of steps; the weights are decomposed as one vector, not layer by layer; a jump stays only where the loss on
a fixed slice of the training split does not rise; momentum, which belongs to where the jump came from, is forgotten.

Shape suffixes: N weights, T snapshots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from baselines.dmd.decomposition import DMD
from baselines.dmd.rank import Offset, check_rank, check_rank_fits
from baselines.parameters import check_bool, check_whole
from baselines.warmup import branch_after_warmup, check_warmup
from harness.method import Branch, Brancher, Session, State, Trajectory
from harness.snapshots import MemoryTrajectory

COLUMNS = ("epoch", "loss_before", "loss_after", "accepted", "rank_asked", "rank", "largest_modulus", "residual")


@dataclass(eq=False)
class DMDJumps(Brancher):
    """Tries to jump `ahead` epochs after the warm-up, and again after every `window` epochs of training.

    Starts at the base's state after epoch F + 1, F = `warmup`, with its optimizer and schedule. The first jump follows
    from w(1..F + 1), later ones from the state after the jump before and the `window` epochs since. BatchNorm's running
    statistics are left to the epochs that follow. ValueError where warmup or window is below 2, ahead below 1, warmup
    not below epochs - 1, rank, energy or offset out of bounds, or the rank above what the snapshots span.
    """

    warmup: int = 20
    window: int = 5
    ahead: int = 5
    rank: int | str = "energy"
    energy: float = 0.9999
    offset: Offset = "constant"
    clip: bool = True

    def __post_init__(self) -> None:
        check_warmup(self.warmup)
        check_whole("window", self.window, 2)
        check_whole("ahead", self.ahead, 1)
        check_rank(self.rank, self.energy, self.offset)
        check_rank_fits(self.rank, min(self.warmup, self.window) + 1, self.offset)
        check_bool("clip", self.clip)

    def branch(self, epochs: int) -> Branch:
        return branch_after_warmup(self.warmup, epochs)

    def needs(self, epochs: int) -> tuple[int, int]:
        return 1, self.branch(epochs).prefix

    def memory_floats(self, N: int) -> int:
        """The window's snapshots; while a jump is tried the weights before it, what it proposes, and a snapshot."""
        return (self.window + 1 + 3) * N

    def begin(self, session: Session) -> None:
        self.jumps: list[dict[str, Any]] = []
        self.seen_TN = torch.empty(self.window + 1, session.layout.N, device=session.device)
        self.seen = 0
        """snapshots since the last jump was tried"""

    def train_epoch(self, session: Session) -> None:
        if not self.jumps:
            self._try(session, session.trajectory.window(1, self.warmup + 1))
        elif self.seen == len(self.seen_TN):
            self._try(session, MemoryTrajectory(self.seen_TN))
        session.train_epoch()
        self._see(session.theta_N)

    def _see(self, theta_N: Tensor) -> None:
        self.seen_TN[self.seen] = theta_N.detach()
        self.seen += 1

    @torch.no_grad()
    def _try(self, session: Session, snapshots: Trajectory) -> None:
        """Jump, and back where the probe loss rises or is not a number; the window starts anew either way."""
        dmd = DMD.fit(snapshots, self.rank, self.energy, self.offset, session.layout)
        before = session.probe_loss()
        here_N = session.theta_N.clone()
        session.theta_N.copy_(dmd.forecast(self.ahead, self.clip))
        after = session.probe_loss()
        accepted = after <= before
        if accepted:
            session.reset_optimizer()
        else:
            session.theta_N.copy_(here_N)
        dynamics = dmd.dynamics
        values = (session.t, before, after, accepted, dynamics.rank.asked, dynamics.rank.used)
        row = (*values, dynamics.largest_modulus, dynamics.residual)
        self.jumps.append(dict(zip(COLUMNS, row, strict=True)))
        self.seen = 0
        self._see(session.theta_N)

    def scalars(self) -> dict[str, float]:
        """Jumps so far by their end, and what the latest was fitted to."""
        accepted = sum(jump["accepted"] for jump in self.jumps)
        latest = {name: float(self.jumps[-1][name]) for name in COLUMNS[4:]} if self.jumps else {}
        return {"jumps_accepted": float(accepted), "jumps_rejected": float(len(self.jumps) - accepted), **latest}

    def tables(self) -> dict[str, pd.DataFrame]:
        """`jumps`, one row each: the epoch it was tried after, probe losses before and after, whether it stayed."""
        return {"jumps": pd.DataFrame(self.jumps, columns=list(COLUMNS))}

    def state_dict(self) -> State:
        jumps = [dict(jump) for jump in self.jumps]
        return {"jumps": jumps, "seen_TN": self.seen_TN[: self.seen].clone()}

    def load_state_dict(self, state: State) -> None:
        self.jumps = [dict(jump) for jump in state["jumps"]]
        self.seen = len(state["seen_TN"])
        self.seen_TN[: self.seen] = state["seen_TN"]
