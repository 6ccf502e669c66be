"""P-SGD, P-BFGS and TWA: on a quadratic in float64 against plain algebra, and in the harness's own session."""

import math

import numpy as np
import pytest
import torch
from quadratic import QuadraticSession

from baselines.p_bfgs import PBFGS
from baselines.p_sgd import PSGD
from baselines.subspace import Subspace
from baselines.twa import TWA, published_milestones
from harness.method import Branch
from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.problem.splits import load_split
from harness.snapshots import MemoryTrajectory
from harness.storage.tensors import read_state, write_state
from harness.training.clock import Clock, Counts
from harness.training.loop import Trainer
from harness.training.session import BranchSession

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
WARMUP, BATCHES, BATCH = 4, 3, 48


# --- in the harness's own session -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warmed():
    """A base's configuration, its images, its snapshots 0..4 and its state at the end of them."""
    overrides = ("dataset=digits", "method=base", "fast=true", "device=cpu", "model.test_resnet.drop_rate=0.1")
    base = resolve(Request(overrides), "test").bases[0][0]
    images = load_split(base.dataset, "train")
    trainer = Trainer(base, images, CPU)
    rows_TN = [trainer.flat.theta_N.clone()]
    for _ in range(WARMUP):
        trainer.train_epoch()
        rows_TN.append(trainer.flat.theta_N.clone())
    return base, images, torch.stack(rows_TN), trainer.state_dict()


def begun(warmed, method, epochs=8):
    """A session at the method's start state, after `begin`."""
    base, images, snapshots_TN, end = warmed
    branch = method.branch(epochs)
    trainer = Trainer(base, images, CPU)
    if branch.start > 0:
        trainer.load_state_dict(end)
        trainer.counts = Counts()
    first, last = method.needs(epochs)
    trajectory = MemoryTrajectory(snapshots_TN).window(first, last)
    session = BranchSession(trainer, branch, trajectory, Clock(CPU), method.gradient_space)
    method.begin(session)
    session.begun = True
    return session


def train(session, method, epochs):
    """Epochs as the harness runs them."""
    for _ in range(epochs):
        t = session.t
        session._trainer.seed_epoch()
        method.train_epoch(session)
        session._trainer.t = t + 1


def outside(vector_N, rows_DN):
    """Share of a vector's length that lies outside the span of rows, in float64."""
    vector_N, rows_DN = vector_N.double().numpy(), rows_DN.double().numpy()
    Q_ND, _ = np.linalg.qr(rows_DN.T)
    return np.linalg.norm(vector_N - Q_ND @ (Q_ND.T @ vector_N)) / np.linalg.norm(vector_N)


@pytest.mark.parametrize("start", ["initial", "warmup_end"])
@pytest.mark.parametrize(
    "make",
    [
        lambda start: PSGD(warmup=WARMUP, dimensions=WARMUP, start=start),
        lambda start: PBFGS(warmup=WARMUP, dimensions=WARMUP, start=start, batch_size=BATCH),
    ],
)
def test_weights_stay_in_the_subspace_of_the_warm_up(warmed, make, start):
    method = make(start)
    session = begun(warmed, method)
    snapshots_TN = warmed[2]
    origin_N = snapshots_TN[0 if start == "initial" else WARMUP]
    assert torch.equal(session.theta_N, origin_N)
    train(session, method, 3)
    moved_N = session.theta_N - origin_N
    assert moved_N.norm() > 1e-3
    motions_DN = snapshots_TN[1:].double() - snapshots_TN[0].double()
    # the rounding of weights of length |origin|, as part of the way gone
    assert outside(moved_N, motions_DN) < 1e-6 + 1e-7 * float(origin_N.norm() / moved_N.norm())


def test_p_sgd_trains_and_its_rate_falls_after_its_milestones(warmed):
    method = PSGD(warmup=WARMUP, dimensions=WARMUP, start="warmup_end", lr=0.2, milestones=[1, 3])
    session = begun(warmed, method)
    rates = []
    for _ in range(4):
        train(session, method, 1)
        rates.append(session.last_row["lr"])
    assert rates == pytest.approx([0.2, 0.02, 0.02, 0.002])
    assert session._trainer.counts.gradients_subspace == 4 * 3 * 32
    assert session._trainer.counts.gradients_full == 0


