"""SCAFFOLD: control variates take the drift out of clients' steps.

Karimireddy et al., SCAFFOLD: Stochastic Controlled Averaging for Federated Learning (ICML 2020), Algorithm 1 with
option II: a client steps along g - c_k + c, and then has c_k+ = c_k - c + (x - y_k) / (K rate), where K rate is the sum
of the rates of its steps, which a schedule may change. The server takes the mean of the clients' weights, as federated
averaging does (global rate 1), and c <- c + |S|/clients mean(c_k+ - c_k). Variates and weights go both ways.

Shape suffix: N trainable weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.method import Client, Exchange, Federation, Hook, Payload, Session, State, Upload


@dataclass(eq=False)
class Scaffold(Exchange):
    """Option II, where the clients' optimizer is plain SGD: no other takes the step that the variates correct.

    ValueError for any other optimizer, and for momentum.
    """

    def check(self, federation: Federation, optimizer: str, params: Mapping[str, Any]) -> None:
        if optimizer != "torch.optim.SGD":
            raise ValueError(f"optimizer must be torch.optim.SGD without momentum, got {optimizer}")
        if params.get("momentum", 0) != 0:
            raise ValueError(f"optimizer must be torch.optim.SGD without momentum, got momentum {params['momentum']}")

    def memory_floats(self, N: int) -> int:
        """The server's variate and the sum of the changes; every client keeps one of its own."""
        return 3 * N

    def begin(self, session: Session) -> None:
        assert session.federation is not None
        self.federation = session.federation
        self.c_N = torch.zeros_like(session.theta_N)

    def down(self, k: int, theta_N: Tensor) -> Payload:
        return {"theta_N": theta_N, "c_N": self.c_N}

    def hooks(self, client: Client) -> tuple[Hook, Hook]:
        self.own_N = client.state.get("c_N", torch.zeros_like(client.start_N))
        correction_N, self.rates = self.c_N - self.own_N, 0.0

        def correct() -> None:
            client.gradient_N = client.gradient_N + correction_N

        def count() -> None:
            self.rates += float(client.optimizer.param_groups[0]["lr"])

        return correct, count

    def start(self, client: Client, payload: Payload) -> Tensor:
        self.c_N = payload["c_N"]
        return payload["theta_N"]

    def up(self, client: Client) -> Payload:
        moved_N = client.start_N - client.theta_N
        new_N = self.own_N - self.c_N + (moved_N / self.rates if self.rates > 0 else 0.0)
        client.state["c_N"] = new_N
        return {"theta_N": client.theta_N, "change_N": new_N - self.own_N}

    def merge(self, uploads: Iterable[Upload], theta_N: Tensor) -> Tensor:
        change_N = torch.zeros_like(self.c_N, dtype=torch.float64)

        def answers() -> Iterable[Upload]:
            for upload in uploads:
                change_N.add_(upload.payload["change_N"].double())
                yield upload

        merged_N = super().merge(answers(), theta_N)
        self.c_N = (self.c_N.double() + change_N / self.federation.clients).float()
        return merged_N

    def state_dict(self) -> State:
        return {"c_N": self.c_N.clone()}

    def load_state_dict(self, state: State) -> None:
        self.c_N = state["c_N"].clone()
