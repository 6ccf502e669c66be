"""Checks of an exchange: what passes between server and clients, and that nothing else does."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor

from harness.config import ConfigError
from harness.conformance.clauses import Clause, bits, breach, check_scalars, check_tables, seeding_nothing, table_bits
from harness.conformance.jobs import JobChecks
from harness.conformance.preset import PresetChecks
from harness.conformance.tiny import CLIENTS, DEVICE, SOME, Subject, as_in_a_job, find_class, find_subject
from harness.federated.client import Answer, ClientSide, Order
from harness.federated.payload import BUFFER, parted
from harness.federated.server import FederatedTrainer
from harness.federated.session import FederatedSession
from harness.method import Client, Exchange, Payload, Upload
from harness.storage.paths import restart_path
from harness.storage.tensors import read_state
from harness.training.clock import Clock


class Serving:
    """An exchange on the tiny base's federation, from its start on, in memory."""

    def __init__(self, subject: Subject, processes: int = 1, make: Callable[[], Exchange] | None = None) -> None:
        tiny = subject.recorded
        self.server = cast(Exchange, subject.make())
        client = make or cast(Callable[[], Exchange], subject.make)
        self.trainer = FederatedTrainer(
            subject.base.config, tiny.images, DEVICE, self.server, client, processes, say=_refuse_failure
        )
        branch = self.server.branch(subject.epochs)
        if branch.start > 0:
            self.trainer.load_state_dict(read_state(restart_path(tiny.folder, branch.start)))
        trajectory = tiny.trajectory().window(*subject.needs)
        self.session = FederatedSession(self.trainer, branch, trajectory, Clock(DEVICE))
        self.last = branch.prefix + branch.epochs

    def train(self, after: Callable[[], None] = lambda: None) -> None:
        """Begin and train to the end; `after` is called after every round."""
        try:
            self.server.begin(self.session)
            self.session.begun = True
            while self.trainer.t < self.last:
                t = self.trainer.t
                self.server.train_epoch(self.session)
                self.trainer.t = t + 1
                after()
        finally:
            self.trainer.close()

    def trace(self) -> list[str]:
        """Digests after every round of weights, bytes and the server's state, and of the tables at the end."""
        found: list[str] = []

        def note() -> None:
            moved = [self.trainer.uploaded, self.trainer.downloaded]
            state = [self.trainer.flat.theta_N, sorted(self.trainer.flat.buffers.items()), moved]
            found.append(bits([state, self.server.state_dict()]))

        self.train(note)
        return [*found, table_bits(self.server)]


def _refuse_failure(text: str) -> None:
    raise AssertionError(text)


def _check_payload(payload: Any, who: str) -> None:
    named = isinstance(payload, dict) and all(isinstance(name, str) for name in payload)
    assert named, breach(Clause.EXCHANGED, f"{who} gives {type(payload).__name__}, not tensors by name")
    for name, tensor in payload.items():
        assert isinstance(tensor, Tensor), breach(Clause.EXCHANGED, f"{who} gives {name}: {type(tensor).__name__}")
        assert not name.startswith(BUFFER), breach(Clause.EXCHANGED, f"{who} gives {name}, the name of a buffer")


def _check_weights(theta_N: Any, N: int, who: str, clause: Clause) -> None:
    assert isinstance(theta_N, Tensor), breach(clause, f"{who} gives a {type(theta_N).__name__}")
    found = theta_N.dtype, tuple(theta_N.shape)
    assert found == (torch.float32, (N,)), breach(clause, f"{who} gives {found[0]} of shape {found[1]}, not ({N},)")
    assert bool(theta_N.isfinite().all()), breach(clause, f"{who} gives weights that are not finite")


