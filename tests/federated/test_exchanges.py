"""The mathematics of every exchange against short, slow versions, and its bytes against the closed form."""

import math

import numpy as np
import pytest
import torch
from rounds import CPU, base_of, digests, federated, images_of

from baselines.apf import APF, Freezing
from baselines.fed_cmd import FedCMD
from baselines.fed_frozen import FedFrozen
from baselines.fed_half import FedHalf
from baselines.fedpaq import FedPAQ, packed, quantised, restored, unpacked
from baselines.fedprox import FedProx
from baselines.scaffold import Scaffold
from baselines.server_optimizers import FedAdam, FedAvgM
from baselines.top_k import TopK
from harness.federated.session import FederatedSession
from harness.method import Layout, Upload
from harness.snapshots import MemoryTrajectory
from harness.storage.tensors import digest_tensor
from harness.training.clock import Clock

pytestmark = pytest.mark.usefixtures("one_thread")

SGD = "optimizer=sgd"
SOME = ("federation.iid_10.clients=4", "federation.iid_10.per_round=2")
CMD = {"modes": 2, "samples": 30, "warmup": 2, "every": 2, "percent": 20.0}
FROZEN = {"warmup": 2, "every": 2, "percent": 20.0, "spared": 2}


class Watched:
    """An exchange from its start to the last of six rounds; `rows` are what rounds reported, `weights` what they gave.

    `looks` is called with the server's exchange, a client's and the client whenever a client answers.
    """

    def __init__(self, kind, params, *overrides, looks=lambda server, own, client: None):
        self.server = kind(**params)
        watched = self.server

        class Own(kind):
            def up(self, client):
                payload = super().up(client)
                looks(watched, self, client)
                return payload

        self.trainer = trainer = federated(*overrides, make=lambda: Own(**params))
        trainer.exchange = self.server
        branch = self.server.branch(6)
        snapshots = [self._snapshot()]
        plain = federated(*overrides)
        for _ in range(branch.prefix):
            plain.train_epoch()
            trainer.load_state_dict(plain.state_dict())
            snapshots.append(self._snapshot())
        first, last = self.server.needs(6)
        trajectory = MemoryTrajectory.of(snapshots).window(first, last)
        self.session = FederatedSession(trainer, branch, trajectory, Clock(CPU))
        self.server.begin(self.session)
        self.rows, self.weights = [], []
        for _ in range(branch.epochs):
            t = trainer.t
            self.before = trainer.uploaded, trainer.downloaded
            row = trainer.train_epoch()
            trainer.t = t + 1
            up, down = row["upload_bytes"] - self.before[0], row["download_bytes"] - self.before[1]
            self.rows.append({**row, "up": up, "down": down})
            self.weights.append(trainer.flat.theta_N.clone())

    def _snapshot(self):
        found = self.trainer.snapshot()
        return type(found)(found.t, found.step, found.theta_N.clone(), {})


@pytest.fixture(scope="module")
def sizes():
    """Weights, tensors, and bytes of the buffers."""
    flat = federated().flat
    buffers = sum(b.numel() * b.element_size() for b in flat.buffers.values())
    return flat.layout.N, len(flat.layout.sizes), buffers


def bitmap(N):
    return math.ceil(N / 8)


@pytest.mark.parametrize(
    ("kind", "params", "up", "down"),
    [
        (FedHalf, {}, lambda N, L: 2 * N, lambda N, L: 2 * N),
        (FedPAQ, {"bits": 8}, lambda N, L: N + 4 * L, lambda N, L: 4 * N),
        (FedPAQ, {"bits": 3}, lambda N, L: math.ceil(3 * N / 8) + 4 * L, lambda N, L: 4 * N),
        (TopK, {"share": 0.05}, lambda N, L: 4 * round(N / 20) + bitmap(N), lambda N, L: 4 * N),
        (TopK, {"share": 0.01}, lambda N, L: 8 * round(N / 100), lambda N, L: 4 * N),
        (FedProx, {}, lambda N, L: 4 * N, lambda N, L: 4 * N),
        (FedAvgM, {}, lambda N, L: 4 * N, lambda N, L: 4 * N),
        (FedAdam, {}, lambda N, L: 4 * N, lambda N, L: 4 * N),
        (Scaffold, {}, lambda N, L: 8 * N, lambda N, L: 8 * N),
    ],
    ids=lambda value: getattr(value, "__name__", "") if isinstance(value, type) else "",
)
def test_bytes_of_a_round_are_the_closed_form(sizes, kind, params, up, down):
    N, L, B = sizes
    for row in Watched(kind, params, SGD, *SOME).rows:
        assert row["up"] == 2 * (up(N, L) + B)
        assert row["down"] == 2 * (down(N, L) + B)


