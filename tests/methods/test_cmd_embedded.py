"""Embedded CMD against the algorithm in plain lines, and its promises under torch's optimizers."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from baselines.cmd import EmbeddedCMD, reference
from baselines.cmd.embedded_choice import MOVEMENTS, FreeFit
from baselines.cmd.embedded_rules import RULES, optimizer_state
from baselines.cmd.posthoc import decompose
from baselines.cmd_embedded import CMDEmbedded
from harness.method import Branch, Snapshot
from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.problem.splits import load_split
from harness.snapshots import MemoryTrajectory
from harness.storage.tensors import read_state, write_state
from harness.training.clock import Clock
from harness.training.loop import Trainer
from harness.training.session import BranchSession

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
N, STEPS = 30, 4
CONSTANT = (3, 25)
"""weights at 0 without a gradient, where weight decay leaves them; the others have one in every step"""
MOVING = N - len(CONSTANT)
SETTINGS = {"modes": 3, "samples": N, "warmup": 5, "every": 2, "percent": 20.0}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.03),
    "sgd_decay": lambda p: torch.optim.SGD(p, lr=0.03, weight_decay=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.003, momentum=0.5),
}


class Tensors(nn.Module):
    """Weights in a channels_last kernel, a scalar and a vector."""

    def __init__(self):
        super().__init__()
        start_N = torch.from_numpy(np.random.default_rng(7).normal(size=N).astype(np.float32))
        start_N[list(CONSTANT)] = 0
        kernel = start_N[:16].view(2, 2, 2, 2).contiguous(memory_format=torch.channels_last)
        self.kernel = nn.Parameter(kernel)
        self.scalar = nn.Parameter(start_N[16].clone())
        self.vector = nn.Parameter(start_N[17:].clone())

    def theta(self):
        return torch.cat([p.reshape(-1) for p in self.parameters()])


class Quadratic:
    """The loss theta' A theta / 2 - c' theta, with a new c in every step; A couples the weights or does not."""

    def __init__(self, coupled=True):
        rng = np.random.default_rng(5)
        factor_NN = rng.normal(size=(N, N)) / N**0.5
        self.A_NN = factor_NN @ factor_NN.T + 0.1 * np.eye(N) if coupled else np.diag(rng.uniform(0.1, 1, N))
        self.A_NN[list(CONSTANT)] = 0
        self.A_NN[:, list(CONSTANT)] = 0
        self.drive_DN = rng.normal(size=(3, N))

    def c(self, step):
        rng = np.random.default_rng(1000 + step)
        c_N = rng.normal(size=3) @ self.drive_DN + 0.2 * rng.normal(size=N)
        c_N[list(CONSTANT)] = 0
        return c_N

    def gradient(self, theta_N, step):
        return self.A_NN @ theta_N - self.c(step)

    def backward(self, model, step):
        theta_N = model.theta()
        A_NN, c_N = (torch.from_numpy(array).float() for array in (self.A_NN, self.c(step)))
        (theta_N @ A_NN @ theta_N / 2 - c_N @ theta_N).backward()


class Loop:
    """A user's own loop; `check` is called after every step."""

    def __init__(self, optimizer="sgd", coupled=True, **settings):
        self.model = Tensors()
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.problem = Quadratic(coupled)
        self.cmd = EmbeddedCMD(self.model, self.optimizer, **{**SETTINGS, **settings})
        self.step = 0

    def epoch(self, check=lambda: None):
        for _ in range(STEPS):
            self.optimizer.zero_grad()
            self.problem.backward(self.model, self.step)
            self.cmd.after_backward()
            self.optimizer.step()
            self.cmd.after_step()
            self.step += 1
            check()
        self.cmd.after_epoch()

    def run(self, epochs, check=lambda: None):
        for _ in range(epochs):
            self.epoch(check)
        return self

    def theta(self):
        return self.model.theta().detach().clone()