class _Looking(ClientSide):
    """Clients whose orders are looked at before and after, and carried out twice."""

    def train(self, order: Order) -> Answer:
        payload, _ = parted(order.payload)
        before = bits([sorted(order.payload.items()), order.state.method])
        answer = super().train(order)
        again = super().train(order)
        after = bits([sorted(order.payload.items()), order.state.method])
        assert before == after, breach(
            Clause.UNTOUCHED, f"client {order.k} changed what it was sent in round {order.t + 1}"
        )
        own, _ = parted(answer.payload)
        _check_payload(payload, "down")
        _check_payload(own, "up")
        both = [bits([sorted(one.payload.items()), one.state.method]) for one in (answer, again)]
        assert both[0] == both[1], breach(Clause.APART, f"client {order.k}, asked twice for a round, gives two answers")
        return answer


class ExchangeChecks:
    """Checks where clients are in every round, and where they miss some, unless the exchange is refused there."""

    @pytest.fixture(params=[CLIENTS, SOME], ids=["all_clients", "some_clients"])
    def federated(self, request: pytest.FixtureRequest) -> Subject:
        """The preset as it is planned there."""
        preset, folders = cast(type[ExchangeConformance], type(self)).sources()
        try:
            return find_subject(preset, folders, request.param)
        except ConfigError as error:
            if request.param == CLIENTS:
                raise
            pytest.skip(f"refused where clients miss rounds: {error}")

    def test_exchange_begins_and_ends_within_the_base(self, subject: Subject) -> None:
        made = cast(Exchange, subject.make())
        branch = made.branch(subject.epochs)
        assert 0 <= branch.start <= branch.prefix <= subject.epochs, breach(
            Clause.BRANCH, f"{branch} does not lie within a base of {subject.epochs} rounds"
        )
        assert subject.needs[1] <= branch.prefix, breach(
            Clause.NEEDS, f"needs ends at {subject.needs[1]}, after the prefix of {branch}"
        )

    def test_exchange_hands_over_tensors_and_changes_none(self, federated: Subject) -> None:
        """Payloads are tensors by name, weights are whole and finite, and what was handed over stays as it was."""
        serving = Serving(federated)
        server, trainer = serving.server, serving.trainer
        trainer._side.__class__ = _Looking
        N, merge, after_round = trainer.flat.layout.N, server.merge, server.after_round

        def merged(uploads: Iterator[Upload], theta_N: Tensor) -> Tensor:
            taken: list[tuple[Payload, str]] = []
            old = bits(theta_N)

            def watched() -> Iterator[Upload]:
                for upload in uploads:
                    taken.append((upload.payload, bits(sorted(upload.payload.items()))))
                    yield upload

            found = merge(watched(), theta_N)
            touched = [place for place, (payload, was) in enumerate(taken) if bits(sorted(payload.items())) != was]
            assert not touched, breach(Clause.UNTOUCHED, f"merge changed {len(touched)} of {len(taken)} answers")
            assert bits(theta_N) == old, breach(Clause.UNTOUCHED, "merge changed the old weights")
            _check_weights(found, N, "merge", Clause.MERGED)
            return found

        def ended(theta_N: Tensor) -> Tensor:
            found = after_round(theta_N)
            _check_weights(found, N, "after_round", Clause.MERGED)
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(server, "merge", merged)
            patch.setattr(server, "after_round", ended)
            serving.train(lambda: check_scalars(server))
        check_tables(server)

    def test_exchange_begins_at_weights(self, federated: Subject) -> None:
        """What `start` gives are float32 weights (N,), and `hooks` are two."""
        kind = cast(type[Exchange], type(federated.make()))
        start, hooks = kind.start, kind.hooks

        def started(self: Exchange, client: Client, payload: Payload) -> Tensor:
            with seeding_nothing("start"):
                theta_N = start(self, client, payload)
            _check_weights(theta_N, client.layout.N, "start", Clause.BEGUN)
            return theta_N

        def hooked(self: Exchange, client: Client) -> tuple[Any, Any]:
            found = hooks(self, client)
            assert isinstance(found, tuple), breach(Clause.EXCHANGED, f"hooks gives {found}, not a pair")
            assert len(found) == 2, breach(Clause.EXCHANGED, f"hooks gives {len(found)} values, not a pair")
            return found

        watched = type(kind.__name__, (kind,), {"start": started, "hooks": hooked})
        Serving(federated, make=lambda: cast(Exchange, watched(**federated.cell.method.params))).train()

    def test_exchange_reaches_its_clients_by_payloads_alone(self, federated: Subject) -> None:
        """To the last bit: clients in other processes, and clients that are handed copies, give the same."""
        here, beside = Serving(federated).trace(), Serving(federated, processes=2).trace()
        differing = [n for n, (a, b) in enumerate(zip(here, beside, strict=True), start=1) if a != b]
        assert not differing, breach(Clause.APART, f"clients in other processes give other rounds {differing}")
        copied = Serving(federated)
        copied.trainer._side.__class__ = _Copying
        assert copied.trace() == here, breach(Clause.APART, "clients that are handed copies give other numbers")

    def test_exchange_seeds_nothing(self, federated: Subject) -> None:
        """On the server; a client's training is seeded by the harness."""
        serving = Serving(federated)
        server = serving.server
        down, after_round = server.down, server.after_round

        def sent(k: int, theta_N: Tensor) -> Payload:
            with seeding_nothing("down"):
                return down(k, theta_N)

        def ended(theta_N: Tensor) -> Tensor:
            with seeding_nothing("after_round"):
                return after_round(theta_N)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(server, "down", sent)
            patch.setattr(server, "after_round", ended)
            serving.train()

    def test_exchange_goes_on_from_its_state(self, federated: Subject) -> None:
        """A server and its clients that are made anew before every round, from what they would store, give the same."""
        straight, parts = Serving(federated).trace(), list[str]()
        state: tuple[bytes, Any] | None = None
        for _ in range(len(straight) - 1):
            serving = Serving(federated)
            serving.server.begin(serving.session)
            serving.session.begun = True
            if state is not None:
                stored = pickle.loads(state[0])
                serving.trainer.load_state_dict(stored["trainer"])
                serving.server.load_state_dict(stored["method"])
            t = serving.trainer.t
            serving.server.train_epoch(serving.session)
            serving.trainer.t = t + 1
            moved = [serving.trainer.uploaded, serving.trainer.downloaded]
            own = [serving.trainer.flat.theta_N, sorted(serving.trainer.flat.buffers.items()), moved]
            parts.append(bits([own, serving.server.state_dict()]))
            whole = {"trainer": serving.trainer.state_dict(), "method": serving.server.state_dict()}
            state = pickle.dumps(whole), None
        differing = [n for n, (a, b) in enumerate(zip(straight, parts, strict=False), start=1) if a != b]
        assert not differing, breach(Clause.RESUMED, f"gone on from its state, rounds {differing} differ")