def plain_digests(*overrides, rounds=6):
    trainer = federated(*overrides)
    return [first for first, *_ in digests(trainer, rounds)]


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (APF, {"threshold": 0.0}),
        (FedCMD, {**CMD, "percent": 1e-9}),
        (FedCMD, {**CMD, "percent": 1e-9, "coefficients": "derived"}),
        (FedFrozen, {**FROZEN, "percent": 1e-9}),
        (FedProx, {"mu": 0.0}),
    ],
    ids=lambda value: getattr(value, "__name__", "") if isinstance(value, type) else "",
)
def test_without_effect_it_is_federated_averaging(kind, params):
    watched = Watched(kind, params)
    own = [digest_tensor(theta_N) for theta_N in watched.weights]
    assert own == plain_digests()[-len(own) :]


def brute_force(thetas, alpha, threshold, tighten):
    """APF weight by weight: the active ones of every round."""
    N, half = len(thetas[0]), np.float32(1 - alpha)
    E, A, length, wake, last = [np.float32(0)] * N, [np.float32(0)] * N, [0] * N, [0] * N, list(thetas[0])
    active, check, found = [True] * N, 0, []
    for theta in thetas[1:]:
        for i in range(N):
            if not active[i]:
                continue
            d = np.float32(theta[i] - last[i])
            E[i] = np.float32(alpha) * E[i] + half * d
            A[i] = np.float32(alpha) * A[i] + half * abs(d)
            stable = A[i] > 0 and abs(E[i]) < np.float32(threshold) * A[i]
            length[i] = length[i] + 1 if stable else length[i] // 2
            wake[i] = check + length[i] + 1
            last[i] = theta[i]
        check += 1
        active = [wake[i] <= check for i in range(N)]
        if sum(active) / N < 1 - tighten:
            threshold /= 2
        found.append(list(active))
    return found, threshold


def test_apf_freezes_what_a_slow_loop_freezes():
    """Whose arithmetic is float32 too, since a weight may lie at the very threshold."""
    draws = np.random.default_rng(1)
    moves = draws.integers(-8, 9, (40, 60)) * (draws.random((40, 60)) < 0.8)
    thetas = np.concatenate([np.zeros((1, 60)), np.cumsum(moves, 0)])
    expected, threshold = brute_force(thetas.tolist(), 0.5, 0.25, 0.1)
    freezing, found = Freezing.start(torch.zeros(60), 0.25), []
    for theta in thetas[1:]:
        freezing.look(torch.tensor(theta, dtype=torch.float32), 0.5, 0.1, None)
        found.append(freezing.active_N.tolist())
    assert found == expected
    assert freezing.threshold == threshold < 0.25
    assert any(not all(active) for active in found)


@pytest.mark.parametrize("more", [(), SOME])
@pytest.mark.parametrize("aggressive", [False, True])
def test_a_client_of_apf_knows_the_servers_mask(sizes, more, aggressive):
    """From payloads alone; and bytes are those of what is active, or has changed since the client's last round."""
    N, _, B = sizes
    active, seen = [], []

    def look(server, own, client):
        assert torch.equal(own.active_N, server.freezing.active_N)
        assert torch.equal(client.theta_N[~own.active_N], client.start_N[~own.active_N])
        active.append(int(own.active_N.sum()))

    params = {"alpha": 0.5, "threshold": 0.6, "aggressive": aggressive, "span": 4}
    watched = Watched(APF, params, *more, looks=look)
    assert min(active) < N
    clients = 2 if more else 3
    for t, row in enumerate(watched.rows):
        of_round = active[clients * t : clients * (t + 1)]
        assert len(set(of_round)) == 1
        seen.append(of_round[0])
        assert row["up"] == clients * (4 * of_round[0] + B)
        if not more:
            assert row["down"] == clients * (4 * (N if t == 0 else seen[t - 1]) + B)