def test_p_bfgs_lowers_the_loss_and_is_charged_every_pass(warmed):
    """Per mini-batch one gradient, one pass per try, and one more gradient where a step was taken.

    From the initial weights: after the warm-up, steps that lower the loss of 48 images need not lower that of others.
    """
    method = PBFGS(warmup=WARMUP, dimensions=WARMUP, start="initial", batch_size=BATCH)
    session = begun(warmed, method)
    before = session.probe_loss()
    counts = session._trainer.counts
    counts.forward_passes = 0  # those of the probe
    train(session, method, 2)
    table = method.tables()["line_search"]
    first = session.t - 1
    assert list(table["epoch"]) == [first, first + 1]
    assert list(table["searches"]) == [BATCHES, BATCHES]
    assert (table["accepted"] + table["exhausted"] == table["searches"]).all()
    assert (table["tries"] >= table["accepted"]).all()
    gradients = BATCH * int((table["searches"] + table["accepted"]).sum())
    assert counts.gradients_subspace == gradients
    assert counts.gradients_full == 0
    assert counts.forward_passes == gradients + BATCH * int(table["tries"].sum())
    assert session.probe_loss() < before


def by_hand(session, P_DN, origin_N, epochs, rho=0.4, sigma=0.4):
    """P-BFGS in plain NumPy on the session's losses and gradients; the coordinates after every mini-batch."""
    P_DN, origin_N = P_DN.double().numpy(), origin_N.double().numpy()
    identity_DD = np.eye(len(P_DN))
    z_D, H_DD, path = np.zeros(len(P_DN)), identity_DD, []

    def move(z_D):
        session.theta_N = torch.from_numpy(origin_N + z_D @ P_DN).float()

    for _ in range(epochs):
        for batch in session.batches(BATCH):
            move(z_D)
            before, g_N = session.gradient(batch)
            g_D = P_DN @ g_N.double().numpy()
            s_D = -H_DD @ g_D
            for _ in range(20):
                move(z_D + s_D)
                if session.loss(batch) < before + sigma * g_D @ s_D:
                    break
                s_D = rho * s_D
            else:
                H_DD = identity_DD
                path.append(z_D)
                continue
            y_D = P_DN @ session.gradient(batch)[1].double().numpy() - g_D
            z_D = z_D + s_D
            if y_D @ s_D > 1e-20:
                left_DD = identity_DD - np.outer(s_D, y_D) / (y_D @ s_D)
                H_DD = left_DD @ H_DD @ left_DD.T + np.outer(s_D, s_D) / (y_D @ s_D)
            path.append(z_D)
        session._trainer.t += 1
    return np.array(path)


def test_p_bfgs_takes_the_steps_of_the_algorithm_over_mini_batches_and_epochs(warmed):
    """As a port would not that returns inside the loop over mini-batches, or builds H anew at every call.

    In two dimensions no search is decided by rounding, as one of four is here.
    """
    method = PBFGS(warmup=WARMUP, dimensions=2, start="warmup_end", batch_size=BATCH)
    session = begun(warmed, method)
    path = by_hand(begun(warmed, PBFGS(WARMUP, 2, "warmup_end")), method.subspace.P_DN, method.origin_N, 2)
    assert len(path) == 2 * BATCHES
    for epoch in range(2):
        train(session, method, 1)
        expected_D = path[(epoch + 1) * BATCHES - 1]
        # two ways of rounding the weights to float32, through a network's gradients
        np.testing.assert_allclose(method.z_D, expected_D, rtol=0, atol=1e-3 * np.abs(expected_D).max())


