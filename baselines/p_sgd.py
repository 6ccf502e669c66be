"""P-SGD: SGD within the subspace of a warm-up.

Li et al., Low Dimensional Trajectory Hypothesis is True: DNNs Can Be Trained in Tiny Subspaces (TPAMI 2022):
g <- P' P g, learning rate 1, momentum 0.9, batches of 128, a tenth of the rate from epochs 30 and 50 on. The release
trains 40 epochs, so that it never reaches the second. Deviation: the coordinates are what is trained (see
`subspace.Coordinates`).

Shape suffixes: N weights, D dimensions of the subspace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from baselines.dldr import DLDR
from baselines.parameters import check_between, check_from, check_whole
from baselines.subspace import Coordinates
from harness.method import Session, State


class SubspaceSGD:
    """SGD with momentum on coordinates, in the session's own loop; made in a brancher's `begin`.

    The rate falls to a tenth after each own epoch of `milestones`. Weight decay acts on z, which is its projection
    where the origin is 0.
    """

    def __init__(
        self,
        session: Session,
        coordinates: Coordinates,
        lr: float,
        momentum: float,
        weight_decay: float = 0.0,
        milestones: Sequence[int] = (),
    ) -> None:
        self.coordinates = coordinates

        def factory(_: list[Tensor], **settings: Any) -> torch.optim.Optimizer:
            return torch.optim.SGD([coordinates.z_D], **settings)

        def tenths(epochs: float) -> float:
            # the last step of an epoch has a whole number and belongs to that epoch
            return 10.0 ** -sum(epochs > milestone for milestone in milestones)

        session.new_optimizer(factory, tenths, lr=lr, momentum=momentum, weight_decay=weight_decay)
        session.theta_N = coordinates.theta_N()
        _clear_gradients(session)

    def train_epoch(self, session: Session, batch_size: int | None) -> None:
        session.train_epoch(
            batch_size,
            after_backward=lambda: self._after_backward(session),
            after_step=lambda: self._after_step(session),
        )

    def _after_backward(self, session: Session) -> None:
        self.coordinates.take_gradient(session.gradient_N)
        _clear_gradients(session)

    def _after_step(self, session: Session) -> None:
        session.theta_N = self.coordinates.theta_N()

    def state_dict(self) -> State:
        """The coordinates; momentum is the optimizer's."""
        return {"z_D": self.coordinates.z_D.detach().clone()}

    @torch.no_grad()
    def load_state_dict(self, state: State) -> None:
        self.coordinates.z_D.copy_(state["z_D"])


def _clear_gradients(session: Session) -> None:
    """Those of the weights; an optimizer of coordinates clears the gradient of z alone."""
    for parameter in session.parameters:
        parameter.grad = None


@dataclass(eq=False)
class PSGD(DLDR):
    """SGD with momentum on the coordinates of the subspace; see `DLDR` for where it starts.

    `milestones` are own epochs after which the rate falls to a tenth; those beyond the end are never reached.
    ValueError also where lr is not above 0, momentum not in [0, 1), or milestones are not whole and increasing.
    """

    lr: float = 1.0
    momentum: float = 0.9
    milestones: Sequence[int] = (30, 50)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between("lr", self.lr, 0)
        check_from("momentum", self.momentum, 0, 1)
        check_milestones(self.milestones)

    def begin(self, session: Session) -> None:
        super().begin(session)
        coordinates = Coordinates(self.subspace, self.origin_N)
        self.sgd = SubspaceSGD(session, coordinates, self.lr, self.momentum, milestones=self.milestones)

    def train_epoch(self, session: Session) -> None:
        self.sgd.train_epoch(session, self.batch_size)

    def state_dict(self) -> State:
        return self.sgd.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.sgd.load_state_dict(state)


def check_milestones(milestones: Sequence[int]) -> None:
    """Whole epochs of at least 1, each above the one before."""
    a_list = isinstance(milestones, Sequence) and not isinstance(milestones, str)
    if not a_list:
        raise ValueError(f"milestones must be a list of epochs, got {milestones!r}")
    before = 0
    for milestone in milestones:
        check_whole("milestones", milestone, 1)
        if milestone <= before:
            raise ValueError(f"milestones must increase, got {list(milestones)}")
        before = milestone
