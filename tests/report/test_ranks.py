"""Shared ranks, average ranks and their critical difference, against published values and by hand."""

import math

import numpy as np
import pytest
from frames import cells, frame_of
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import f, friedmanchisquare, rankdata

from harness.report.stats.paired import ALPHA
from harness.report.stats.ranks import average_ranks, cliques, friedman, nemenyi, pairwise, rankings, shared_ranks

ROW = ("net", "digits", "sgd")


def close(*values):
    """Three seeds about a mean, with noise that differs by method and is small against 1."""
    return [[value + noise for noise in noises] for value, noises in values]


def test_methods_that_cannot_be_told_apart_share_a_rank():
    frame = frame_of(
        cells("base", [99.0, 99.0, 99.0]),  # under another policy: not ranked
        cells("base_recalibrated", [80.0, 81.0, 82.0]),
        cells("swa", [90.0, 91.01, 92.0]),
        cells("ema", [90.1, 90.9, 92.1]),  # +0.1 -0.11 +0.1 against swa
        cells("lawa", [95.0, "diverged", 95.0]),
    )
    ranking = rankings(frame)[ROW]
    assert ranking.ranks == {"ema": 1, "swa": 1, "base_recalibrated": 3}
    assert ranking.groups == [["ema", "swa"], ["base_recalibrated"]]
    assert ranking.tied_with_best == {"ema", "swa"}
    assert ranking.unranked == {"base": "another BatchNorm policy", "lawa": "2 of 3 seeds"}


def test_a_single_best_method_ties_with_nobody():
    frame = frame_of(cells("base_recalibrated", [80.0, 81.0, 82.0]), cells("swa", [83.0, 84.1, 85.2]))
    ranking = rankings(frame)[ROW]
    assert ranking.ranks == {"swa": 1, "base_recalibrated": 2}
    assert ranking.tied_with_best == set()


def test_two_seeds_rank_nobody():
    ranking = rankings(frame_of(cells("base_recalibrated", [80.0, 81.0]), cells("swa", [90.0, 91.1])))[ROW]
    assert ranking.ranks == {}
    assert set(ranking.unranked.values()) == {"fewer than 3 seeds"}


def test_the_lowest_loss_is_first():
    frame = frame_of(cells("base_recalibrated", [80.0, 81.0, 82.0]), cells("swa", [83.0, 84.1, 85.2]))
    assert rankings(frame, "test_loss")[ROW].ranks["swa"] == 1


def test_several_rows_are_also_ranked_together():
    groups = []
    for model in ("a", "b"):
        groups += [cells("base_recalibrated", [80.0, 81.0, 82.0], model), cells("swa", [81.0, 82.1, 83.2], model)]
    found = rankings(frame_of(*groups))
    assert list(found) == [("a", "digits", "sgd"), ("b", "digits", "sgd"), ("all", "all", "all")]
    assert found["all", "all", "all"].ranks == {"swa": 1, "base_recalibrated": 2}


def test_pairwise_tests_by_hand():
    """Of two methods there is one test: differences 1 2 3, as in the paired t test by hand."""
    p = pairwise(np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]))
    t = 2 * math.sqrt(3)
    assert p[0, 1] == p[1, 0] == pytest.approx(1 - t / math.sqrt(t**2 + 2))
    assert p[0, 0] == 1


matrices = st.integers(1, 7).flatmap(
    lambda size: st.lists(st.sampled_from([0.001, 0.04, 0.2, 1.0]), min_size=size**2, max_size=size**2).map(
        lambda values: np.minimum(np.reshape(values, (size, size)), np.reshape(values, (size, size)).T)
    )
)


@given(matrices)
def test_ranks_never_join_what_a_test_tells_apart(p):
    ranks = shared_ranks(p)
    assert ranks[0] == 1
    for better in range(len(p)):
        for worse in range(better + 1, len(p)):
            assert ranks[better] <= ranks[worse]
            if p[better, worse] < ALPHA:
                assert ranks[better] < ranks[worse]
    # a rank is the number of methods before it, plus one
    for rank in set(ranks):
        assert sum(other < rank for other in ranks) == rank - 1


@pytest.mark.parametrize(
    ("methods", "critical"),
    [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (9, 3.102), (10, 3.164)],
)
def test_critical_differences_are_demsars(methods, critical):
    """Table 5a of Demšar 2006: critical values of the Nemenyi test at 5 %."""
    assert nemenyi(methods, 12) == pytest.approx(critical * math.sqrt(methods * (methods + 1) / 72), abs=1e-3)


def test_friedman_is_iman_and_davenports_form_of_scipys():
    values = np.random.default_rng(0).normal(size=(8, 4)) + np.array([0, 0.3, 0.6, 0.9])
    chi2 = friedmanchisquare(*values.T).statistic
    expected = f.sf(7 * chi2 / (8 * 3 - chi2), 3, 21)
    assert friedman(rankdata(values, axis=1)) == pytest.approx(expected)
    assert friedman(np.tile([1.0, 2.0, 3.0], (5, 1))) == 0.0


def suites(rows):
    """`rows` models; swa is always first, ema and the control take turns, lawa lacks one model."""
    groups = []
    for index in range(rows):
        ema, control = (82.0, 81.0) if index % 2 else (81.0, 82.0)
        model = f"net{index}"
        groups += [cells("base", [99.0], model), cells("base_recalibrated", [control], model)]
        groups += [cells("swa", [90.0], model), cells("ema", [ema], model)]
        groups += [cells("lawa", [50.0], model)] if index else []
    return frame_of(*groups)


def test_average_ranks_by_hand():
    found = average_ranks(suites(6))
    assert found.ranks.to_dict() == {"swa": 1.0, "base_recalibrated": 2.5, "ema": 2.5}
    assert found.blocks == 6
    assert found.left_out == ["base", "lawa"]
    # 2.343 sqrt(3 * 4 / 36) = 1.353: swa is apart from both, which are not from each other
    assert found.critical_difference == pytest.approx(1.353, abs=1e-3)
    (tied,) = cliques(found.ranks.to_numpy(), found.critical_difference)
    assert list(found.ranks.index[list(tied)]) == ["base_recalibrated", "ema"]


def test_equal_means_share_their_rank():
    groups = []
    for index in range(5):
        groups += [cells(m, [80.0], f"net{index}") for m in ("base_recalibrated", "swa", "ema")]
    assert average_ranks(frame_of(*groups)).ranks.to_dict() == {"base_recalibrated": 2.0, "swa": 2.0, "ema": 2.0}


def test_too_few_rows_are_no_basis_for_average_ranks():
    assert average_ranks(suites(4)) == "average ranks need at least 5 models, data sets or optimizers, got 4"
