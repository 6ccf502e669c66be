"""Rounds of federated averaging against what they must equal, to the last bit."""

import itertools
import os
import signal

import numpy as np
import pytest
import torch
from rounds import base_of, digests, federated, plain

import harness.federated.client
import harness.federated.server
from harness.federated.processes import ClientFailed
from harness.federated.states import ClientStates
from harness.method import Exchange, weighted_mean
from harness.storage.tensors import read_state, write_state
from harness.training.loop import Diverged

pytestmark = pytest.mark.usefixtures("one_thread")

ONE = "federation.iid_10.clients=1"
KEEP = "federation.iid_10.optimizer_state=keep"
SIZE = "dataset.digits.train_size=150"


@pytest.mark.parametrize(
    "overrides",
    [
        ("optimizer=sgd",),
        ("optimizer=sgd_momentum", KEEP),
        ("optimizer=sgd_momentum_cosine", KEEP),
        ("optimizer=adam_linear", KEEP),
        ("optimizer=sgd", "optimizer.sgd.schedule.name=cosine"),
    ],
)
def test_one_client_is_the_ordinary_loop(overrides):
    own = [text for text in overrides if not text.startswith("federation")]
    assert digests(federated(ONE, *overrides)) == digests(plain(SIZE, *own))


def test_a_client_that_resets_its_optimizer_is_another_run():
    assert digests(federated(ONE, "optimizer=sgd_momentum")) != digests(plain(SIZE, "optimizer=sgd_momentum"))


def test_the_schedule_goes_on_within_a_round():
    """Two local epochs are half a round each: at its end the rate is that of the round's."""
    rates = []

    class Watch(Exchange):
        def hooks(self, client):
            return None, lambda: rates.append(client.optimizer.param_groups[0]["lr"])

    trainer = federated(ONE, "optimizer=sgd_momentum_linear", "federation.iid_10.local_epochs=2", make=Watch)
    full = trainer.base.optimizer.params["lr"]
    trainer.train_epoch()
    steps = len(rates)
    # fast: 6 rounds; 3 batches in a local epoch
    assert steps == 6
    assert rates == pytest.approx([full * (1 - (i + 1) / steps / 6) for i in range(steps)])


def test_three_identical_clients_are_one(monkeypatch):
    monkeypatch.setattr(harness.federated.server, "parts_of", lambda base, labels: [np.arange(50)] * 3)
    monkeypatch.setattr(harness.federated.client, "client_seed", lambda seed, k: seed)
    three = digests(federated("optimizer=sgd"))
    monkeypatch.setattr(harness.federated.server, "parts_of", lambda base, labels: [np.arange(50)])
    assert three == digests(federated("optimizer=sgd", ONE))


def test_a_mean_is_that_of_numpy_and_has_no_order():
    draws = np.random.default_rng(0)
    parts = [(share, draws.standard_normal(20_000).astype("float32")) for share in (60, 61, 119, 120)]
    expected = (sum(share * values.astype("float64") for share, values in parts) / 360).astype("float32")
    for order in itertools.permutations(parts):
        found = weighted_mean((share, torch.from_numpy(values)) for share, values in order).float()
        assert np.array_equal(found.numpy(), expected)


def test_bytes_are_those_of_the_closed_form():
    """Weights and buffers of every client that takes part, four bytes each, and eight of a whole number."""
    trainer = federated("federation.iid_10.per_round=2", "federation.iid_10.clients=5")
    N = trainer.flat.layout.N
    buffers = sum(8 if b.dtype == torch.int64 else 4 * b.numel() for b in trainer.flat.buffers.values())
    assert buffers > 0
    for t in range(1, 4):
        row = trainer.train_epoch()
        assert row["upload_bytes"] == row["download_bytes"] == t * 2 * (4 * N + buffers)
        assert row["transmitted_fraction"] == 1
        assert row["clients"] == 2


def test_clients_are_weighed_by_their_images_or_alike():
    uneven = "federation.iid_10.clients=4"  # 150 images: two clients of 38, two of 37
    by_images, equal = federated(uneven), federated(uneven, "federation.iid_10.weighting=equal")
    assert by_images.weights([0, 3]) == {0: 38, 3: 37}
    assert equal.weights([0, 3]) == {0: 1, 3: 1}