def test_a_client_of_apf_that_missed_rounds_is_told_what_changed(sizes):
    """Four bytes for each weight that was active in a round since its last one, and two bitmaps."""
    N, _, B = sizes
    masks, asked, expected = [], {}, []

    def look(server, own, client):
        if client.t == len(masks):
            masks.append(own.active_N.clone())
        heard = asked.get(client.k)
        asked[client.k] = client.t
        if heard is None:
            expected.append((client.t, 4 * N + bitmap(N) + B))
        else:
            changed = torch.stack(masks[heard : client.t]).any(0)
            expected.append((client.t, 4 * int(changed.sum()) + 2 * bitmap(N) + B))

    watched = Watched(APF, {"alpha": 0.5, "threshold": 0.6}, *SOME, looks=look)
    for t, row in enumerate(watched.rows):
        assert row["down"] == sum(bytes_ for of, bytes_ in expected if of == t)


def test_aggressive_apf_freezes_half_of_the_unstable_at_the_most():
    freezing = Freezing.start(torch.zeros(20_000), 0.05)
    draws = torch.rand(20_000, generator=torch.Generator().manual_seed(0)) < 0.5
    freezing.look(torch.ones(20_000), 0.99, 0.8, draws)  # a first move is not stable
    assert torch.equal(freezing.active_N, ~draws)
    freezing.look(torch.ones(20_000), 0.99, 0.8, torch.zeros(20_000, dtype=torch.bool))
    assert bool(freezing.active_N.all())  # for one check


@pytest.mark.parametrize("more", [(), (*SOME, "federation.iid_10.optimizer_state=keep")])
@pytest.mark.parametrize("rule", ["projected", "chain", "reference"])
def test_averaging_commutes_with_the_embedding(sizes, more, rule):
    """The server's embedded weights are the mean of the clients' to rounding, although none was sent."""
    N, _, B = sizes
    thetas, embedded, received = {}, [], {}

    def look(server, own, client):
        if own.followers is not None:
            placed = own.followers.place(client.theta_N)
            assert torch.allclose(placed, client.theta_N, rtol=0, atol=1e-7)
        thetas.setdefault(client.t, []).append((len(client_images[client.k]), client.theta_N.clone()))
        embedded.append((client.t, 0 if own.followers is None else len(own.followers.index_E)))
        received.setdefault(client.k, []).append((client.t, len(own.new), sum(len(w.place) for w in own.new)))

    client_images = federated(*more).parts
    watched = Watched(FedCMD, {**CMD, "rule": rule}, *more, looks=look)
    assert embedded[-1][1] > 0
    first = watched.session.branch.prefix
    for t, of_round in thetas.items():
        total = sum(n for n, _ in of_round)
        mean = sum(n * theta_N.double() for n, theta_N in of_round) / total
        if t + 1 < 6 and (t + 1) % CMD["every"] == 0:
            continue  # a window closes: weights are put where its coefficients say
        assert torch.allclose(watched.weights[t - first].double(), mean, rtol=0, atol=2e-6)
    for t, row in enumerate(watched.rows, start=first):
        of_round = [count for of, count in embedded if of == t]
        assert row["up"] == sum(4 * (N - count) + B for count in of_round)
        windows = [one for own in received.values() for one in own if one[0] == t]
        had = {k: any(one[1] for one in own if one[0] < t) for k, own in received.items()}
        news = sum(9 * new + count * (bitmap(N) + 8 * CMD["modes"]) for _, count, new in windows)
        firsts = sum(
            4 * CMD["modes"] for k, own in received.items() for of, count, _ in own if of == t and count and not had[k]
        )
        assert row["down"] == sum(4 * (N - count) + B for count in of_round) + news + firsts


