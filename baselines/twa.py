"""Trainable weight averaging: SGD within the span of the snapshots of a run's tail, from their mean.

Li et al., Trainable Weight Averaging: Efficient Training by Optimizing Historical Solutions (ICLR 2023):
an orthonormal basis of the uncentred snapshots, g <- P' P g, learning rate 2, momentum 0.9, weight decay 1e-5, 10
epochs E, a tenth of the rate from int(0.5 E) and again from int(0.75 E + 0.9) on, as the release's schedule `step` has
it. Deviation: one snapshot per epoch, the base's own, since one base serves all methods.

Shape suffixes: N weights, T snapshots of the tail, D dimensions of their span.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import pandas as pd
import torch
from torch import Tensor

from baselines.gram import combine
from baselines.p_sgd import SubspaceSGD
from baselines.parameters import check_between, check_choice, check_from, check_share, check_whole
from baselines.subspace import Coordinates, Subspace
from harness.method import Branch, Brancher, Session, State, Trajectory

StepSchedule = Literal["step", "constant"]


@dataclass(eq=False)
class TWA(Brancher):
    """SGD on the coordinates of the tail's span, from the mean of the tail.

    It leaves the base after the fraction `start` of its epochs, rounded, by default at its end. The tail are the last
    snapshots up to there, as many as the fraction `tail` of the base's epochs, rounded. Weights are P' z, a combination
    of snapshots, so decay of z is decay of the weights. `epochs` are its own, null for those that the start leaves of
    the base's; `schedule` lowers the rate as published or keeps it; `batch_size` is by default the base's. ValueError
    where start is not in (0, 1], tail not between 0 and 1, lr not above 0, momentum not in [0, 1), weight_decay below
    0, the schedule not known, epochs or batch_size below 1, where the tail has fewer than 2 snapshots or more than
    there are up to the start, or where no epoch is left to train.
    """

    gradient_space = "subspace"

    start: float = 1.0
    tail: float = 0.3333
    lr: float = 2.0
    momentum: float = 0.9
    weight_decay: float = 1e-5
    epochs: int | None = 10
    schedule: StepSchedule = "step"
    batch_size: int | None = None
    snapshots: int = field(init=False, default=0)
    """how many the tail has, once `needs` was asked"""

    def __post_init__(self) -> None:
        check_share("start", self.start)
        check_between("tail", self.tail, 0, 1)
        check_between("lr", self.lr, 0)
        check_from("momentum", self.momentum, 0, 1)
        check_from("weight_decay", self.weight_decay, 0)
        check_choice("schedule", self.schedule, get_args(StepSchedule))
        for name in ("epochs", "batch_size"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)

    def branch(self, epochs: int) -> Branch:
        start = round(self.start * epochs)
        own = epochs - start if self.epochs is None else self.epochs
        if own < 1:
            raise ValueError(f"start must leave at least 1 of {epochs} epochs where epochs is null, got {self.start}")
        return Branch(start=start, prefix=start, epochs=own)

    def needs(self, epochs: int) -> tuple[int, int]:
        snapshots, start = round(self.tail * epochs), self.branch(epochs).start
        if snapshots < 2:
            raise ValueError(f"tail must leave at least 2 of {epochs} snapshots, got {self.tail}")
        if snapshots > start:
            raise ValueError(f"tail must ask for at most the {start} snapshots up to start, got {self.tail}")
        self.snapshots = snapshots
        return start - snapshots + 1, start

    def memory_floats(self, N: int) -> int:
        """P, of as many rows as the tail has snapshots."""
        return self.snapshots * N

    def begin(self, session: Session) -> None:
        self.subspace = Subspace.span(session.trajectory)
        coordinates = Coordinates(self.subspace)
        with torch.no_grad():
            coordinates.z_D.copy_(self.subspace.project(mean(session.trajectory)))
        milestones = published_milestones(session.branch.epochs) if self.schedule == "step" else ()
        self.sgd = SubspaceSGD(session, coordinates, self.lr, self.momentum, self.weight_decay, milestones)

    def train_epoch(self, session: Session) -> None:
        self.sgd.train_epoch(session, self.batch_size)

    def tables(self) -> dict[str, pd.DataFrame]:
        return {"subspace": self.subspace.table()}

    def state_dict(self) -> State:
        return self.sgd.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.sgd.load_state_dict(state)


def published_milestones(epochs: int) -> tuple[int, int]:
    """Own epochs after which the rate falls to a tenth, of so many; 0 is from the start on."""
    return int(0.5 * epochs), int(0.75 * epochs + 0.9)


def mean(trajectory: Trajectory) -> Tensor:
    """The mean of all snapshots (N,), summed in float64."""
    T = len(trajectory)
    return combine(trajectory, torch.full((1, T), 1 / T, dtype=torch.float64), shift=False)[0]
