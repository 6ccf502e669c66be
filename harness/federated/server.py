"""A run whose epochs are rounds: clients train from the server's weights, and their answers make the next ones.

Everything else sees a run like any other: t counts rounds, and weights, buffers and restart state are the server's.
Answers are taken in the order of the clients, whoever trains them and wherever, so the numbers are the same to the last
bit. Shape suffix: N weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import torch

from harness.config import BaseConfig
from harness.federated.client import Answer, ClientSide, Order
from harness.federated.elsewhere import Transport
from harness.federated.payload import BufferMean, parted, size_in_bytes, with_buffers
from harness.federated.processes import Beside, Here, Say, may_fork
from harness.federated.states import ClientStates
from harness.method import Exchange, Federation, State, Upload
from harness.problem.images import Images
from harness.problem.partition import digest_of, parts_of
from harness.randomness import generator
from harness.training.clock import Counts
from harness.training.loop import Diverged, Trainer

Phase = Callable[[str], contextlib.AbstractContextManager[object]]
"""a block that is timed as `method`, what an exchange does on the server, or as `train`"""
Told = Callable[[int, int, int, float], object]
"""hears of the round from 1 on, how many clients are done of how many, and the seconds of the last one"""


class FederatedTrainer(Trainer):
    """The server of a federation, and the rounds of its clients.

    `server` is the exchange's side here, None for federated averaging; `client` makes one of the same parameters for a
    client. `processes` clients train at once where that is possible; `elsewhere` takes orders to other machines' or
    libraries' processes in the place of both.
    """

    def __init__(
        self,
        base: BaseConfig,
        images: Images,
        device: torch.device,
        server: Exchange | None = None,
        client: Callable[[], Exchange] = Exchange,
        processes: int = 1,
        say: Say = print,
        told: Told | None = None,
        phase: Phase = contextlib.nullcontext,
        elsewhere: Transport | None = None,
    ) -> None:
        super().__init__(base, images, device)
        self.exchange = Exchange() if server is None else server
        self.parts = parts_of(base, images.labels_B)
        self.partition = digest_of(self.parts)
        self.clients = ClientStates()
        self.uploaded = self.downloaded = 0
        """bytes of all clients so far"""
        self._side = ClientSide(base, images, self.parts, device, client)
        self._processes = min(processes, base.federation.taking_part)
        self._transport = elsewhere
        self._say, self._told, self._phase = say, told, phase

    @property
    def federation(self) -> Federation:
        return self._side.federation

    def steps_per_epoch(self, batch_size: int | None = None) -> int:
        """A round is one step of the server's weights."""
        return 1

    def taking_part(self, t: int) -> list[int]:
        """The clients of round t, counted from 0, ascending."""
        federation = self.federation
        if not federation.partial:
            return list(range(federation.clients))
        order = torch.randperm(federation.clients, generator=generator(self.base.seed, "clients", t))
        return sorted(order[: federation.per_round].tolist())

    def weights(self, clients: list[int]) -> dict[int, int]:
        """How clients count in an average: by their images, or all alike."""
        equal = self.base.federation.weighting == "equal"
        return {k: 1 if equal else self.federation.images[k] for k in clients}

    @property
    def transport(self) -> Transport:
        if self._transport is None:
            beside = self._processes > 1 and self.device.type == "cpu" and may_fork()
            self._transport = Beside(self._side, self._processes, self._say) if beside else Here(self._side, self._say)
        return self._transport

    def close(self) -> None:
        """End the processes of the clients."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def train_epoch(
        self,
        batch_size: int | None = None,
        augment: bool = True,
        after_backward: Callable[[], None] | None = None,
        after_step: Callable[[], None] | None = None,
    ) -> dict[str, float]:
        """One round; `after_step` is called at its end.

        Raises Diverged, naming the client, where a client's weights are not finite.
        """
        clients = self.taking_part(self.t)
        round_ = _Round(self, clients)
        before_N = self.flat.theta_N.clone()
        with torch.no_grad(), self._phase("method"):
            theta_N = self.exchange.merge(round_.uploads(), before_N)
            round_.check()
            theta_N = self.exchange.after_round(theta_N)
        self.flat.load(theta_N)
        round_.buffers.into(self.flat.buffers)
        if not bool(self.flat.theta_N.isfinite().all()):
            raise Diverged(f"the server's weights not finite in round {self.t + 1}")
        self.moving_N |= self.flat.theta_N != before_N
        self.uploaded += round_.uploaded
        self.downloaded += round_.downloaded
        self.step += 1
        if after_step is not None:
            after_step()
        self.t += 1
        return round_.row(before_N)

    def state_dict(self) -> State:
        moved = {"uploaded": self.uploaded, "downloaded": self.downloaded}
        return super().state_dict() | {"partition": self.partition, "clients": self.clients.state_dict(), **moved}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.clients.load_state_dict(state["clients"])
        self.uploaded, self.downloaded = state["uploaded"], state["downloaded"]


class _Round:
    """One round under way: orders out, answers in, and what they come to."""

    def __init__(self, server: FederatedTrainer, clients: list[int]) -> None:
        self.server = server
        self.clients = clients
        self.weights = server.weights(clients)
        self.buffers = BufferMean()
        self.uploaded = self.downloaded = 0
        self.answered = 0
        self._sums: dict[str, float] = {}
        self._longest = 0.0

    def _orders(self) -> Iterator[Order]:
        server = self.server
        for k in self.clients:
            with torch.no_grad(), server._phase("method"):
                payload = with_buffers(server.exchange.down(k, server.flat.theta_N), server.flat.buffers)
            self.downloaded += size_in_bytes(payload)
            yield Order(k, server.t, payload, server.clients.of(k))

    def uploads(self) -> Iterator[Upload]:
        """The answers as they come; training is no work of the method that asks for them."""
        answers = self.server.transport.answers(self._orders())
        while True:
            with self.server._phase("train"):
                answer = next(answers, None)
            if answer is None:
                return
            yield self._taken(answer)

    def _taken(self, answer: Answer) -> Upload:
        server = self.server
        if answer.diverged is not None:
            raise Diverged(f"client {answer.k} in round {server.t + 1}: {answer.diverged}")
        self.answered += 1
        self.uploaded += size_in_bytes(answer.payload)
        payload, buffers = parted(answer.payload)
        weight = self.weights[answer.k]
        self.buffers.add(weight, buffers)
        server.clients.keep(answer.k, answer.state)
        counts = server.counts
        server.counts = Counts(*(getattr(counts, f.name) + answer.counts[f.name] for f in fields(Counts)))
        for name, value in answer.row.items():
            self._sums[name] = self._sums.get(name, 0.0) + weight * value
        self._longest = max(self._longest, answer.seconds)
        if server._told is not None:
            server._told(server.t + 1, self.answered, len(self.clients), answer.seconds)
        return Upload(answer.k, weight, payload)

    def check(self) -> None:
        """RuntimeError where the exchange left answers out."""
        if self.answered < len(self.clients):
            raise RuntimeError(f"merge must take all of {len(self.clients)} answers, got {self.answered}")

    def row(self, before_N: torch.Tensor) -> dict[str, Any]:
        """The round in the history of the run."""
        server = self.server
        means = {name: total / sum(self.weights.values()) for name, total in self._sums.items()}
        whole = size_in_bytes(with_buffers({"theta_N": server.flat.theta_N}, server.flat.buffers))
        return {
            **{name: means[name] for name in ("train_loss", "train_accuracy", "lr")},
            "upload_bytes": server.uploaded,
            "download_bytes": server.downloaded,
            "clients": len(self.clients),
            "transmitted_fraction": (self.uploaded + self.downloaded) / (2 * whole * len(self.clients)),
            "update_norm": (server.flat.theta_N.double() - before_N.double()).norm().item(),
            "client_drift": means["drift"],
            "longest_client_seconds": self._longest,
        }