def test_an_exhausted_search_leaves_the_same_bits(warmed, monkeypatch):
    """With so few tries that even the last has moved the weights."""
    method = PBFGS(warmup=WARMUP, dimensions=WARMUP, start="warmup_end", batch_size=BATCH, tries=3)
    session = begun(warmed, method)
    train(session, method, 1)
    theta_N = session.theta_N.clone()
    buffers = {name: buffer.clone() for name, buffer in session.buffers.items()}
    moved = []
    real = session.loss

    def rising(batch):
        moved.append(not torch.equal(session.theta_N, theta_N))
        return real(batch) + 1e3

    monkeypatch.setattr(session, "loss", rising)
    train(session, method, 1)
    assert moved == [True] * 3 * BATCHES
    assert torch.equal(session.theta_N, theta_N)
    assert all(torch.equal(buffers[name], buffer) for name, buffer in session.buffers.items())
    assert torch.equal(method.bfgs.H_DD, torch.eye(WARMUP, dtype=torch.float64))
    scalars = method.scalars()
    assert scalars["exhausted_searches"] == BATCHES
    assert scalars["accepted_steps"] == 0
    assert scalars["line_search_tries"] == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: PSGD(warmup=WARMUP, dimensions=3, milestones=[1]),
        lambda: PBFGS(warmup=WARMUP, dimensions=3, start="warmup_end", batch_size=BATCH),
        lambda: TWA(tail=0.6),
    ],
)
def test_resume_has_the_same_bits(warmed, tmp_path, make):
    epochs = WARMUP if isinstance(make(), TWA) else 8
    straight = make()
    session = begun(warmed, straight, epochs)
    train(session, straight, 1)
    write_state(tmp_path / "state", {"trainer": session._trainer.state_dict(), "method": straight.state_dict()})
    train(session, straight, 2)
    resumed = make()
    again = begun(warmed, resumed, epochs)
    state = read_state(tmp_path / "state")
    again._trainer.load_state_dict(state["trainer"])
    resumed.load_state_dict(state["method"])
    train(again, resumed, 2)
    assert torch.equal(again.theta_N, session.theta_N)
    assert resumed.scalars() == straight.scalars()


def test_twa_starts_at_the_mean_and_stays_in_the_span_of_the_tail(warmed):
    method = TWA(tail=0.6, lr=0.5)
    session = begun(warmed, method, WARMUP)
    tail_TN = warmed[2][3:]
    assert method.needs(WARMUP) == (3, 4)
    torch.testing.assert_close(session.theta_N, tail_TN.double().mean(0).float(), rtol=1e-5, atol=1e-6)
    start_N = session.theta_N.clone()
    train(session, method, 2)
    assert (session.theta_N - start_N).norm() > 1e-4
    assert outside(session.theta_N, tail_TN) < 1e-6


def test_the_rate_of_twa_falls_as_in_the_release(warmed):
    """Of 4 own epochs int(0.5 E) = 2 and int(0.75 E + 0.9) = 3, as torch's MultiStepLR counts them."""
    method = TWA(start=0.5, tail=0.25, epochs=None)
    session = begun(warmed, method)
    assert method.branch(8) == Branch(start=4, prefix=4, epochs=4)
    assert method.needs(8) == (3, 4)
    torch.testing.assert_close(session.theta_N, warmed[2][3:].double().mean(0).float(), rtol=1e-5, atol=1e-6)
    rates = []
    for _ in range(4):
        train(session, method, 1)
        rates.append(session.last_row["lr"])
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    falls, expected = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3]), []
    for _ in range(4):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        falls.step()
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(("epochs", "falls"), [(1, (0, 1)), (2, (1, 2)), (5, (2, 4)), (10, (5, 8)), (20, (10, 15))])
def test_the_epochs_after_which_the_rate_of_twa_falls(epochs, falls):
    assert published_milestones(epochs) == falls


# --- on a quadratic ---------------------------------------------------------------------------------------------------


def test_p_bfgs_reaches_the_minimiser_within_its_subspace():
    """All of it in float64: theta = start + P' z where (P A P') z = P (c - A start), over epochs of three batches."""
    session = QuadraticSession(N=40, T=9)
    method = PBFGS(warmup=8, dimensions=6)
    method.begin(session)
    P_DN = method.subspace.P_DN.double()
    method.subspace = Subspace(P_DN, method.subspace.singular_values)
    for _ in range(20):
        method.train_epoch(session)
    A_NN, c_N, start_N = session.A_NN, session.c_KN[0], session.snapshots_TN[0].double()
    exact_D = torch.linalg.solve(P_DN @ A_NN @ P_DN.T, P_DN @ (c_N - A_NN @ start_N))
    assert (method.z_D - exact_D).abs().max() < 1e-6
    torch.testing.assert_close(session.theta_N, start_N + exact_D @ P_DN, rtol=0, atol=1e-5)


