"""Schedule-free training against the algorithm written out for one weight, and against the package's own swap."""

import copy
import math

import pytest
import torch
from torch import nn

from baselines.schedule_free import ScheduleFree
from harness.method import Branch, Layout

STEPS = 8


class Bowl:
    """A session that trains one weight on (w - 3)^2 / 2, from 10."""

    def __init__(self, optimizer):
        self.theta_N = torch.full((1,), 10.0)
        self.parameters = [nn.Parameter(self.theta_N)]
        self.parameters[0].data = self.theta_N
        self.layout = Layout(("w",), ((1,),))
        self.branch = Branch(0, 0, 2)
        self.steps_per_epoch = STEPS
        self.optimizer = optimizer(self.parameters)

    def new_optimizer(self, factory, **kwargs):
        self.optimizer = factory(self.parameters, **kwargs)
        return self.optimizer

    def train_epoch(self):
        for _ in range(STEPS):
            self.optimizer.zero_grad()
            self.parameters[0].grad = self.theta_N - 3.0
            self.optimizer.step()


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.8)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.3, weight_decay=0.01)


def by_the_paper(lr, beta, steps, warmup=0):
    """Equations 3 to 5: y = (1 - beta) z + beta x, z -= lr (y - 3), x the average of the z weighted by lr^2."""
    z = x = 10.0
    total = 0.0
    for k in range(steps):
        rate = lr * min(1.0, (k + 1) / warmup) if warmup else lr
        y = (1 - beta) * z + beta * x
        z -= rate * (y - 3.0)
        total += rate**2
        x += rate**2 / total * (z - x)
    return x


@pytest.mark.parametrize(("beta", "warmup"), [(0.9, 0.0), (0.6, 0.0), (0.9, 0.25)])
def test_sgd_follows_the_paper(beta, warmup):
    """At the rate that momentum SGD's steps amount to: 0.02 / (1 - 0.8) = 0.1."""
    session, method = Bowl(sgd), ScheduleFree(beta=beta, warmup=warmup)
    method.begin(session)
    for epoch in (1, 2):
        method.train_epoch(session)
        expected = by_the_paper(0.1, beta, epoch * STEPS, round(warmup * 2 * STEPS))
        assert method.propose(session).theta_N.item() == pytest.approx(expected, rel=1e-5)
    assert not math.isclose(session.theta_N.item(), expected, rel_tol=1e-3)


@pytest.mark.parametrize("base", [sgd, adam])
def test_proposal_is_the_packages_own_and_changes_nothing(base):
    session, method = Bowl(base), ScheduleFree(warmup=0.0)
    method.begin(session)
    torch.testing.assert_close(method.propose(session).theta_N, torch.full((1,), 10.0))
    method.train_epoch(session)
    before, proposed = session.theta_N.clone(), method.propose(session).theta_N
    assert torch.equal(session.theta_N, before)
    twin = copy.deepcopy((session.optimizer, session.parameters))
    twin[0].eval()
    torch.testing.assert_close(twin[0].param_groups[0]["params"][0].data, proposed)


def test_inner_optimizer_follows_the_base():
    for base, inner, name, decay in (
        (sgd, "auto", "SGDScheduleFree", 0.0),
        (adam, "auto", "AdamWScheduleFree", 0.01),
        (adam, "sgd", "SGDScheduleFree", 0.01),
        (sgd, "adamw", "AdamWScheduleFree", 0.0),
    ):
        session = Bowl(base)
        ScheduleFree(inner).begin(session)
        assert type(session.optimizer).__name__ == name
        assert session.optimizer.param_groups[0]["weight_decay"] == decay
    session = Bowl(sgd)
    ScheduleFree(lr=0.7, weight_decay=0.2).begin(session)
    assert session.optimizer.param_groups[0]["lr"] == 0.7
    assert session.optimizer.param_groups[0]["weight_decay"] == 0.2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": "lion"}, "inner must be one of auto, sgd, adamw, radam, got 'lion'"),
        ({"beta": 1.0}, "beta must be above 0 and below 1, got 1.0"),
        ({"lr": 0}, "lr must be a finite number above 0, got 0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0, got -1.0"),
        ({"warmup": 1.0}, "warmup must be at least 0 and below 1, got 1.0"),
    ],
)
def test_bad_parameters(values, message):
    with pytest.raises(ValueError, match=message):
        ScheduleFree(**values)


def test_branches_from_the_start():
    assert ScheduleFree().branch(12) == Branch(0, 0, 12)
    assert ScheduleFree().needs(12) is None