class PlainSGD:
    """Epochs of SGD in float64; between steps the weights in `embedded` are kept to their constraint by a rule."""

    def __init__(self, problem, lr, decay=0.0, rule=None):
        self.problem, self.lr, self.decay, self.rule = problem, lr, decay, rule
        self.embedded = {}
        self.step = 0

    def __call__(self, theta_N):
        for _ in range(STEPS):
            g_N = self.problem.gradient(theta_N, self.step) + self.decay * theta_N
            self.step += 1
            theta_N = self.keep(theta_N, g_N) if self.rule else theta_N - self.lr * g_N
        return theta_N

    def keep(self, theta_N, g_N):
        moved_N = theta_N - self.lr * g_N
        for x in {followed for *_, followed in self.embedded.values()}:
            lines = {i: (a, b) for i, (a, b, followed) in self.embedded.items() if followed == x}
            v = 1 + sum(a**2 for a, _ in lines.values())
            if self.rule == "chain":
                moved_N[x] = theta_N[x] - self.lr * (g_N[x] + sum(a * g_N[i] for i, (a, _) in lines.items())) / v
            if self.rule == "projected":
                moved_N[x] = (moved_N[x] + sum(a * (moved_N[i] - b) for i, (a, b) in lines.items())) / v
            for i, (a, b) in lines.items():
                moved_N[i] = a * moved_N[x] + b
        return moved_N


def assert_is_the_reference(loop, sgd):
    """Twelve epochs with three windows of 20 percent of 28, 5 each: which are embedded when, and where all then are."""
    start_N = loop.theta().double().numpy()
    moving_K = np.setdiff1d(np.arange(N), CONSTANT)
    plan = [SETTINGS[name] for name in ("warmup", "every", "percent")]
    for theta_N, embedded in reference.embedded(start_N, sgd, 12, SETTINGS["modes"], moving_K, *plan):
        sgd.embedded = embedded
        loop.epoch()
        assert loop.cmd.embedded == len(embedded)
        if embedded:
            assert loop.cmd.embedding.index_E.tolist() == sorted(embedded)
        np.testing.assert_allclose(loop.theta().numpy(), theta_N, atol=1e-5)
    assert len(embedded) == 15
    assert not embedded.keys() & {*loop.cmd.reference_M.tolist(), *CONSTANT}


def test_is_the_published_algorithm_where_an_epoch_is_one_step(monkeypatch):
    """Everything is trained, and embedded weights are overwritten at the end of the epoch."""
    monkeypatch.setattr(sys.modules[__name__], "STEPS", 1)
    loop = Loop(rule="reference")
    assert_is_the_reference(loop, PlainSGD(loop.problem, 0.03))


@pytest.mark.parametrize(("optimizer", "decay"), [("sgd", 0.0), ("sgd_decay", 0.1)])
@pytest.mark.parametrize("rule", RULES)
def test_follows_the_rules_in_loops(rule, optimizer, decay):
    """The constraint after every step of an epoch, by formulas over single weights."""
    loop = Loop(optimizer, rule=rule)
    assert_is_the_reference(loop, PlainSGD(loop.problem, 0.03, decay, rule))


class Constraint:
    """The coefficients of every embedded weight when it was first seen, and how far it is from them, in float64."""

    def __init__(self, loop):
        self.loop = loop
        self.line_of = {}
        self.checks = 0

    def __call__(self):
        cmd = self.loop.cmd
        theta_N = self.loop.theta().double()
        for number, i in enumerate([] if cmd.embedding is None else cmd.embedding.index_E.tolist()):
            embedding = cmd.embedding
            group = int(embedding.group_E[number])
            coefficients = (
                float(embedding.a_E[number]),
                float(embedding.wbar_E[number]),
                float(embedding.mu_G[group]),
                int(cmd.reference_M[group % len(cmd.reference_M)]),
            )
            assert self.line_of.setdefault(i, coefficients) == coefficients
            a, wbar, mu, followed = coefficients
            gap = abs(theta_N[i] - (wbar + a * (theta_N[followed] - mu)))
            assert gap <= 1e-6 * max(1, abs(theta_N[i]))
            self.checks += 1
        assert not {i for *_, i in self.line_of.values()} & self.line_of.keys()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", RULES)
