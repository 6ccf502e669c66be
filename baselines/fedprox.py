"""FedProx: clients are held near the weights that they began at.

Li et al., Federated Optimization in Heterogeneous Networks (MLSys 2020): a client's loss has a proximal term
(mu/2) |theta - theta_t|^2, whose gradient mu (theta - theta_t) is added to every step's. Clients do as much work as
in federated averaging; their inexact solutions are another part of that paper.
"""

from __future__ import annotations

from dataclasses import dataclass

from baselines.parameters import check_from
from harness.method import Client, Exchange, Hook


@dataclass(eq=False)
class FedProx(Exchange):
    """The proximal term of weight `mu`; ValueError where that is below 0."""

    mu: float = 0.01

    def __post_init__(self) -> None:
        check_from("mu", self.mu, 0)

    def memory_floats(self, N: int) -> int:
        return N

    def hooks(self, client: Client) -> tuple[Hook, Hook]:
        def pull() -> None:
            client.gradient_N = client.gradient_N + self.mu * (client.theta_N - client.start_N)

        return pull, None
