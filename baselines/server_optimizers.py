"""Optimizers on the server: the mean update of a round is their gradient.

FedAvgM: Hsu, Qi and Brown, Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification
(2019). FedAdam: Reddi et al., Adaptive Federated Optimization (ICLR 2021, Algorithm 2), whose `tau` is what keeps the
step finite; as there, moments are not corrected for their start at 0, where v is tau^2.

Shape suffix: N trainable weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.parameters import check_between, check_from
from harness.method import Exchange, Session, State, Upload


@dataclass(eq=False)
class FedAvgM(Exchange):
    """v <- `momentum` v + D, theta <- theta + `rate` v, D the mean update. ValueError where the rate is not above 0 or
    the momentum not at least 0 and below 1."""

    momentum: float = 0.9
    rate: float = 1.0

    def __post_init__(self) -> None:
        check_from("momentum", self.momentum, 0, 1)
        check_between("rate", self.rate, 0)

    def memory_floats(self, N: int) -> int:
        return 2 * N

    def begin(self, session: Session) -> None:
        self.v_N = torch.zeros_like(session.theta_N)

    def merge(self, uploads: Iterable[Upload], theta_N: Tensor) -> Tensor:
        self.v_N = self.momentum * self.v_N + (super().merge(uploads, theta_N) - theta_N)
        return theta_N + self.rate * self.v_N

    def state_dict(self) -> State:
        return {"v_N": self.v_N.clone()}

    def load_state_dict(self, state: State) -> None:
        self.v_N = state["v_N"].clone()


@dataclass(eq=False)
class FedAdam(Exchange):
    """m <- beta1 m + (1 - beta1) D, v <- beta2 v + (1 - beta2) D^2, theta <- theta + `rate` m / (sqrt(v) + tau).

    D is the mean update. ValueError where rate or tau are not above 0, or a beta not at least 0 and below 1.
    """

    rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 0.001

    def __post_init__(self) -> None:
        check_between("rate", self.rate, 0)
        check_from("beta1", self.beta1, 0, 1)
        check_from("beta2", self.beta2, 0, 1)
        check_between("tau", self.tau, 0)

    def memory_floats(self, N: int) -> int:
        return 3 * N

    def begin(self, session: Session) -> None:
        self.m_N = torch.zeros_like(session.theta_N)
        self.v_N = torch.full_like(session.theta_N, self.tau**2)

    def merge(self, uploads: Iterable[Upload], theta_N: Tensor) -> Tensor:
        D_N = super().merge(uploads, theta_N) - theta_N
        self.m_N = self.beta1 * self.m_N + (1 - self.beta1) * D_N
        self.v_N = self.beta2 * self.v_N + (1 - self.beta2) * D_N.square()
        return theta_N + self.rate * self.m_N / (self.v_N.sqrt() + self.tau)

    def state_dict(self) -> State:
        return {"m_N": self.m_N.clone(), "v_N": self.v_N.clone()}

    def load_state_dict(self, state: State) -> None:
        self.m_N, self.v_N = state["m_N"].clone(), state["v_N"].clone()
