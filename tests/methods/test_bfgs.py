"""BFGS on coordinates against closed forms: quadratics, the textbook's update, and searches counted by hand."""

import math

import numpy as np
import pytest
import torch

from baselines.bfgs import BFGS
from baselines.subspace import Subspace

D, N = 8, 200


def positive(size, seed, condition=100.0):
    """A symmetric matrix with eigenvalues from 1 to `condition`."""
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((size, size)))
    return torch.tensor(Q * np.geomspace(1, condition, size) @ Q.T)


class Counted:
    """A loss and its gradient, counting calls."""

    def __init__(self, loss, gradient):
        self._loss, self._gradient = loss, gradient
        self.losses, self.gradients = [], []

    def loss(self, z_D):
        self.losses.append(z_D.clone())
        return float(self._loss(z_D))

    def gradient(self, z_D):
        self.gradients.append(z_D.clone())
        return float(self._loss(z_D)), self._gradient(z_D)


def quadratic(A_DD, c_D):
    return Counted(lambda z_D: z_D @ A_DD @ z_D / 2 - c_D @ z_D, lambda z_D: A_DD @ z_D - c_D)


def test_reaches_the_minimiser_of_a_quadratic_within_its_subspace():
    """f(theta) over theta = start + P' z, whose minimiser solves (P A P') z = P (c - A start)."""
    rng = np.random.default_rng(0)
    W_TN = torch.tensor(rng.standard_normal((D + 1, N)), dtype=torch.float32)
    P_DN = Subspace.fit(W_TN, D).P_DN.double()
    A_NN, c_N, start_N = positive(N, 1), torch.tensor(rng.standard_normal(N)), W_TN[0].double()
    f = Counted(
        lambda z_D: (start_N + z_D @ P_DN) @ (A_NN @ (start_N + z_D @ P_DN) / 2 - c_N),
        lambda z_D: P_DN @ (A_NN @ (start_N + z_D @ P_DN) - c_N),
    )
    bfgs, z_D = BFGS(D), torch.zeros(D, dtype=torch.float64)
    for _ in range(60):
        z_D = bfgs.step(z_D, f.loss, f.gradient).z_D
    exact_D = torch.linalg.solve(P_DN @ A_NN @ P_DN.T, P_DN @ (c_N - A_NN @ start_N))
    assert (z_D - exact_D).abs().max() < 1e-6


def test_curvature_that_persists_is_what_gets_there():
    """With H rebuilt before every step the same number of steps does not, on an ill-conditioned quadratic."""
    A_DD, c_D = positive(D, 2, condition=1e4), torch.ones(D, dtype=torch.float64)
    exact_D = torch.linalg.solve(A_DD, c_D)
    ends = {}
    for rebuilt in (False, True):
        f, bfgs, z_D = quadratic(A_DD, c_D), BFGS(D), torch.zeros(D, dtype=torch.float64)
        for _ in range(120):
            if rebuilt:
                bfgs.reset()
            z_D = bfgs.step(z_D, f.loss, f.gradient).z_D
        ends[rebuilt] = float((z_D - exact_D).abs().max())
    assert ends[False] < 1e-6 < 1e-2 < ends[True]


