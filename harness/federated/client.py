"""What a client does in a round: a pure function of what it is sent and of what it kept, wherever it runs.

`ClientSide.train(order)` is all of it. Neither files nor the server are reached from here, so any transport may carry
orders and answers: this process, another one, a cluster, or a library for federated learning.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from harness.config import BaseConfig
from harness.federated.payload import owned, parted, with_buffers
from harness.method import Exchange, Federation, Layout, Payload, State
from harness.problem.images import Images
from harness.problem.optimizers import make_optimizer, schedule
from harness.problem.partition import Part
from harness.randomness import derive, generator
from harness.snapshots import tensors_of
from harness.training.clock import Counts
from harness.training.loop import Diverged, Trainer


@dataclass
class ClientState:
    """What a client keeps from one of its rounds to the next."""

    method: State = field(default_factory=dict)
    """of the exchange"""
    optimizer: State | None = None
    """with `optimizer_state: keep`"""


@dataclass(frozen=True)
class Order:
    """What client k is sent for round t, the model's buffers in the payload, and what it kept."""

    k: int
    t: int
    payload: Payload
    state: ClientState


@dataclass(frozen=True)
class Answer:
    """What a client sends back, and what is known of its training beside."""

    k: int
    payload: Payload
    state: ClientState
    row: dict[str, float]
    """train_loss and train_accuracy, means over its epochs, the last lr, and drift: how far its weights went"""
    counts: dict[str, int]
    seconds: float
    diverged: str | None = None
    """why its weights are not finite, where they are not"""


class ClientRound:
    """Implements `harness.method.Client` over a `Trainer` that does the client's training."""

    def __init__(self, trainer: Trainer, order: Order, seed: int, rounds: int, federation: Federation) -> None:
        self._trainer = trainer
        self._seed = seed
        self.k, self.t, self.rounds = order.k, order.t, rounds
        self.layout: Layout = trainer.flat.layout
        self.federation = federation
        self.start_N = trainer.flat.theta_N
        self.parameters = trainer.flat.parameters
        self.state: State = copy.deepcopy(order.state.method)

    @property
    def model(self) -> nn.Module:
        return self._trainer.model

    @property
    def theta_N(self) -> Tensor:
        return self._trainer.flat.theta_N

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self._trainer.optimizer

    @property
    def gradient_N(self) -> Tensor:
        return self._trainer.flat.gradient_N()

    @gradient_N.setter
    def gradient_N(self, value_N: Tensor) -> None:
        for parameter, part in zip(self.parameters, tensors_of(value_N, self.layout), strict=True):
            parameter.grad = part

    @property
    def steps(self) -> int:
        return self._trainer.step

    def rng(self, purpose: str) -> torch.Generator:
        return generator(self._seed, f"method/{purpose}")


def client_seed(seed: int, k: int) -> int:
    """What client k draws its batches by; the first one's is the base's, so that a single client is a plain run."""
    return seed if k == 0 else derive(seed, f"client{k}")


def federation_of(base: BaseConfig, parts: list[Part]) -> Federation:
    """A base's clients, as methods know them."""
    own = base.federation
    return Federation(own.clients, own.taking_part, own.local_epochs, tuple(map(len, parts)))


class ClientSide:
    """Trains any client of a base, one at a time, in one process.

    `exchange` makes an instance of the base's or the cell's exchange of its parameters alone. `images` is the training
    split on `device`, of which a client sees its part.
    """

    def __init__(
        self,
        base: BaseConfig,
        images: Images,
        parts: list[Part],
        device: torch.device,
        exchange: Callable[[], Exchange] = Exchange,
    ) -> None:
        self.base = base
        self.images = images
        self.parts = parts
        self.exchange = exchange
        self.federation = federation_of(base, parts)
        self.trainer = Trainer(base, images, device)
        self._schedule = schedule(base.optimizer.schedule, base.epochs)
        self._own: dict[int, tuple[BaseConfig, Images]] = {}

    def _of(self, k: int) -> tuple[BaseConfig, Images]:
        """The base with client k's seed, and its images."""
        if k not in self._own:
            own = replace(self.base, seed=client_seed(self.base.seed, k))
            self._own[k] = own, self.images.subset(torch.from_numpy(self.parts[k]))
        return self._own[k]

    def train(self, order: Order) -> Answer:
        """Client k's round: its weights from what it is sent, its epochs of training, and its answer."""
        begun = time.perf_counter()
        trainer, epochs = self.trainer, self.base.federation.local_epochs
        payload, buffers = parted(order.payload)
        trainer.base, trainer.images = self._of(order.k)
        trainer.step, trainer.counts = 0, Counts()
        trainer.new_optimizer(
            lambda parameters: make_optimizer(self.base.optimizer, parameters),
            lambda trained: self._schedule(order.t + trained / epochs),
        )
        if order.state.optimizer is not None:
            trainer.optimizer.load_state_dict(copy.deepcopy(order.state.optimizer))
        exchange = self.exchange()
        client = ClientRound(trainer, order, self.base.seed, self.base.epochs, self.federation)
        with torch.no_grad():
            start_N = exchange.start(client, payload)
            trainer.flat.load(start_N, buffers)
            client.start_N = trainer.flat.theta_N.clone()
        after_backward, after_step = exchange.hooks(client)
        size = min(self.base.batch_size, len(trainer.images))
        rows: list[dict[str, float]] = []
        diverged = None
        trainer.t = order.t * epochs
        try:
            for _ in range(epochs):
                with torch.enable_grad():
                    rows.append(trainer.train_epoch(size, after_backward=after_backward, after_step=after_step))
        except Diverged as error:
            diverged = str(error)
        with torch.no_grad():
            up = {} if diverged else owned(with_buffers(exchange.up(client), trainer.flat.buffers))
            drift = (trainer.flat.theta_N.double() - client.start_N.double()).norm().item()
        keeps = self.base.federation.optimizer_state == "keep"
        kept = ClientState(client.state, copy.deepcopy(trainer.optimizer.state_dict()) if keeps else None)
        means = {name: sum(row[name] for row in rows) / max(len(rows), 1) for name in ("train_loss", "train_accuracy")}
        row = {**means, "lr": rows[-1]["lr"] if rows else 0.0, "drift": drift}
        return Answer(order.k, up, kept, row, trainer.counts.as_dict(), time.perf_counter() - begun, diverged)