def test_coefficients_that_clients_derive_are_those_that_are_sent():
    """To the last bit, from the warm-up's first round on, and without a byte for them."""
    sent, derived = (Watched(FedCMD, {**CMD, "coefficients": how}) for how in ("sent", "derived"))
    first = sent.session.branch.prefix
    assert [digest_tensor(w) for w in sent.weights] == [digest_tensor(w) for w in derived.weights[first:]]
    assert sum(row["down"] for row in derived.rows[first:]) != sum(row["down"] for row in sent.rows)
    assert [row["up"] for row in sent.rows] == [row["up"] for row in derived.rows[first:]]


@pytest.mark.parametrize("more", [(), SOME])
@pytest.mark.parametrize("choice", ["random", "least_moved"])
def test_frozen_weights_stay_and_are_not_sent(sizes, more, choice):
    N, _, B = sizes
    free = []

    def look(server, own, client):
        assert torch.equal(own.frozen_N, server.frozen_N)
        assert torch.equal(client.theta_N[own.frozen_N], client.start_N[own.frozen_N])
        free.append((client.t, N - int(own.frozen_N.sum())))

    watched = Watched(FedFrozen, {**FROZEN, "choice": choice}, *more, looks=look)
    windows = watched.server.tables()["windows"]
    assert windows["epoch"].tolist() == [4]
    (count,) = windows["frozen_now"]
    moving = count / (1 - windows["trainable_fraction"].item())  # when the window closed
    assert count == int(0.2 * round(moving)) > 0
    frozen_N = watched.server.frozen_N
    assert torch.equal(watched.weights[-1][frozen_N], watched.weights[0][frozen_N])  # frozen after round 4
    for t, row in enumerate(watched.rows, start=3):
        assert row["up"] == sum(4 * count + B for of, count in free if of == t)
    if not more:
        # after the window a bitmap, with the values that had changed until then
        downs = [row["down"] for row in watched.rows]
        assert downs == [3 * (4 * N + B), 3 * (4 * N + bitmap(N) + B), 3 * (4 * (N - count) + B)]


def test_half_precision_is_that_of_numpy():
    theta = np.array([1e-9, 0.1, -1 / 3, 70_000.0, -1e9], dtype=np.float32)
    with np.errstate(over="ignore"):
        expected = np.clip(theta, -65504, 65504).astype(np.float16)
    sent = FedHalf().down(0, torch.from_numpy(theta))["theta_N"]
    assert np.array_equal(sent.numpy(), expected)
    uploads = [Upload(k, k, {"theta_N": sent[:3] * k}) for k in (1, 2)]
    mean = FedHalf().merge(iter(uploads), torch.zeros(3))
    wide = (expected[:3].astype(np.float64) + 2 * (expected[:3] * np.float16(2)).astype(np.float64)) / 3
    assert np.array_equal(mean.numpy(), wide.astype(np.float32))


@pytest.mark.parametrize("bits", [2, 3, 7, 8, 11, 16])
def test_packed_numbers_take_their_bits_and_come_back(bits):
    values = torch.from_numpy(np.random.default_rng(bits).integers(0, 2**bits, 1001)).int()
    data = packed(values, bits)
    assert data.dtype == torch.uint8
    assert len(data) == math.ceil(bits * 1001 / 8)
    text = "".join(f"{int(byte):08b}" for byte in data)
    assert [int(text[i * bits : (i + 1) * bits], 2) for i in range(1001)] == values.tolist()
    assert torch.equal(unpacked(data, bits, 1001), values)


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_a_quantised_update_is_near_and_right_in_the_mean(bits):
    layout = Layout(("a", "b", "c"), ((300,), (20, 10), (5,)))
    draws = torch.Generator().manual_seed(bits)
    D_N = torch.randn(505, generator=draws) * torch.cat([torch.ones(300), 1e-3 * torch.ones(200), torch.zeros(5)])
    s = 2 ** (bits - 1) - 1
    found = torch.stack([restored(quantised(D_N, layout, bits, draws), layout, bits) for _ in range(400)])
    largest = (part.abs().max() / s for part in D_N.split([300, 200, 5]))
    step_N = torch.cat([torch.full((n,), step) for n, step in zip((300, 200, 5), largest, strict=True)])
    assert bool(((found - D_N).abs() <= step_N * (1 + 1e-5)).all())
    assert bool(((found.mean(0) - D_N).abs() <= 4.5 * step_N / 2 / 20 + 1e-12).all())  # 4.5 standard errors at the most
    assert bool((found[:, 500:] == 0).all())