def test_update_is_the_textbooks():
    draw = torch.Generator().manual_seed(0)
    bfgs, H_DD, identity_DD = BFGS(D), torch.eye(D, dtype=torch.float64), torch.eye(D, dtype=torch.float64)
    A_DD = positive(D, 3)
    for _ in range(5):
        s_D = torch.randn(D, dtype=torch.float64, generator=draw)
        y_D = A_DD @ s_D
        assert bfgs.update(s_D, y_D)
        left_DD = identity_DD - torch.outer(s_D, y_D) / (y_D @ s_D)
        H_DD = left_DD @ H_DD @ left_DD.T + torch.outer(s_D, s_D) / (y_D @ s_D)
        torch.testing.assert_close(bfgs.H_DD, H_DD, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(bfgs.H_DD @ y_D, s_D)
        assert torch.equal(bfgs.H_DD, bfgs.H_DD.T)
        assert torch.linalg.eigvalsh(bfgs.H_DD).min() > 0


def test_search_takes_the_first_length_that_decreases_enough():
    """f = 50 z^2 from z = 1 along -100 t: f falls by more than 0.4 of t 10^4 where t < 0.012, and 0.4^5 = 0.01024."""
    f = quadratic(torch.tensor([[100.0]], dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    step = BFGS(1).step(torch.ones(1, dtype=torch.float64), f.loss, f.gradient)
    assert step.tries == len(f.losses) == 6
    assert float(step.z_D) == pytest.approx(1 - 100 * 0.4**5)
    assert step.loss == pytest.approx(50.0)
    assert [float(z_D) for z_D in f.gradients] == [1.0, float(step.z_D)]


def test_tries_bound_the_search():
    f = quadratic(torch.tensor([[100.0]], dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    z_D = torch.ones(1, dtype=torch.float64)
    assert BFGS(1, tries=6).step(z_D, f.loss, f.gradient).accepted
    assert not BFGS(1, tries=5).step(z_D, f.loss, f.gradient).accepted


def known(dimensions):
    """A BFGS that has taken some curvature in."""
    bfgs = BFGS(dimensions)
    s_D = torch.arange(1.0, dimensions + 1, dtype=torch.float64)
    assert bfgs.update(s_D, 2 * s_D)
    assert not torch.equal(bfgs.H_DD, torch.eye(dimensions, dtype=torch.float64))
    return bfgs


def test_an_exhausted_search_takes_no_step_and_forgets():
    """The gradient promises a descent that the loss never shows."""
    f = Counted(lambda z_D: 1.0 + z_D.abs().sum(), torch.ones_like)
    bfgs, z_D = known(D), torch.zeros(D, dtype=torch.float64)
    step = bfgs.step(z_D, f.loss, f.gradient)
    assert step.z_D is z_D
    assert (step.tries, step.accepted, step.updated) == (20, False, False)
    assert (len(f.losses), len(f.gradients)) == (20, 1)
    assert torch.equal(bfgs.H_DD, torch.eye(D, dtype=torch.float64))


@pytest.mark.parametrize("loss", [math.nan, math.inf, 0.0])
def test_without_a_descent_direction_nothing_is_tried(loss):
    """A loss or gradient that is not finite, or a gradient that vanishes."""
    f = Counted(lambda z_D: loss, lambda z_D: torch.full_like(z_D, loss))
    bfgs, z_D = known(D), torch.zeros(D, dtype=torch.float64)
    step = bfgs.step(z_D, f.loss, f.gradient)
    assert step.z_D is z_D
    assert (step.tries, step.accepted) == (0, False)
    assert torch.equal(bfgs.H_DD, torch.eye(D, dtype=torch.float64))


def test_points_that_are_not_finite_are_passed_over():
    """The loss log(z) ends at 0, where the first try from z = 1 leads; the second has 0.4 of its length."""
    f = Counted(lambda z_D: z_D.log().sum() if (z_D > 0).all() else math.nan, lambda z_D: 1 / z_D)
    step = BFGS(1, sigma=0.1).step(torch.ones(1, dtype=torch.float64), f.loss, f.gradient)
    assert step.accepted
    assert float(step.z_D) == pytest.approx(0.6)


def test_curvature_comes_from_one_mini_batch():
    """Mini-batches with their own minimum share A: y of one batch is A s, of two it would hold their difference too."""
    rng = np.random.default_rng(4)
    A_DD = positive(D, 5, condition=10)
    bfgs, z_D = BFGS(D), torch.zeros(D, dtype=torch.float64)
    for _ in range(6):
        f = quadratic(A_DD, torch.tensor(10 * rng.standard_normal(D)))
        step = bfgs.step(z_D, f.loss, f.gradient)
        assert step.accepted
        assert step.updated
        s_D = step.z_D - z_D
        torch.testing.assert_close(bfgs.H_DD @ (A_DD @ s_D), s_D)
        z_D = step.z_D


@pytest.mark.parametrize("scale", [-1.0, 0.0, 1e-21, 1e-10])
def test_curvature_that_is_negative_or_lost_is_skipped(scale):
    """y = scale * s + something orthogonal to s: y's is 1e-21 or so, or 1e-10 of |y| |s|."""
    bfgs = known(2)
    before_DD = bfgs.H_DD.clone()
    s_D, y_D = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([scale, 1.0], dtype=torch.float64)
    assert not bfgs.update(s_D, y_D)
    assert torch.equal(bfgs.H_DD, before_DD)


def test_tiny_steps_along_clear_curvature_are_skipped_at_the_published_bound():
    s_D = torch.tensor([1e-10, 0.0], dtype=torch.float64)
    assert not BFGS(2).update(s_D, 0.5 * s_D)
    assert BFGS(2).update(s_D, 2 * s_D)


def test_state_continues():
    f = quadratic(positive(D, 6), torch.ones(D, dtype=torch.float64))
    bfgs, z_D = BFGS(D), torch.zeros(D, dtype=torch.float64)
    for _ in range(3):
        z_D = bfgs.step(z_D, f.loss, f.gradient).z_D
    resumed = BFGS(D)
    resumed.load_state_dict(bfgs.state_dict())
    assert torch.equal(bfgs.step(z_D, f.loss, f.gradient).z_D, resumed.step(z_D, f.loss, f.gradient).z_D)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dimensions": 0}, "dimensions must be at least 1, got 0"),
        ({"dimensions": 2, "rho": 1.0}, "rho must be above 0 and below 1, got 1.0"),
        ({"dimensions": 2, "rho": 0}, "rho must be above 0 and below 1, got 0"),
        ({"dimensions": 2, "sigma": 1.5}, "sigma must be above 0 and below 1, got 1.5"),
        ({"dimensions": 2, "sigma": math.nan}, "sigma must be above 0 and below 1, got nan"),
        ({"dimensions": 2, "tries": 0}, "tries must be at least 1, got 0"),
        ({"dimensions": 2, "tries": 2.5}, "tries must be a whole number, got 2.5"),
    ],
)
def test_bad_parameters(values, message):
    with pytest.raises(ValueError, match=message):
        BFGS(**values)