def test_a_round_takes_the_clients_that_are_drawn_for_it():
    some = ("federation.iid_10.per_round=2", "federation.iid_10.clients=5")
    trainer = federated(*some)
    drawn = [trainer.taking_part(t) for t in range(40)]
    assert all(own == sorted(set(own)) and len(own) == 2 for own in drawn)
    assert {k for own in drawn for k in own} == set(range(5))
    assert drawn[3] == federated(*some).taking_part(3)


@pytest.mark.parametrize("more", [(), (KEEP,), ("federation.iid_10.per_round=2",)])
def test_processes_beside_have_the_same_bits(more):
    here, beside = federated(*more), federated(*more, processes=2)
    try:
        assert digests(here) == digests(beside)
        assert here.state_dict()["uploaded"] == beside.state_dict()["uploaded"]
        assert type(beside.transport).__name__ == "Beside"
    finally:
        beside.close()


@pytest.mark.parametrize("more", [(), (KEEP,), ("federation.iid_10.per_round=2", KEEP)])
def test_resume_has_the_same_bits(tmp_path, more):
    straight, halted, resumed = federated(*more), federated(*more), federated(*more)
    expected = digests(straight, 4)
    digests(halted, 2)
    write_state(tmp_path / "state", halted.state_dict())
    resumed.load_state_dict(read_state(tmp_path / "state"))
    assert digests(resumed, 2) == expected[2:]
    assert resumed.uploaded == straight.uploaded


def test_what_clients_keep_alike_is_stored_once():
    """And comes back as it was, to the clients that kept it."""
    states = ClientStates()
    for k in range(50):
        kept = {"same_N": torch.arange(10.0), "own_N": torch.full((10,), float(k)), "list": [1, (torch.ones(3), None)]}
        states.keep(k, harness.federated.client.ClientState(kept))
    stored = states.state_dict()
    assert len(stored["tensors"]) == 52
    read = ClientStates()
    read.load_state_dict(stored)
    for k in range(50):
        method = read.of(k).method
        assert torch.equal(method["same_N"], torch.arange(10.0))
        assert torch.equal(method["own_N"], torch.full((10,), float(k)))
        assert method["list"][0] == 1
        assert torch.equal(method["list"][1][0], torch.ones(3))
    assert read.of(50).method == {}


class Lost(Exchange):
    """Whose client 1 ends its process in round 2, the first time that it is asked."""

    mark: str = ""

    def start(self, client, payload):
        if client.k == 1 and client.t == 1 and not os.path.exists(self.mark):
            open(self.mark, "x").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().start(client, payload)


def test_a_lost_client_is_asked_again_and_named(tmp_path):
    said = []
    losing = type("Losing", (Lost,), {"mark": str(tmp_path / "lost")})
    trainer = federated(make=losing, processes=2, say=said.append)
    try:
        assert digests(trainer) == digests(federated())
    finally:
        trainer.close()
    assert said == ["client 1 failed in round 2 and is asked again: its process is gone"]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_client_that_fails_twice_is_named(processes):
    class Failing(Exchange):
        def up(self, client):
            if client.k == 2:
                raise ZeroDivisionError("a quotient")
            return super().up(client)

    said = []
    trainer = federated(make=Failing, processes=processes, say=said.append)
    with pytest.raises(ClientFailed, match=r"client 2 failed twice in round 1: .*a quotient"):
        trainer.train_epoch()
    trainer.close()
    assert len(said) == 1


def test_a_client_that_is_not_finite_is_named():
    class Infinite(Exchange):
        def start(self, client, payload):
            return payload["theta_N"] * (float("inf") if client.k == 1 else 1)

    with pytest.raises(Diverged, match="client 1 in round 1"):
        federated(make=Infinite).train_epoch()


def test_an_exchange_that_leaves_answers_out_is_refused():
    class Hasty(Exchange):
        def merge(self, uploads, theta_N):
            return next(iter(uploads)).payload["theta_N"]

    with pytest.raises(RuntimeError, match="merge must take all of 3 answers, got 1"):
        federated(make=Hasty).train_epoch()


def test_a_run_without_clients_keeps_its_key_and_its_name():
    base = base_of()
    assert base.federation.clients == 0
    assert base.label == "test_resnet-digits-sgd_momentum-s0"