def test_top_k_of_everything_is_federated_averaging_in_the_first_round():
    everything = Watched(TopK, {"share": 1.0}).weights[0]
    trainer = federated()
    trainer.train_epoch()
    assert torch.allclose(everything, trainer.flat.theta_N, rtol=1e-6, atol=1e-8)


def test_top_k_sends_the_largest_and_remembers_the_rest():
    """What was sent so far and what is remembered are all updates so far."""
    sums, sent = {}, {}

    class Own(TopK):
        def up(self, client):
            before = client.state.get("memory_N", torch.zeros_like(client.start_N))
            D_N = client.theta_N - client.start_N + before
            payload = super().up(client)
            index = payload["index_K"].long() if "index_K" in payload else payload["is_sent_N"].nonzero().squeeze(1)
            rest = torch.ones_like(D_N, dtype=torch.bool).index_fill_(0, index, False)
            assert D_N[index].abs().min() >= D_N[rest].abs().max()
            assert torch.equal(D_N[index], payload["sent_K"])
            full_N = torch.zeros_like(D_N, dtype=torch.float64).index_copy_(0, index, payload["sent_K"].double())
            sums[client.k] = sums.get(client.k, 0) + (client.theta_N - client.start_N).double()
            sent[client.k] = sent.get(client.k, 0) + full_N
            assert torch.allclose(sent[client.k] + client.state["memory_N"], sums[client.k], rtol=0, atol=1e-5)
            return payload

    for share in (0.001, 0.3):
        sums.clear()
        sent.clear()
        trainer = federated(make=lambda share=share: Own(share))
        trainer.exchange = Own(share)
        for _ in range(3):
            trainer.train_epoch()
        assert len(sent) == 3


def test_the_proximal_term_pulls_every_step():
    """Two steps of plain SGD by hand."""
    overrides = (SGD, "federation.iid_10.clients=1", "batches_per_epoch=2", "optimizer.sgd.lr=0.05")
    steps = []

    class Own(FedProx):
        def hooks(self, client):
            pull, _ = super().hooks(client)

            def watched():
                raw_N, before_N = client.gradient_N, client.theta_N.clone()
                pull()
                steps.append((raw_N, before_N, client.gradient_N, client.start_N))

            return watched, None

    trainer = federated(*overrides, make=lambda: Own(0.7))
    trainer.train_epoch()
    assert len(steps) == 2
    for raw_N, before_N, pulled_N, start_N in steps:
        assert torch.allclose(pulled_N, raw_N + 0.7 * (before_N - start_N), rtol=1e-6, atol=1e-9)
    _, before_N, pulled_N, _ = steps[1]
    assert torch.allclose(trainer.flat.theta_N, before_N - 0.05 * pulled_N, rtol=1e-6, atol=1e-9)


def updates(rounds=5, N=200):
    draws = torch.Generator().manual_seed(7)
    return [torch.randn(N, generator=draws) * 0.01 for _ in range(rounds)]


class Zeros:
    def __init__(self, N):
        self.theta_N = torch.zeros(N)