def test_every_mini_batch_takes_a_step_and_curvature_outlives_the_epoch():
    session = QuadraticSession(noise=0.3, batches=4)
    method = PBFGS(warmup=5, dimensions=5)
    method.begin(session)
    method.train_epoch(session)
    row = method.tables()["line_search"].iloc[0]
    assert row["searches"] == row["accepted"] == 4
    assert session.gradients == 8
    assert session.losses == row["tries"]
    identity_DD = torch.eye(5, dtype=torch.float64)
    H_DD = method.bfgs.H_DD.clone()
    assert not torch.equal(H_DD, identity_DD)
    seen = []
    original = method.bfgs.step

    def step(*arguments):
        seen.append(method.bfgs.H_DD.clone())
        return original(*arguments)

    method.bfgs.step = step
    method.train_epoch(session)
    assert torch.equal(seen[0], H_DD)
    assert len(seen) == 4


def test_p_sgd_is_plain_sgd_where_the_subspace_is_everything():
    """T = N + 1 snapshots in general position span all weights; momentum and milestones are torch's own."""
    session = QuadraticSession(N=5, T=6)
    session.theta_N = session.snapshots_TN[0].clone()
    method = PSGD(warmup=5, dimensions=5, lr=0.05, milestones=[2, 3])
    method.begin(session)
    for _ in range(4):
        method.train_epoch(session)
    theta_N = torch.nn.Parameter(session.snapshots_TN[0].double())
    optimizer = torch.optim.SGD([theta_N], lr=0.05, momentum=0.9)
    falls = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3], gamma=0.1)
    for _ in range(4):
        for k in range(3):
            theta_N.grad = session.slope_N(theta_N.detach(), k)
            optimizer.step()
        falls.step()
    assert (theta_N - session.snapshots_TN[0]).norm() > 0.1
    torch.testing.assert_close(session.theta_N.double(), theta_N.detach(), rtol=0, atol=1e-5)


def test_p_sgd_is_projected_sgd_on_the_weights():
    session = QuadraticSession(N=12, T=6, noise=0.3)
    session.theta_N = session.snapshots_TN[0].clone()
    method = PSGD(warmup=5, dimensions=2, lr=0.05)
    method.begin(session)
    P_DN = method.subspace.P_DN.double()
    theta_N, velocity_N = session.snapshots_TN[0].double(), torch.zeros(12, dtype=torch.float64)
    for _ in range(3):
        method.train_epoch(session)
        for k in range(3):
            velocity_N = 0.9 * velocity_N + P_DN.T @ (P_DN @ session.slope_N(theta_N, k))
            theta_N = theta_N - 0.05 * velocity_N
    torch.testing.assert_close(session.theta_N.double(), theta_N, rtol=0, atol=1e-5)


@pytest.mark.parametrize("schedule", ["step", "constant"])
def test_twa_is_projected_sgd_with_decay_from_the_mean(schedule):
    """v <- 0.9 v + P' P (g + wd w), on the weights themselves. Of 3 epochs the last two have a tenth of the rate: it
    falls after int(0.5 E) = 1, and again after int(0.75 E + 0.9) = 3, which is the end."""
    session = QuadraticSession(N=12, T=4, noise=0.3)
    method = TWA(lr=0.05, weight_decay=0.1, schedule=schedule)
    method.begin(session)
    tail_TN = session.snapshots_TN.double()
    onto_NN = torch.linalg.pinv(tail_TN) @ tail_TN
    theta_N, velocity_N = tail_TN.mean(0), torch.zeros(12, dtype=torch.float64)
    torch.testing.assert_close(session.theta_N.double(), theta_N, rtol=0, atol=1e-6)
    for lr in (0.05, 0.005, 0.005) if schedule == "step" else [0.05] * 3:
        method.train_epoch(session)
        for k in range(3):
            velocity_N = 0.9 * velocity_N + onto_NN @ (session.slope_N(theta_N, k) + 0.1 * theta_N)
            theta_N = theta_N - lr * velocity_N
    torch.testing.assert_close(session.theta_N.double(), theta_N, rtol=0, atol=1e-5)


# --- where they branch, and what they refuse --------------------------------------------------------------------------