class _Copying(ClientSide):
    """Clients whose orders and answers are carried as bytes."""

    def train(self, order: Order) -> Answer:
        answer: Answer = pickle.loads(pickle.dumps(super().train(pickle.loads(pickle.dumps(order)))))
        return answer


class ExchangeConformance(PresetChecks, ExchangeChecks, JobChecks):
    """All checks of one preset of an exchange; a subclass names it, as with `MethodConformance`."""

    preset: ClassVar[str]
    config_dirs: ClassVar[tuple[Path, ...] | list[Path]] = ()
    """folders with presets and modules from outside the project"""

    def __init_subclass__(cls) -> None:
        """ConfigError where `preset` is not found, or names no exchange."""
        super().__init_subclass__()
        if hasattr(cls, "preset") and not issubclass(found := find_class(*cls.sources()), Exchange):
            raise ConfigError(f"method.{cls.preset}._target_ must be an Exchange, got {found.__name__}")

    @classmethod
    def sources(cls) -> tuple[str, tuple[Path, ...]]:
        """The preset and the folders that it may lie in."""
        return cls.preset, tuple(Path(folder) for folder in cls.config_dirs)

    @pytest.fixture
    def subject(self) -> Subject:
        """The preset as it is planned on the tiny base with clients; ConfigError in one line where it cannot be."""
        return find_subject(*self.sources(), CLIENTS)

    @pytest.fixture(autouse=True)
    def process_state(self, subject: Subject) -> Iterator[None]:
        """Every check runs as the harness's jobs do."""
        with as_in_a_job(subject.base.config):
            yield
