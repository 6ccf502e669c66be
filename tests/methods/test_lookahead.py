"""Lookahead on a session whose optimizer is a known walk."""

import pytest
import torch

from baselines.lookahead import Lookahead
from harness.method import Branch

STEPS, N = 7, 3


class Walk:
    """A session that adds 1, 2, 3, ... to every weight, one step at a time."""

    def __init__(self):
        self.theta_N = torch.full((N,), 10.0)
        self.step = 0

    def train_epoch(self, after_step):
        for _ in range(STEPS):
            self.step += 1
            self.theta_N += self.step
            after_step()


def by_the_paper(k, alpha, steps):
    """Algorithm 1 on one weight: (fast, slow) after so many steps."""
    fast = slow = 10.0
    for step in range(1, steps + 1):
        fast += step
        if step % k == 0:
            slow = fast = slow + alpha * (fast - slow)
    return fast, slow


@pytest.mark.parametrize(("k", "alpha"), [(1, 0.5), (5, 0.5), (4, 0.2), (100, 0.9)])
def test_follows_the_algorithm_across_epochs(k, alpha):
    session, method = Walk(), Lookahead(k, alpha)
    method.begin(session)
    for epoch in range(1, 4):
        method.train_epoch(session)
        fast, slow = by_the_paper(k, alpha, epoch * STEPS)
        torch.testing.assert_close(session.theta_N, torch.full((N,), fast))
        torch.testing.assert_close(method.propose(session).theta_N, torch.full((N,), slow))


def test_state_continues_with_the_same_bits():
    session, method = Walk(), Lookahead()
    method.begin(session)
    method.train_epoch(session)
    resumed_session, resumed = Walk(), Lookahead()
    resumed.begin(resumed_session)
    resumed_session.theta_N, resumed_session.step = session.theta_N.clone(), session.step
    resumed.load_state_dict(method.state_dict())
    for each, its_session in ((method, session), (resumed, resumed_session)):
        each.train_epoch(its_session)
    assert torch.equal(resumed_session.theta_N, session.theta_N)
    assert torch.equal(resumed.propose(resumed_session).theta_N, method.propose(session).theta_N)


def test_branches_from_the_start_and_reads_no_snapshot():
    assert Lookahead().branch(12) == Branch(start=0, prefix=0, epochs=12)
    assert Lookahead().needs(12) is None


@pytest.mark.parametrize(
    ("values", "message"), [({"k": 0}, "k must be at least 1, got 0"), ({"alpha": 1.5}, "alpha must be above 0")]
)
def test_bad_parameters(values, message):
    with pytest.raises(ValueError, match=message):
        Lookahead(**values)