def test_momentum_on_the_server_is_torchs():
    method = FedAvgM(momentum=0.9, rate=0.3)
    method.begin(Zeros(200))
    theta_N = torch.zeros(200)
    parameter = torch.nn.Parameter(torch.zeros(200))
    optimizer = torch.optim.SGD([parameter], lr=0.3, momentum=0.9)
    for D_N in updates():
        theta_N = method.merge(iter([Upload(0, 5, {"theta_N": theta_N + D_N})]), theta_N)
        parameter.grad = -D_N
        optimizer.step()
        assert torch.allclose(theta_N, parameter.detach(), rtol=1e-4, atol=1e-7)


def test_fedadam_is_the_papers_recursion():
    method = FedAdam(rate=0.1, beta1=0.9, beta2=0.99, tau=0.01)
    method.begin(Zeros(200))
    theta_N = torch.zeros(200)
    x, m, v = np.zeros(200), np.zeros(200), np.full(200, 0.01**2)
    for D_N in updates():
        D = D_N.numpy().astype(float)
        m, v = 0.9 * m + 0.1 * D, 0.99 * v + 0.01 * D**2
        x = x + 0.1 * m / (np.sqrt(v) + 0.01)
        theta_N = method.merge(iter([Upload(0, 5, {"theta_N": theta_N + D_N})]), theta_N)
        assert np.allclose(theta_N.numpy(), x, rtol=1e-4, atol=1e-6)


def test_scaffold_with_one_client_is_federated_averaging():
    """Its variate is the server's, which correct each other away."""
    one = ("federation.iid_10.clients=1", SGD)
    own, plain = Watched(Scaffold, {}, *one).weights, federated(*one)
    for theta_N in own:
        plain.train_epoch()
        assert torch.allclose(theta_N, plain.flat.theta_N, rtol=0, atol=1e-6)


def test_a_variate_is_the_mean_gradient_and_the_servers_is_the_clients_mean():
    """Option II gives c_k+ = the mean of the raw gradients of a client's steps, c_k and c having been taken out."""
    raw, variates = {}, {}

    class Own(Scaffold):
        def hooks(self, client):
            correct, count = super().hooks(client)

            def watched():
                raw.setdefault((client.t, client.k), []).append(client.gradient_N)
                correct()

            return watched, count

        def up(self, client):
            payload = super().up(client)
            mean_N = torch.stack(raw[client.t, client.k]).mean(0)
            assert torch.allclose(client.state["c_N"], mean_N, rtol=0, atol=2e-4 * float(mean_N.abs().max()))
            variates[client.k] = client.state["c_N"].clone()
            return payload

    trainer = federated(SGD, *SOME, make=Own)
    trainer.exchange = Scaffold()
    trainer.exchange.begin(FederatedSession(trainer, trainer.exchange.branch(6), MemoryTrajectory.of([]), Clock(CPU)))
    for _ in range(4):
        trainer.train_epoch()
        mean_N = sum(variates.values()) / 4  # of clients that took no part yet it is 0
        assert torch.allclose(trainer.exchange.c_N, mean_N, rtol=0, atol=1e-5 * float(mean_N.abs().max()))


@pytest.mark.parametrize(
    ("kind", "params", "word"),
    [
        (APF, {"alpha": 1}, "alpha"),
        (APF, {"threshold": -0.1}, "threshold"),
        (APF, {"every": 0}, "every"),
        (APF, {"tighten": 0}, "tighten"),
        (APF, {"span": 0}, "span"),
        (FedCMD, {"coefficients": "guessed"}, "coefficients"),
        (FedCMD, {"modes": 300}, "modes"),
        (FedFrozen, {"choice": "best"}, "choice"),
        (FedPAQ, {"bits": 1}, "bits"),
        (FedPAQ, {"bits": 17}, "bits"),
        (TopK, {"share": 0}, "share"),
        (TopK, {"share": 1.01}, "share"),
        (FedProx, {"mu": -1}, "mu"),
        (FedAvgM, {"momentum": 1}, "momentum"),
        (FedAdam, {"tau": 0}, "tau"),
    ],
)
def test_a_bad_parameter_is_named(kind, params, word):
    with pytest.raises(ValueError, match=rf"^{word} must .*, got "):
        kind(**params)


def test_images_and_base_are_of_the_digits():
    assert len(images_of(base_of())) > 150
