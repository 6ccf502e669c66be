"""Trainable weight averaging: SGD within the span of the snapshots of a run's tail, from their mean.

Li et al., Trainable Weight Averaging: Efficient Training by Optimizing Historical Solutions (ICLR 2023):
an orthonormal basis of the uncentred snapshots, g <- P' P g, learning rate 2, momentum 0.9, weight decay 1e-5, 10
epochs. Deviation: one snapshot per epoch, the base's own, since one base serves all methods.

Shape suffixes: N weights, T snapshots of the tail, D dimensions of their span.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor

from baselines.gram import combine
from baselines.p_sgd import SubspaceSGD
from baselines.parameters import check_between, check_from, check_whole
from baselines.subspace import Coordinates, Subspace
from harness.method import Branch, Brancher, Session, State, Trajectory


@dataclass(eq=False)
class TWA(Brancher):
    """SGD on the coordinates of the tail's span, from the mean of the tail, after the end of the base.

    The tail is the fraction `tail` of the epochs, rounded, at their end. Weights are P' z, a combination of snapshots,
    so decay of z is decay of the weights. `epochs` are its own, `batch_size` too, by default the base's. ValueError
    where tail is not between 0 and 1, lr not above 0, momentum not in [0, 1), weight_decay below 0, epochs or
    batch_size below 1, or where the tail has fewer than 2 snapshots.
    """

    gradient_space = "subspace"

    tail: float = 0.3333
    lr: float = 2.0
    momentum: float = 0.9
    weight_decay: float = 1e-5
    epochs: int = 10
    batch_size: int | None = None
    snapshots: int = field(init=False, default=0)
    """how many the tail has, once `needs` was asked"""

    def __post_init__(self) -> None:
        check_between("tail", self.tail, 0, 1)
        check_between("lr", self.lr, 0)
        check_from("momentum", self.momentum, 0, 1)
        check_from("weight_decay", self.weight_decay, 0)
        check_whole("epochs", self.epochs, 1)
        if self.batch_size is not None:
            check_whole("batch_size", self.batch_size, 1)

    def branch(self, epochs: int) -> Branch:
        return Branch(start=epochs, prefix=epochs, epochs=self.epochs)

    def needs(self, epochs: int) -> tuple[int, int]:
        snapshots = round(self.tail * epochs)
        if snapshots < 2:
            raise ValueError(f"tail must leave at least 2 of {epochs} snapshots, got {self.tail}")
        self.snapshots = snapshots
        return epochs - snapshots + 1, epochs

    def memory_floats(self, N: int) -> int:
        """P, of as many rows as the tail has snapshots."""
        return self.snapshots * N

    def begin(self, session: Session) -> None:
        self.subspace = Subspace.span(session.trajectory)
        coordinates = Coordinates(self.subspace)
        with torch.no_grad():
            coordinates.z_D.copy_(self.subspace.project(mean(session.trajectory)))
        self.sgd = SubspaceSGD(session, coordinates, self.lr, self.momentum, self.weight_decay)

    def train_epoch(self, session: Session) -> None:
        self.sgd.train_epoch(session, self.batch_size)

    def tables(self) -> dict[str, pd.DataFrame]:
        return {"subspace": self.subspace.table()}

    def state_dict(self) -> State:
        return self.sgd.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.sgd.load_state_dict(state)


def mean(trajectory: Trajectory) -> Tensor:
    """The mean of all snapshots (N,), summed in float64."""
    T = len(trajectory)
    return combine(trajectory, torch.full((1, T), 1 / T, dtype=torch.float64), shift=False)[0]
