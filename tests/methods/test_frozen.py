"""Freezing on a session whose weights move by known amounts, and beside embedded CMD on a real base."""

import pytest
import torch

from baselines.frozen import Frozen
from harness.conformance.brancher import Branching
from harness.conformance.tiny import as_in_a_job, find_subject
from harness.method import Branch, Layout, Snapshot
from harness.randomness import generator
from harness.snapshots import MemoryTrajectory

SPEED_N = torch.tensor([0.0, 3.0, -1.0, 2.0, 0.5, 5.0, -4.0, 6.0])
"""by which each weight moves in a step"""
MOVING_N = torch.tensor([False, True, True, True, False, True, True, True])
"""which of them have a gradient: the first never moves, and another, the slowest of the rest, by decay alone"""
N, STEPS, WARMUP = len(SPEED_N), 3, 2
MOVING = 6


class Motion:
    """A session after the warm-up, in which every step adds SPEED_N."""

    def __init__(self, epochs=12):
        self.epochs = epochs
        self.layout = Layout(("weights",), ((N,),))
        self.branch = Branch(WARMUP + 1, WARMUP + 1, epochs - WARMUP - 1)
        self.trajectory = MemoryTrajectory.of([Snapshot(t, t, STEPS * t * SPEED_N, {}) for t in range(1, WARMUP + 2)])
        self.theta_N = STEPS * self.branch.prefix * SPEED_N
        self.moving_N = MOVING_N.clone()
        self.t = self.branch.prefix

    def rng(self, purpose):
        return generator(0, purpose)

    def train_epoch(self, after_step):
        for _ in range(STEPS):
            self.theta_N += SPEED_N
            if after_step is not None:
                after_step()


def trained(method, epochs, session=None):
    """The weights after every own epoch."""
    session = Motion() if session is None else session
    if session.t == session.branch.prefix:
        method.begin(session)
    trace = []
    for _ in range(epochs):
        method.train_epoch(session)
        session.t += 1
        trace.append(session.theta_N.clone())
    return trace


def test_least_moved_freezes_the_slowest_first():
    """Windows at epochs 4, 6 and 8 with 34 % of 6 weights; those without a gradient do not count, `spared` are left."""
    method = Frozen("least_moved", warmup=WARMUP, every=2, percent=34.0, spared=1)
    trace = trained(method, 7)
    by_speed = [2, 3, 1, 6, 5, 7]
    for epoch, theta_N in enumerate(trace, start=4):
        for rank, weight in enumerate(by_speed):
            window = 4 + 2 * (rank // 2)
            stops = window if rank < MOVING - 1 else 1000
            assert theta_N[weight] == STEPS * min(epoch, stops) * SPEED_N[weight], (epoch, weight)
        assert theta_N[[0, 4]].tolist() == [0, STEPS * epoch * 0.5]
    assert method.tables()["windows"].to_dict("list") == {
        "epoch": [4, 6, 8, 10],
        "frozen_now": [2, 2, 1, 0],
        "frozen": [2, 4, 5, 5],
        "trainable_fraction": [1 - 2 / 6, 1 - 4 / 6, 1 - 5 / 6, 1 - 5 / 6],
    }
    assert method.scalars()["saved"] == 100 * (2 * 2 + 2 * 4 + 2 * 5) / (MOVING * 10)


def test_random_freezes_as_many_of_those_that_move():
    """Over seeds each of the six that have a gradient is drawn, and never one that has none."""
    drawn = set()
    for seed in range(40):
        session, method = Motion(), Frozen("random", warmup=WARMUP, every=4, percent=34.0, spared=0)
        session.rng = lambda purpose, seed=seed: generator(seed, purpose)
        trained(method, 1, session)
        frozen = torch.nonzero(method.frozen_N).squeeze(1).tolist()
        assert len(frozen) == 2
        drawn |= set(frozen)
    assert drawn == {1, 2, 3, 5, 6, 7}


def test_percent_of_the_remaining_weights():
    method = Frozen("random", warmup=WARMUP, every=2, percent=50.0, percent_of="remaining", spared=0)
    trained(method, 3)
    assert method.tables()["windows"]["frozen"].tolist() == [3, 4]


def test_a_weight_that_first_has_a_gradient_after_the_warmup_may_be_frozen():
    session, method = Motion(), Frozen("least_moved", warmup=WARMUP, every=5, percent=100.0, spared=0)
    session.moving_N[:] = False
    trained(method, 1, session)
    assert method.trainable_fraction == 1
    session.moving_N = MOVING_N
    trained(method, 1, session)
    assert method.frozen == MOVING
    assert method.trainable_fraction == 0


@pytest.mark.parametrize("choice", ["random", "least_moved"])
def test_as_many_weights_train_as_under_embedded_cmd(choice):
    """On a real base with weights that never move, at every epoch, also where all that may be are embedded."""
    fractions = {}
    for name, parameters in (
        ("cmd_embedded", {"modes": 3, "samples": 50}),
        (f"frozen_{choice}", {"choice": choice, "spared": 3}),
    ):
        subject = find_subject(name)
        with as_in_a_job(subject.base.config):
            method = type(subject.make())(warmup=2, every=1, percent=20.0, **parameters)
            branching, trace = Branching(subject, method), []
            branching.train(lambda method=method, trace=trace: trace.append(method.scalars()["trainable_fraction"]))
        fractions[name] = trace
    first, second = fractions.values()
    assert first == second
    assert first[-1] < 0.85


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"choice": "slowest"}, "choice must be one of random, least_moved, got 'slowest'"),
        ({"warmup": 1}, "warmup must be at least 2, got 1"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"percent": 101}, "percent must be above 0 and at most 100, got 101"),
        ({"percent": 0}, "percent must be above 0 and at most 100, got 0"),
        ({"percent_of": "some"}, "percent_of must be one of all, remaining, got 'some'"),
        ({"spared": -1}, "spared must be at least 0, got -1"),
    ],
)
def test_bad_parameters(values, message):
    with pytest.raises(ValueError, match=message):
        Frozen(**values)


def test_warmup_must_leave_epochs():
    with pytest.raises(ValueError, match="warmup must be below epochs - 1 = 20, got 20"):
        Frozen(warmup=20).needs(21)
    assert Frozen(warmup=20).branch(31) == Branch(21, 21, 10)


def test_some_weights_must_freeze_before_the_end():
    """Its windows are at 30, 40, ...: in 30 epochs none has an epoch after it."""
    message = r"every must divide an epoch after warmup \+ 1 = 21 and before the last, 30, so that an epoch is trained"
    with pytest.raises(ValueError, match=message + " after a window, got 10"):
        Frozen(warmup=20).branch(30)


def test_nothing_freezes_at_the_last_epoch():
    method = Frozen("least_moved", warmup=WARMUP, every=2, percent=34.0, spared=1)
    trained(method, 5, Motion(epochs=8))
    assert method.tables()["windows"]["epoch"].tolist() == [4, 6]
    assert method.trainable_fraction == 1 - 4 / 6


@pytest.mark.parametrize(("epochs", "every"), [(6, 5), (7, 3), (8, 7)])
def test_a_window_at_the_last_epoch_but_one_leaves_an_epoch_to_train(epochs, every):
    method = Frozen("least_moved", warmup=WARMUP, every=every, percent=34.0, spared=1)
    assert method.branch(epochs).epochs == epochs - WARMUP - 1
    trained(method, epochs - WARMUP - 1, Motion(epochs=epochs))
    assert method.tables()["windows"]["epoch"].tolist() == [epochs - 1]
    assert method.scalars()["saved"] == pytest.approx(100 * 2 / (MOVING * epochs))