def test_where_they_branch():
    assert PSGD().branch(60) == Branch(start=0, prefix=20, epochs=40)
    assert PSGD(start="warmup_end", epochs=7).branch(20) == Branch(start=20, prefix=20, epochs=7)
    assert PBFGS(warmup=80, dimensions=40, epochs=20).branch(100) == Branch(start=0, prefix=80, epochs=20)
    assert PBFGS(warmup=80, dimensions=40, epochs=20).needs(100) == (0, 80)
    assert TWA().branch(60) == Branch(start=60, prefix=60, epochs=10)
    assert TWA().needs(60) == (41, 60)
    assert TWA(tail=0.5).needs(5) == (4, 5)
    assert TWA(start=0.75, epochs=None).branch(20) == Branch(start=15, prefix=15, epochs=5)
    assert TWA(start=0.75).needs(20) == (9, 15)


def test_memory_is_the_subspace_and_what_is_kept_beside_it():
    assert PSGD(dimensions=7).memory_floats(1000) == 8000
    assert PBFGS(dimensions=7).memory_floats(1000) == 9000
    twa = TWA()
    twa.needs(60)
    assert twa.memory_floats(1000) == 20_000


@pytest.mark.parametrize("method", [PSGD, PBFGS])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"warmup": 0}, "warmup must be at least 1, got 0"),
        ({"dimensions": 0}, "dimensions must be at least 1, got 0"),
        ({"dimensions": 21}, r"dimensions must be at most warmup = 20, the snapshots 0..20 less 1, got 21"),
        ({"start": "middle"}, "start must be one of initial, warmup_end, got 'middle'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 12.5}, "batch_size must be a whole number, got 12.5"),
    ],
)
def test_bad_parameters_of_both(method, values, message):
    with pytest.raises(ValueError, match=message):
        method(**values)


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        (PSGD, {"lr": 0}, "lr must be a finite number above 0, got 0"),
        (PSGD, {"momentum": 1.0}, "momentum must be at least 0 and below 1, got 1.0"),
        (PSGD, {"milestones": [3, 3]}, r"milestones must increase, got \[3, 3\]"),
        (PSGD, {"milestones": [0]}, "milestones must be at least 1, got 0"),
        (PSGD, {"milestones": 30}, "milestones must be a list of epochs, got 30"),
        (PBFGS, {"rho": 1}, "rho must be above 0 and below 1, got 1"),
        (PBFGS, {"sigma": 0.0}, "sigma must be above 0 and below 1, got 0.0"),
        (PBFGS, {"tries": 0}, "tries must be at least 1, got 0"),
        (TWA, {"tail": 1}, "tail must be above 0 and below 1, got 1"),
        (TWA, {"lr": -1}, "lr must be a finite number above 0, got -1"),
        (TWA, {"momentum": -0.1}, "momentum must be at least 0 and below 1, got -0.1"),
        (TWA, {"weight_decay": -1e-5}, "weight_decay must be at least 0, got -1e-05"),
        (TWA, {"weight_decay": math.inf}, "weight_decay must be at least 0, got inf"),
        (TWA, {"epochs": 0}, "epochs must be at least 1, got 0"),
        (TWA, {"start": 0}, "start must be above 0 and at most 1, got 0"),
        (TWA, {"start": 1.01}, "start must be above 0 and at most 1, got 1.01"),
        (TWA, {"schedule": "cosine"}, "schedule must be one of step, constant, got 'cosine'"),
        (TWA, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_bad_parameters(method, values, message):
    with pytest.raises(ValueError, match=message):
        method(**values)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: PSGD().branch(20), "warmup must be at most epochs - 1 = 19, got 20"),
        (lambda: PBFGS(epochs=3).branch(19), "warmup must be at most epochs = 19, got 20"),
        (lambda: TWA().needs(4), "tail must leave at least 2 of 4 snapshots, got 0.3333"),
        (lambda: TWA(start=0.3, tail=0.5).needs(10), "tail must ask for at most the 3 snapshots up to start, got 0.5"),
        (lambda: TWA(epochs=None).branch(10), "start must leave at least 1 of 10 epochs where epochs is null, got 1.0"),
    ],
)
def test_a_base_that_is_too_short(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()