def test_the_constraint_holds_after_every_step(rule, optimizer):
    loop = Loop(optimizer, rule=rule, percent_of="remaining")
    check = Constraint(loop)
    loop.run(6)
    for _ in range(6):
        loop.epoch(check)
        check()
    # windows at 8, 10 and 12 take 20 percent of 28, 23 and 19 weights: 5, 9 and 12 are embedded
    assert check.checks == 5 + 2 * 4 * 5 + 5 + 9 + 2 * 4 * 9 + 9 + 12
    assert bool(loop.theta().isfinite().all())


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "nadam", "rmsprop"])
@pytest.mark.parametrize("rule", RULES)
def test_optimizer_state_is_zeroed_once_or_for_good(rule, optimizer):
    """The scalar is embedded too, while its counter of steps, 0-d like itself, stays."""
    loop = Loop(optimizer, rule=rule, percent=90.0)
    parameters = list(loop.model.parameters())

    def state_E():
        states = optimizer_state(loop.optimizer, parameters)
        assert len(states) >= 1
        return torch.stack([loop.cmd.embedding.places.take(tensors) for tensors in states])

    loop.run(8)
    assert 16 in loop.cmd.embedding.index_E
    assert not state_E().any()
    loop.epoch()
    assert bool(state_E().any()) == (rule == "projected")
    if "step" in loop.optimizer.state[loop.model.scalar]:
        assert float(loop.optimizer.state[loop.model.scalar]["step"]) == 9 * STEPS


def test_trained_weights_keep_their_optimizer_state():
    """Of a loss that does not couple weights, under the published rule: as if nothing were embedded."""
    embedded, plain = Loop("adam", coupled=False, rule="reference"), Loop("adam", coupled=False, percent=0.01)
    embedded.run(12)
    plain.run(12)
    assert embedded.cmd.embedded == 15
    assert plain.cmd.embedded == 0
    free_N = embedded.cmd.free.free_N
    assert torch.equal(embedded.theta()[free_N], plain.theta()[free_N])
    assert not torch.equal(embedded.theta(), plain.theta())


@pytest.mark.parametrize("maximize", [False, True])
def test_projected_is_normalised_chain_for_plain_sgd(monkeypatch, maximize):
    """Weight decay and rates of their own for each tensor included; a sign of the loss stands for `maximize`."""

    def optimizer(parameters):
        rest, last = list(parameters)[:-1], list(parameters)[-1]
        groups = [{"params": rest, "lr": 0.03, "weight_decay": 0.2}, {"params": [last], "lr": 0.03}]
        return torch.optim.SGD(groups, lr=0.1, weight_decay=0.05, maximize=maximize)

    monkeypatch.setitem(OPTIMIZERS, "groups", lambda parameters: optimizer(list(parameters)))
    if maximize:
        minimise = Quadratic.backward

        def backward(self, model, step):
            minimise(self, model, step)
            for p in model.parameters():
                p.grad.neg_()

        monkeypatch.setattr(Quadratic, "backward", backward)
    projected, chain = (Loop("groups", rule=rule).run(12) for rule in ("projected", "chain"))
    assert projected.cmd.embedded == chain.cmd.embedded == 15
    torch.testing.assert_close(projected.theta(), chain.theta(), rtol=0, atol=2e-6)


def test_decoupled_decay_goes_through_the_chain_too(monkeypatch):
    """Without a gradient AdamW only decays: x loses lr decay (x + sum a_i w_i) / v."""
    loop = Loop("adamw", rule="chain").run(8)
    loop.optimizer = loop.cmd.optimizer = loop.cmd.embedding.optimizer = OPTIMIZERS["adamw"](loop.model.parameters())
    before_N = loop.theta().double()
    loop.optimizer.zero_grad()
    (0 * loop.model.theta().sum()).backward()
    loop.cmd.after_backward()
    loop.optimizer.step()
    loop.cmd.after_step()
    embedding = loop.cmd.embedding
    for m, x in enumerate(loop.cmd.reference_M.tolist()):
        own = embedding.group_E % len(loop.cmd.reference_M) == m
        a_E, w_E = embedding.a_E[own].double(), before_N[embedding.index_E[own]]
        pull = 0.01 * 0.3 * (before_N[x] + (a_E * w_E).sum()) / (1 + (a_E**2).sum())
        assert float(loop.theta()[x]) == pytest.approx(float(before_N[x] - pull), abs=1e-7)


def random_walks(seed, T=9):
    """Weight 0 never moves."""
    rng = np.random.default_rng(seed)
    rows_TN = rng.normal(size=N) + 0.1 * (rng.normal(size=(T, 2)) @ rng.normal(size=(2, N)))
    rows_TN += 0.03 * rng.normal(size=(T, N)).cumsum(0)
    rows_TN[:, 0] = rows_TN[0, 0]
    return rows_TN.astype(np.float32)


