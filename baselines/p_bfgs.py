"""P-BFGS: BFGS within the subspace of a warm-up.

Li et al., Low Dimensional Trajectory Hypothesis is True: DNNs Can Be Trained in Tiny Subspaces (TPAMI 2022): 20 epochs
in batches of 1024, backtracking with rho = sigma = 0.4. Where and why we deviate is said in `bfgs`. H persists over
mini-batches and epochs, and every mini-batch of an epoch takes a step.

Shape suffixes: N weights, D dimensions of the subspace.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from baselines.bfgs import BFGS, Step, check_search
from baselines.dldr import DLDR
from baselines.subspace import Subspace
from harness.method import Batch, Session, State


@dataclass(eq=False)
class PBFGS(DLDR):
    """BFGS on the coordinates of the subspace; see `DLDR` for where it starts.

    It takes a step per mini-batch, published about 50 an epoch: few where epochs are short or mini-batches large. A
    mini-batch costs its gradient, a forward pass per point tried, and a gradient at the point accepted. BatchNorm's
    running statistics stay those of the start: its buffers mean nothing until they are recalibrated. ValueError also
    where rho or sigma are not between 0 and 1, or tries is below 1.
    """

    rho: float = 0.4
    sigma: float = 0.4
    tries: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        check_search(self.rho, self.sigma, self.tries)

    def memory_floats(self, N: int) -> int:
        """P, the origin and the weights that an exhausted search goes back to."""
        return (self.dimensions + 2) * N

    def begin(self, session: Session) -> None:
        super().begin(session)
        self.bfgs = BFGS(self.dimensions, self.rho, self.sigma, self.tries)
        self.z_D = torch.zeros(self.dimensions, dtype=torch.float64)
        self.epochs_done: list[dict[str, float]] = []

    def train_epoch(self, session: Session) -> None:
        steps = [self._step(session, batch) for batch in session.batches(self.batch_size)]
        accepted = sum(step.accepted for step in steps)
        row = {
            "epoch": session.t + 1,
            "searches": len(steps),
            "tries": sum(step.tries for step in steps),
            "accepted": accepted,
            "exhausted": len(steps) - accepted,
            "skipped_updates": accepted - sum(step.updated for step in steps),
            "batch_loss": sum(step.loss for step in steps) / len(steps),
        }
        self.epochs_done.append(row)

    def _step(self, session: Session, batch: Batch) -> Step:
        """One mini-batch; the weights are then at z, those from before to the last bit where no step was taken."""
        point = Point(session, batch, self.subspace, self.origin_N, self.z_D)
        backup_N = session.theta_N.detach().clone()
        step = self.bfgs.step(self.z_D, point.loss, point.gradient)
        if not step.accepted:
            session.theta_N = backup_N
        self.z_D = step.z_D
        return step

    def scalars(self) -> dict[str, float]:
        """The latest epoch's tries per search, steps, exhausted searches (each resets H), mean loss before a step."""
        if not self.epochs_done:
            return {}
        last = self.epochs_done[-1]
        return {
            "line_search_tries": last["tries"] / last["searches"],
            "accepted_steps": float(last["accepted"]),
            "exhausted_searches": float(last["exhausted"]),
            "skipped_updates": float(last["skipped_updates"]),
            "batch_loss": float(last["batch_loss"]),
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        return {**super().tables(), "line_search": pd.DataFrame(self.epochs_done)}

    def state_dict(self) -> State:
        return {
            "z_D": self.z_D.clone(),
            **self.bfgs.state_dict(),
            "epochs_done": [dict(row) for row in self.epochs_done],
        }

    def load_state_dict(self, state: State) -> None:
        self.z_D = state["z_D"].to("cpu", copy=True)
        self.bfgs.load_state_dict(state)
        self.epochs_done = [dict(row) for row in state["epochs_done"]]


class Point:
    """One mini-batch's loss as a function of coordinates; the session's weights follow the point last asked for."""

    def __init__(self, session: Session, batch: Batch, subspace: Subspace, origin_N: Tensor, at_D: Tensor) -> None:
        self.session = session
        self.batch = batch
        self.subspace = subspace
        self.origin_N = origin_N
        self.at_D = at_D

    def _move(self, z_D: Tensor) -> None:
        if z_D is not self.at_D:
            self.session.theta_N = self.subspace.lift(z_D).add_(self.origin_N)
            self.at_D = z_D

    def loss(self, z_D: Tensor) -> float:
        self._move(z_D)
        return self.session.loss(self.batch)

    def gradient(self, z_D: Tensor) -> tuple[float, Tensor]:
        """Loss and its gradient (D,) in the subspace, float64 on the CPU."""
        self._move(z_D)
        loss, g_N = self.session.gradient(self.batch)
        return loss, self.subspace.project(g_N).to("cpu", torch.float64)
