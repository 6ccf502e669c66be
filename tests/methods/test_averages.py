"""The averaging methods against explicit sums in numpy."""

import numpy as np
import pytest
import torch

from baselines.base import Base
from baselines.ema import EMA
from baselines.lawa import LAWA
from baselines.swa import SWA
from baselines.time_mean import TimeMean
from harness.method import Layout, Run, Snapshot
from harness.snapshots import MemoryTrajectory

N, EPOCHS, STEPS = 7, 8, 3
CPU = torch.device("cpu")


def run(epochs=EPOCHS, steps_per_epoch=STEPS):
    return Run(
        Layout(("w",), ((N,),)), MemoryTrajectory.of([]), epochs, steps_per_epoch, CPU, lambda _: torch.Generator()
    )


def walk(length):
    """w(0), w(1), ...: float32 rows far from zero, so that an average that starts at zero is seen."""
    return (np.random.default_rng(0).normal(size=(length, N)).cumsum(0) + 100).astype(np.float32)


def watch(method, rows_TN, **length):
    """The proposal after each snapshot, with every snapshot overwritten once it was observed."""
    method.begin(run(**length))
    proposals = []
    for t, row_N in enumerate(rows_TN):
        theta_N = torch.tensor(row_N)
        method.observe(Snapshot(t, t * STEPS, theta_N, {}))
        theta_N.fill_(float("nan"))
        proposal = method.propose()
        proposals.append(None if proposal is None else proposal.theta_N.numpy())
    return proposals


def test_base_proposes_nothing():
    assert watch(Base(), walk(4)) == [None] * 4


@pytest.mark.parametrize("half_life", [0.1, 1.5, 20])
def test_ema_is_the_explicit_weighted_mean(half_life):
    rows_TN = walk(25)
    beta = 0.5 ** (1 / (half_life * STEPS))
    for n, average_N in enumerate(watch(EMA(half_life), rows_TN), start=1):
        weight_T = beta ** np.arange(n - 1, -1, -1)
        np.testing.assert_allclose(average_N, weight_T @ rows_TN[:n] / weight_T.sum(), rtol=1e-6)


def test_ema_halves_the_past_in_a_half_life():
    """After many steps at 0 and one half-life at 1, the average is 1/2 by the word's definition."""
    rows_TN = np.concatenate([np.zeros((400, N)), np.ones((6, N))]).astype(np.float32)
    np.testing.assert_allclose(watch(EMA(half_life=2.0), rows_TN)[-1], 0.5, atol=1e-6)


@pytest.mark.parametrize(
    ("start", "epochs", "first"), [(0.75, 8, 6), (0.75, 6, 5), (0.55, 100, 55), (0.01, 8, 1), (0.99, 8, 8)]
)
def test_swa_is_the_mean_of_the_tail(start, epochs, first):
    rows_TN = walk(epochs + 1)
    proposals = watch(SWA(start), rows_TN, epochs=epochs)
    assert proposals[:first] == [None] * first
    for t in range(first, epochs + 1):
        np.testing.assert_allclose(proposals[t], rows_TN[first : t + 1].mean(0, dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize("include_initial", [False, True])
def test_time_mean_is_the_mean_of_what_cmd_sees(include_initial):
    rows_TN = walk(EPOCHS + 1)
    first = 0 if include_initial else 1
    proposals = watch(TimeMean(include_initial), rows_TN)
    assert proposals[:first] == [None] * first
    for t in range(first, EPOCHS + 1):
        np.testing.assert_allclose(proposals[t], rows_TN[first : t + 1].mean(0, dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize("k", [1, 3, 20])
def test_lawa_is_the_mean_of_the_latest(k):
    rows_TN = walk(EPOCHS + 1)
    proposals = watch(LAWA(k), rows_TN)
    assert proposals[0] is None
    for t in range(1, EPOCHS + 1):
        latest_TN = rows_TN[max(1, t - k + 1) : t + 1]
        np.testing.assert_allclose(proposals[t], latest_TN.mean(0, dtype=np.float64), rtol=1e-6)


METHODS = [lambda: EMA(), lambda: SWA(0.5), lambda: TimeMean(), lambda: LAWA(3)]


@pytest.mark.parametrize("make", METHODS)
@pytest.mark.parametrize("cut", range(1, EPOCHS))
def test_state_continues_with_the_same_bits(make, cut):
    rows_TN = walk(EPOCHS + 1)
    whole = make()
    expected = watch(whole, rows_TN)[-1]
    first, second = make(), make()
    watch(first, rows_TN[:cut])
    state = first.state_dict()
    first.observe(Snapshot(cut, 0, torch.zeros(N), {}))
    second.begin(run())
    second.load_state_dict(state)
    for t in range(cut, EPOCHS + 1):
        second.observe(Snapshot(t, t * STEPS, torch.tensor(rows_TN[t]), {}))
    np.testing.assert_array_equal(second.propose().theta_N.numpy(), expected)


@pytest.mark.parametrize("make", METHODS)
def test_a_proposal_is_nobodys_state(make):
    rows_TN = walk(EPOCHS + 1)
    expected = watch(make(), rows_TN)[-1]
    method = make()
    watch(method, rows_TN[:-1])
    for _ in range(3):
        method.propose().theta_N.zero_()
    method.observe(Snapshot(EPOCHS, 0, torch.tensor(rows_TN[-1]), {}))
    np.testing.assert_array_equal(method.propose().theta_N.numpy(), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EMA(half_life=0), "half_life must be a finite number above 0, got 0"),
        (lambda: EMA(half_life=float("nan")), "half_life must be a finite number above 0, got nan"),
        (lambda: SWA(start=1.0), "start must be above 0 and below 1, got 1.0"),
        (lambda: SWA(start="half"), "start must be above 0 and below 1, got 'half'"),
        (lambda: LAWA(k=0), "k must be at least 1, got 0"),
        (lambda: LAWA(k=2.5), "k must be a whole number, got 2.5"),
        (lambda: TimeMean(include_initial=1), "include_initial must be true or false, got 1"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 the whole message is compared
        make()
    assert str(error.value) == message