def free_fit(rows_TN, movement, warmup=5):
    snapshots = tuple(Snapshot(t, t, torch.from_numpy(row_N), {}) for t, row_N in enumerate(rows_TN, start=1))
    window = MemoryTrajectory.of(snapshots[:warmup])
    free = FreeFit(decompose(window, 3, torch.arange(2, N)), window, movement, 1 << 20)
    for snapshot in snapshots[warmup:]:
        free.update(snapshot.theta_N)
    return free


@pytest.mark.parametrize("movement", MOVEMENTS)
def test_movement_of_the_coefficients(movement):
    rows_TN = random_walks(0)
    free = free_fit(rows_TN, movement)
    rows_TN = rows_TN.astype(np.float64)
    movement_N = free.movement().numpy()
    for i in range(2, N):
        x_T, w_T = rows_TN[:, int(free.online.reference_M[int(free.online.mode_N[i])])], rows_TN[:, i]
        (a0, b0), (a1, b1) = np.polyfit(x_T[:5], w_T[:5], 1), np.polyfit(x_T, w_T, 1)
        expected = np.hypot(a1 - a0, b1 - b0)
        if movement == "scale_free":
            change = (a1 * x_T.mean() + b1) - (a0 * x_T.mean() + b0)
            expected = (abs(a1 - a0) * x_T.std() + abs(change)) / w_T.std()
        assert movement_N[i] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_scale_free_movement_is_free_of_scale():
    rows_TN = random_walks(1)
    scaled_TN = rows_TN * np.where(np.arange(N) % 2, np.float32(64), np.float32(1))
    movement_N, scaled_N = (free_fit(each, "scale_free").movement()[2:] for each in (rows_TN, scaled_TN))
    torch.testing.assert_close(movement_N, scaled_N, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("movement", MOVEMENTS)
@pytest.mark.parametrize("without", [{0, 1}, {1}])
def test_who_may_be_embedded(movement, without):
    """Not references, nor those without a gradient, whether they move or not; weight 0, which never moved, where it has
    one."""
    free = free_fit(random_walks(2), movement)
    moving_N = torch.ones(N, dtype=torch.bool).index_fill_(0, torch.tensor(sorted(without)), False)
    out = without | set(free.online.reference_M.tolist())
    index, *_, largest = free.release(N, moving_N)
    assert set(index.tolist()) == set(range(N)) - out
    assert set(torch.nonzero(free.free_N).squeeze(1).tolist()) == out
    assert largest > 0
    assert free.release(N, moving_N)[0].numel() == 0


def test_statistics_of_the_free_go_on_as_if_nobody_had_left():
    rows_TN = random_walks(3, T=12)
    whole, less = (free_fit(rows_TN[:8], "scale_free") for _ in range(2))
    less.release(9, torch.ones(N, dtype=torch.bool))
    kept_N = less.free_N
    for row_N in rows_TN[8:]:
        whole.update(torch.from_numpy(row_N))
        less.update(torch.from_numpy(row_N))
    assert int(kept_N.sum()) == N - 9
    assert torch.equal(less.online.a_N, whole.online.a_N[kept_N])
    assert torch.equal(less.online.wbar_N, whole.online.wbar_N[kept_N])
    assert torch.equal(less.squares_F, whole.squares_F[kept_N])


def test_percent_of_all_weights_or_of_those_that_remain():
    every = Loop(percent=25.0)
    remaining = Loop(percent=25.0, percent_of="remaining")
    counts = []
    for loop in (every, remaining):
        loop.run(7)
        counts.append([])
        for _ in range(4):
            loop.run(2)
            counts[-1].append(loop.cmd.embedded)
    # of 28: 7 each time until the 25 that are eligible are used up; else 7, then 25 % of 21, 16 and 12
    assert counts == [[7, 14, 21, 25], [7, 12, 16, 19]]


def test_numbers_of_an_epoch_and_tables():
    loop = Loop().run(10)
    scalars, tables = loop.cmd.scalars(), loop.cmd.tables()
    assert scalars["trainable_fraction"] == pytest.approx(18 / MOVING)
    # embedded while trained: 5 in epochs 9 and 10
    assert scalars["saved"] == pytest.approx(100 * 10 / (MOVING * 10))
    assert scalars["embedded"] == 10
    assert scalars["without_gradient"] == len(CONSTANT)
    assert tables["windows"]["epoch"].tolist() == [8, 10]
    assert tables["windows"]["embedded"].tolist() == [5, 10]
    assert tables["modes"]["embedded"].sum() == 10
    before = {"trainable_fraction": 1.0, "saved": 0.0, "embedded": 0.0, "without_gradient": 2.0}
    assert Loop().run(3).cmd.scalars() == before


@pytest.mark.parametrize("rule", RULES)
def test_weights_that_only_decay_are_neither_embedded_nor_counted(rule):
    """They move in every step and never have a gradient: with all embedded that may be, only references are trained."""
    loop = Loop("adamw", rule=rule, percent=100.0)
    with torch.no_grad():
        loop.model.kernel[0, 0, 1, 1] = 1.0
        loop.model.vector[CONSTANT[1] - 17] = 1.0
    start_N = loop.theta()
    loop.run(9)
    assert (loop.theta() != start_N)[list(CONSTANT)].all()
    assert not set(CONSTANT) & set(loop.cmd.embedding.index_E.tolist())
    references = len(set(loop.cmd.reference_M.tolist()) - set(CONSTANT))
    assert loop.cmd.embedded == MOVING - references
    assert loop.cmd.trainable_fraction == pytest.approx(references / MOVING)


def test_a_gradient_in_a_single_step_is_enough():
    """Seen in the warm-up, in one step of one epoch, although the weight has moved no further since."""
    loop = Loop(percent=100.0).run(2)
    for p in loop.model.parameters():
        p.grad = torch.zeros_like(p)
    loop.model.vector.grad[8] = 1e-30
    loop.cmd.after_backward()
    loop.run(6)
    assert loop.cmd.scalars()["without_gradient"] == 1
    assert 25 in loop.cmd.embedding.index_E or 25 in loop.cmd.reference_M


def test_rows_of_a_table_without_a_gradient_are_not_counted():
    """An embedding with sparse gradients, of which two rows of six are looked up."""
    model = nn.Sequential(nn.Embedding(6, 4, sparse=True), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    cmd = EmbeddedCMD(model, optimizer, modes=2, samples=13, warmup=2, every=2, percent=50.0)
    for _ in range(4):
        optimizer.zero_grad()
        (model(torch.tensor([1, 4])) - 1).square().mean().backward()
        cmd.after_backward()
        optimizer.step()
        cmd.after_step()
        cmd.after_epoch()
    assert cmd.scalars()["without_gradient"] == 16
    assert cmd.embedded == 6
    assert cmd.trainable_fraction == 1 - 6 / 13


def test_a_loop_that_shows_no_gradients_is_refused():
    loop = Loop()
    loop.cmd.after_backward = lambda: None
    with pytest.raises(ValueError, match=r"after_backward must follow every backward pass, got no .* 8 epochs"):
        loop.run(8)


@pytest.mark.parametrize("movement", MOVEMENTS)
@pytest.mark.parametrize("halt", [3, 7, 11])
def test_own_loop_goes_on_with_the_same_bits(tmp_path, movement, halt):
    """Halted in the warm-up, after it, and between windows."""
    settings = {"optimizer": "adam", "rule": "projected", "movement": movement}
    straight, halted = Loop(**settings).run(14), Loop(**settings).run(halt)
    whole = {"cmd": halted.cmd.state_dict(), "optimizer": halted.optimizer.state_dict(), "theta_N": halted.theta()}
    write_state(tmp_path / "state", whole)
    state = read_state(tmp_path / "state")
    resumed = Loop(**settings)
    with torch.no_grad():
        for p, part in zip(resumed.model.parameters(), state["theta_N"].split([16, 1, 13]), strict=True):
            p.copy_(part.view(p.shape))
    resumed.optimizer.load_state_dict(state["optimizer"])
    resumed.cmd.load_state_dict(state["cmd"])
    resumed.step = halt * STEPS
    resumed.run(14 - halt)
    assert torch.equal(resumed.theta(), straight.theta())
    assert resumed.cmd.scalars() == straight.cmd.scalars()
    assert resumed.cmd.tables()["windows"].equals(straight.cmd.tables()["windows"])


TINY = ("dataset=digits", "method=base", "fast=true", "device=cpu")


class Harnessed:
    """The brancher in the harness's own session on a few digits, its base at the start state."""

    def __init__(self, images, rule, optimizer):
        base = resolve(Request((*TINY, f"optimizer={optimizer}")), "test").bases[0][0]
        self.method = CMDEmbedded(modes=3, samples=50, warmup=2, every=2, percent=5.0, rule=rule)
        self.trainer = Trainer(base, images, CPU)
        snapshots = []
        for _ in range(3):
            self.trainer.train_epoch()
            live = self.trainer.snapshot()
            snapshots.append(Snapshot(live.t, live.step, live.theta_N.clone(), {}))
        trajectory = MemoryTrajectory.of(snapshots)
        self.session = BranchSession(self.trainer, self.method.branch(6), trajectory, Clock(CPU), "full")
        self.method.begin(self.session)

    def now(self):
        return self.session.theta_N.clone(), self.method.scalars()


@pytest.fixture(scope="module")
def images():
    return load_split(resolve(Request(TINY), "test").bases[0][0].dataset, "train")


@pytest.mark.parametrize(
    ("rule", "optimizer"), [("projected", "sgd_momentum"), ("chain", "adamw"), ("reference", "adam")]
)
def test_brancher_resumes_with_the_same_bits(images, tmp_path, rule, optimizer):
    straight, halted = Harnessed(images, rule, optimizer), Harnessed(images, rule, optimizer)
    for _ in range(3):
        straight.method.train_epoch(straight.session)
    for _ in range(2):
        halted.method.train_epoch(halted.session)
    write_state(tmp_path / "state", {"trainer": halted.trainer.state_dict(), "method": halted.method.state_dict()})
    resumed = Harnessed(images, rule, optimizer)
    state = read_state(tmp_path / "state")
    resumed.trainer.load_state_dict(state["trainer"])
    resumed.method.load_state_dict(state["method"])
    resumed.method.train_epoch(resumed.session)
    (theta_N, scalars), (expected_N, expected) = resumed.now(), straight.now()
    assert torch.equal(theta_N, expected_N)
    assert scalars == expected
    # windows at epochs 4 and 6 of a clock that counts the prefix
    assert straight.method.tables()["windows"]["epoch"].tolist() == [4, 6]
    assert scalars["trainable_fraction"] == pytest.approx(0.9, abs=1e-4)


def test_brancher_starts_at_the_end_of_the_warm_up():
    assert CMDEmbedded(warmup=20).branch(150) == Branch(start=21, prefix=21, epochs=129)
    assert CMDEmbedded(warmup=20).needs(150) == (1, 21)
    with pytest.raises(ValueError, match="warmup must be below epochs - 1 = 20, got 20"):
        CMDEmbedded(warmup=20).branch(21)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modes": 5, "samples": 4}, "modes must be at most samples = 4, got 5"),
        ({"warmup": 1}, "warmup must be at least 2, got 1"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"percent": 0}, "percent must be above 0 and at most 100, got 0"),
        ({"percent": 100.5}, "percent must be above 0 and at most 100, got 100.5"),
        ({"percent_of": "some"}, "percent_of must be one of all, remaining, got 'some'"),
        ({"rule": "none"}, "rule must be one of projected, chain, reference, got 'none'"),
        ({"movement": "far"}, "movement must be one of coefficients, scale_free, got 'far'"),
    ],
)
def test_bad_parameters(values, message):
    model = Tensors()
    for make in (CMDEmbedded, lambda **values: EmbeddedCMD(model, OPTIMIZERS["sgd"](model.parameters()), **values)):
        with pytest.raises(ValueError, match=message):
            make(**values)


def test_bad_weights():
    model = Tensors().double()
    with pytest.raises(ValueError, match=r"parameter kernel must be float32, got torch.float64"):
        EmbeddedCMD(model, OPTIMIZERS["sgd"](model.parameters()))
    loop = Loop().run(1)
    with torch.no_grad():
        loop.model.vector[4] = torch.nan
    with pytest.raises(ValueError, match="snapshot t=2 must be finite, got nan or inf in vector"):
        loop.cmd.after_epoch()
