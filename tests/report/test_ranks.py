"""Average ranks and their critical difference, against published values and by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from frames import cells, frame_of
from scipy.stats import f, friedmanchisquare, rankdata

from harness.report.stats.ranks import average_ranks, cliques, friedman, nemenyi


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
    """On the first of seven all are equal, rank 2 each, on the others swa is first: (2 + 6) / 7 and (2 + 15) / 7."""
    groups = []
    for index in range(7):
        for method, gain in (("base_recalibrated", 0.0), ("swa", 1.0), ("ema", 0.0)):
            groups.append(cells(method, [80.0 + (gain if index else 0.0)], f"net{index}"))
    found = average_ranks(frame_of(*groups)).ranks
    assert found.to_dict() == pytest.approx({"swa": 8 / 7, "base_recalibrated": 17 / 7, "ema": 17 / 7})


def test_optimizers_of_one_model_are_one_block():
    """Six models with two optimizers each, whose means over both are those of `suites`."""
    one, other = (suites(6).assign(optimizer=name) for name in ("sgd", "adam"))
    for shift, frame in ((0.5, one), (-0.5, other)):
        frame["test_accuracy"] += shift
        frame["base_key"] += frame["optimizer"]
    found = average_ranks(pd.concat([one, other], ignore_index=True))
    assert found.blocks == 6
    assert found.ranks.to_dict() == average_ranks(suites(6)).ranks.to_dict()


def test_too_few_models_are_no_basis_for_average_ranks():
    assert average_ranks(suites(4)) == "average ranks need at least 5 models or data sets, got 4"


def test_ranks_that_decide_nothing_are_not_given():
    """Three methods take turns to be first, so that all average to 2."""
    groups = []
    for index in range(6):
        for place, method in enumerate(("base_recalibrated", "swa", "ema")):
            groups.append(cells(method, [80.0 + (place + index) % 3], f"net{index}"))
    assert average_ranks(frame_of(*groups)) == "average ranks are not given, since they decide nothing (Friedman p = 1)"
