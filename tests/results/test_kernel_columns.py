"""Kernels from tables: what is taken for one, and age, effective number and distance by hand."""

import numpy as np
import pandas as pd
import pytest

from harness.kernel import checked, distance, numbers


def table(coefficients, epochs=None, mode="all", **columns):
    epochs = range(1, len(coefficients) + 1) if epochs is None else epochs
    return pd.DataFrame({"mode": mode, "epoch": list(epochs), "coefficient": list(coefficients), **columns})


def test_numbers_of_one_kernel_by_hand():
    """0.5 on epoch 2 and 0.25 on 3 and 4, seen from epoch 4."""
    found = numbers(checked(table([0.0, 0.5, 0.25, 0.25])), last=4)
    assert found == pytest.approx({"age": 0.5 * 2 + 0.25 * 1, "n_eff": 1 / 0.375})


def test_numbers_are_means_over_modes_by_their_weights():
    """Three quarters of the weights are the last of two snapshots, one quarter the mean of both."""
    modes = pd.concat([table([0, 1], mode="0", share=0.75), table([0.5, 0.5], mode="1", share=0.25)])
    assert numbers(checked(modes), last=2) == pytest.approx({"age": 0.125, "n_eff": 1 / (0.75 + 0.25 * 0.5)})
    without = modes.drop(columns="share")
    assert numbers(checked(without), last=2) == pytest.approx({"age": 0.25, "n_eff": 1 / 0.75})


def test_a_line_for_several_snapshots_keeps_the_number():
    """Four snapshots of 1/4 each as two lines."""
    short = table([0.5, 0.5], epochs=[0.75, 1.75], snapshots=2, squares=0.125)
    assert numbers(checked(short), last=2)["n_eff"] == pytest.approx(4)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (table([0, 0, 1]), table([0, 0, 1]), 0.0),
        (table([0, 0, 1]), table([0, 1, 0]), 1.0),
        (table([0, 0.5, 0.5]), table([1 / 3, 1 / 3, 1 / 3]), 1 / 3),
        (table([1.0], epochs=[3]), table([0, 0, 1]), 0.0),
        # ten steps of an epoch against its end
        (table([0.1] * 10, epochs=np.arange(21, 31) / 10), table([0, 0, 1]), 0.0),
        # negative coefficients move more than there is
        (table([-0.5, 0, 1.5]), table([0, 0, 1]), 0.5),
    ],
)
def test_distance_by_hand(one, other, expected):
    assert distance(checked(one), checked(other)) == pytest.approx(expected)
    assert distance(checked(other), checked(one)) == pytest.approx(expected)


def test_distance_bounds_how_far_two_proposals_lie_apart():
    """It is at most the distance times the largest distance between two snapshots, in random runs."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        W_TN = rng.normal(size=(6, 5)).cumsum(0)
        a, b = (c / c.sum() for c in rng.normal(1, 1, size=(2, 6)))
        widest = max(np.linalg.norm(W_TN[i] - W_TN[j]) for i in range(6) for j in range(6))
        far = distance(checked(table(a)), checked(table(b)))
        assert np.linalg.norm((a - b) @ W_TN) <= far * widest * (1 + 1e-12)


def test_distance_over_modes_is_the_mean_over_pairs():
    modes = checked(pd.concat([table([0, 1], mode="0", share=0.75), table([1, 0], mode="1", share=0.25)]))
    assert distance(modes, checked(table([0, 1]))) == pytest.approx(0.25)
    assert distance(modes, modes) == pytest.approx(2 * 0.75 * 0.25)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (table([1.0]).drop(columns="epoch"), "must have the column epoch, got mode, coefficient"),
        (table([]), "must have at least 1 line, got 0"),
        (table([0.5, 0.4]), "coefficients of mode all must add up to 1, got 0.9"),
        (table([0.5, 0.5], epochs=[1, 1]), "must have an epoch once in a mode, got 1 twice in all"),
        (table([1.0, np.nan]), "must hold finite numbers, got nan or inf"),
        (table(["a"]), "must hold numbers"),
    ],
)
def test_what_is_no_kernel_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        checked(given)
