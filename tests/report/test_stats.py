"""Paired statistics against values worked out by hand and properties that must hold for any numbers."""

import math

import numpy as np
import pandas as pd
import pytest
from frames import cells, frame_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness.report.stats.comparisons import comparisons, family, pairs
from harness.report.stats.paired import (
    EXACT,
    RESAMPLES,
    Paired,
    bootstrap_interval,
    hedges_g,
    holm,
)
from harness.report.stats.power import smallest_difference


def array(*values):
    return np.array(values, dtype=np.float64)


numbers = st.integers(-1000, 1000).map(lambda n: n / 100)
samples = st.lists(numbers, min_size=2, max_size=EXACT).map(lambda values: np.array(values))
"""few enough for their resamples to be enumerated: drawn ones are not symmetric"""


def test_paired_differences_by_hand():
    found = Paired.of(array(1.0, 2.0, 3.0))
    assert (found.n, found.mean, found.std) == (3, 2.0, 1.0)
    # t = 2 / (1 / sqrt 3); with 2 degrees of freedom two-sided p = 1 - t / sqrt(t^2 + 2)
    t = 2 * math.sqrt(3)
    assert found.p == pytest.approx(1 - t / math.sqrt(t**2 + 2))
    assert found.p == pytest.approx(0.0742, abs=5e-5)
    # t(0.975, 2) = 4.3027 from any table
    assert (found.low, found.high) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)
    assert found.effect == pytest.approx(2 * (1 - 3 / 7))
    assert (found.wins, found.losses) == (3, 0)


def test_a_lower_loss_is_the_win():
    found = Paired.of(array(-1.0, -2.0, 0.0, 3.0), higher_is_better=False)
    assert (found.wins, found.losses) == (2, 1)


def test_bootstrap_intervals_of_few_seeds_by_hand():
    # with 3 values t = 4.30 leaves no tail: the interval is all of their range
    assert bootstrap_interval(array(6.0, 1.0, 2.0)) == (1.0, 6.0)
    # with 5 the tail is Phi(-2.7764 sqrt(5/4)) = 0.00095, above 1/3125 for five times the lowest value
    # and below 6/3125 when four times it and the second are added
    low, high = bootstrap_interval(array(10.0, 0.0, 20.0, 5.0, 40.0))
    assert (low, high) == pytest.approx(((4 * 0 + 5) / 5, (4 * 40 + 20) / 5))
    assert all(map(math.isnan, bootstrap_interval(array(1.0))))
    assert all(map(math.isnan, bootstrap_interval(array())))


def test_many_seeds_agree_with_students_interval():
    """The mean of 40 normal differences: both intervals are within a few percent of each other."""
    values = np.random.default_rng(3).normal(1.0, 2.0, 40)
    found = Paired.of(values)
    half = scipy_stats.t.ppf(0.975, 39) * values.std(ddof=1) / 40**0.5
    ends = (values.mean() - half, values.mean() + half)
    assert (found.low, found.high) == pytest.approx(ends, abs=0.05 * 2 * half)


def test_drawn_resamples_are_the_same_bits_every_time():
    values = np.random.default_rng(0).normal(size=12)
    assert bootstrap_interval(values) == bootstrap_interval(values[::-1].copy())
    counts = np.random.RandomState(0).multinomial(12, np.full(12, 1 / 12), size=RESAMPLES)
    means = np.sort(counts @ np.sort(values) / 12)
    tail = scipy_stats.norm.cdf(-math.sqrt(12 / 11) * scipy_stats.t.ppf(0.975, 11))
    assert bootstrap_interval(values)[0] == pytest.approx(means[math.ceil(tail * RESAMPLES) - 1], abs=1e-12)


@settings(deadline=None)
@given(samples, numbers, st.sampled_from([0.5, 2.0, 4.0]))
def test_intervals_move_with_the_values(values, shift, scale):
    low, high = bootstrap_interval(values)
    assert values.min() - 1e-9 <= low <= values.mean() + 1e-9
    assert values.mean() - 1e-9 <= high <= values.max() + 1e-9
    moved = bootstrap_interval(scale * values + shift)
    assert moved == pytest.approx((scale * low + shift, scale * high + shift), abs=1e-9)
    assert bootstrap_interval(-values) == pytest.approx((-high, -low), abs=1e-12)


def test_holm_by_hand():
    # ordered 0.01, 0.03, 0.04 times 3, 2, 1 are 0.03, 0.06, 0.04; none may fall below the one before
    assert holm(array(0.01, 0.04, 0.03)) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(array(0.5, 0.9)) == pytest.approx([1.0, 1.0])
    adjusted = holm(array(0.02, math.nan, 0.01))
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.02])
    assert math.isnan(adjusted[1])
    # two of a family of five, the others not made: times 5 and 4
    assert holm(array(0.02, math.nan, 0.01), 5)[[0, 2]] == pytest.approx([0.08, 0.05])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12).map(np.array), st.randoms(use_true_random=False))
def test_holm_keeps_order_and_never_lowers_a_p(p, random):
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    # between multiplying nothing and multiplying everything (Bonferroni)
    assert (adjusted <= np.minimum(p * len(p), 1) + 1e-15).all()
    order = list(range(len(p)))
    random.shuffle(order)
    assert holm(p[order]) == pytest.approx(adjusted[order])


@settings(deadline=None)
@given(samples)
def test_the_test_of_reversed_methods_is_the_same(values):
    one, other = Paired.of(values), Paired.of(-values)
    assert (one.n, one.wins, one.losses) == (other.n, other.losses, other.wins)
    assert one.p == pytest.approx(other.p, nan_ok=True)
    assert one.effect == pytest.approx(-other.effect, nan_ok=True)


@settings(deadline=None)
@given(samples.filter(lambda values: len(values) >= 3 and values.std() > 0.01))
def test_p_is_that_of_scipy(values):
    expected = scipy_stats.ttest_1samp(values, 0.0).pvalue
    assert Paired.of(values).p == pytest.approx(expected, rel=1e-9)


def test_differences_without_any_spread():
    """t would claim certainty: the exact sign test of 3 equal signs has p 1/4."""
    same = Paired.of(array(0.1 + 0.2, 0.3, 0.3))
    assert (same.std, same.p) == (0.0, 0.25)
    assert same.effect == math.inf
    nothing = Paired.of(array(0.0, 0.0, 0.0))
    assert (nothing.p, nothing.effect) == (1.0, 0.0)


@pytest.mark.parametrize("values", [array(1.0), array(1.0, 2.0)])
def test_fewer_than_three_pairs_are_not_tested(values):
    assert math.isnan(Paired.of(values).p)
    assert math.isnan(hedges_g(1.0, math.nan, 1))
    assert math.isnan(Paired.of(values).effect)  # 1 - 3 / (4 - 1) is 0, which would call every effect of two 0


def test_pairs_need_both_cells_done_and_finite():
    frame = frame_of(
        cells("base_recalibrated", [80.0, 81.0, "failed", 83.0]),
        cells("swa", [81.0, "diverged", 83.0, math.nan]),
        cells("ema", [82.0, 83.0, 84.0, 85.0], batchnorm="averaged"),
    )
    found = pairs(frame, "test_accuracy", "base_recalibrated")
    assert found[found["method"] == "swa"]["difference"].tolist() == [1.0]
    assert found[found["method"] == "ema"]["difference"].tolist() == [2.0, 2.0, 2.0]
    assert found[found["method"] == "ema"]["alike"].tolist() == [False] * 3


def line_of(table, method, control="base_recalibrated", model="net"):
    own = table[(table["method"] == method) & (table["control"] == control) & (table["model"] == model)]
    return own.iloc[0]


PLAIN = "base_recalibrated"


def test_comparisons_say_who_is_better_and_why_not():
    frame = frame_of(
        cells("base", [70.0, 71.0, 72.0]),
        cells(PLAIN, [80.0, 81.0, 82.0]),
        cells("time_mean", [79.0, 80.5, 80.0]),
        cells("swa", [83.0, 84.1, 85.2]),  # +3.0 +3.1 +3.2: sd 0.1, t = 31 sqrt 3
        cells("ema", [82.0, 80.0, 83.0]),  # +2 -1 +1
        cells("lawa", [90.0, "diverged", 92.0]),
        primary=[("swa", PLAIN), ("ema", PLAIN), ("lawa", PLAIN), ("base", PLAIN)],
    )
    table = comparisons(frame)
    swa, ema = line_of(table, "swa"), line_of(table, "ema")
    assert swa["mean"] == pytest.approx(3.1)
    half = 4.302653 * 0.1 / 3**0.5
    assert (swa["low"], swa["high"]) == pytest.approx((3.1 - half, 3.1 + half))
    assert (swa["verdict"], swa["family"]) == ("better", "primary")
    t = 31 * math.sqrt(3)
    # of the four that the suite names, two of which cannot be made
    assert swa["p_holm"] == pytest.approx(4 * (1 - t / math.sqrt(t**2 + 2)))
    assert (ema["verdict"], ema["wins"], ema["losses"]) == ("undecided", 2, 1)
    assert line_of(table, "base")["verdict"] == "no test: another BatchNorm policy"
    assert line_of(table, "base")["mean"] == pytest.approx(-10)
    lawa = line_of(table, "lawa")
    assert (lawa["verdict"], lawa["n"], lawa["seeds"]) == ("no test: fewer than 3 seeds", 2, 3)
    assert math.isnan(lawa["p_holm"])
    beyond = line_of(table, "swa", "time_mean")
    assert beyond["mean"] == pytest.approx((4 + 3.6 + 5.2) / 3)
    assert (beyond["family"], beyond["verdict"]) == ("exploratory", "ahead")
    assert math.isnan(beyond["p_holm"])
    assert not (table["model"] == "all").any()


def family_of(*groups, primary):
    """Verdicts and adjusted p values of the primary comparisons, by method."""
    table = comparisons(frame_of(cells(PLAIN, [80.0, 81.0, 82.0, 83.0]), *groups, primary=primary))
    return table[table["family"] == "primary"].set_index("method")[["verdict", "p_holm", "p_equivalence"]]


SWA, EMA = [*cells("swa", [81.0, 82.3, 83.1, 84.2])], [*cells("ema", [80.9, 81.4, 83.2, 83.1])]


def test_what_else_runs_changes_no_adjusted_p():
    """A comparison that was named counts whether or not its method is planned, finished or fails; others never do."""
    primary = [("swa", PLAIN), ("ema", PLAIN)]
    alone = family_of(SWA, EMA, primary=primary)
    more = [cells(f"other{place}", [80.0 + place, 81.0, 82.0, 83.0]) for place in range(5)]
    pd.testing.assert_frame_equal(family_of(SWA, EMA, *more, primary=primary), alone)
    p = Paired.of(array(1.0, 1.3, 1.1, 1.2)).p
    for rest in ([], [cells("ema", ["left"] * 4)], [cells("ema", [80.9, "failed", "failed", "left"])]):
        assert family_of(SWA, *rest, primary=primary).loc["swa", "p_holm"] == pytest.approx(2 * p)
    assert family_of(SWA, EMA, primary=[("swa", PLAIN)]).loc["swa", "p_holm"] == pytest.approx(p)


def test_the_family_is_over_all_rows_of_a_suite():
    groups = []
    for model in ("a", "b", "c"):
        groups += [cells(PLAIN, [80.0, 81.0, 82.0], model), cells("swa", [83.0, 84.1, 85.2], model)]
    groups.append(cells("cooldown", [83.0, 84.1, 85.2], "a"))
    frame = frame_of(*groups, primary=[("swa", PLAIN), ("cooldown", PLAIN), ("lawa", PLAIN)])
    keys, tests = family(frame)
    assert {(key.row[0], key.method) for key in keys} == {("a", "swa"), ("b", "swa"), ("c", "swa"), ("a", "cooldown")}
    # lawa, which is planned nowhere, could have been in each of the three rows
    assert tests == 7
    t = 31 * math.sqrt(3)
    table = comparisons(frame)
    assert line_of(table, "swa", model="b")["p_holm"] == pytest.approx(7 * (1 - t / math.sqrt(t**2 + 2)))


def test_methods_are_equivalent_within_the_margin_and_undecided_beyond_what_could_be_found():
    """+0.05 -0.05 +0.10 -0.10 +0.02: mean 0.004, sd 0.081; t(0.95, 4) = 2.13 leaves it within 0.1 and not 0.05."""
    plain, same = [80.0, 81.0, 82.0, 83.0, 84.0], [80.05, 80.95, 82.1, 82.9, 84.02]
    for margin, verdict in ((0.5, "equivalent"), (0.1, "equivalent"), (0.05, "undecided")):
        frame = frame_of(cells(PLAIN, plain), cells("swa", same), primary=[("swa", PLAIN)], margin=margin)
        line = line_of(comparisons(frame), "swa")
        assert line["verdict"] == verdict
        assert line["findable"] == pytest.approx(smallest_difference(5, line["std"]), rel=1e-9)
        frame.attrs["primary"] = []
        assert line_of(comparisons(frame), "swa")["verdict"] == {"equivalent": "close"}.get(verdict, "open")


def test_a_margin_of_points_says_nothing_of_a_loss():
    frame = frame_of(
        cells(PLAIN, [80.0, 81.0, 82.0]), cells("swa", [80.01, 80.99, 82.02]), primary=[("swa", PLAIN)], margin=50.0
    )
    assert line_of(comparisons(frame, "test_loss"), "swa")["verdict"] == "undecided"


def test_a_method_that_is_far_behind_shares_nothing_with_the_best():
    """17 points behind with a large spread: nothing is found with 3 seeds, and it is not called equivalent."""
    frame = frame_of(cells(PLAIN, [80.0, 81.0, 82.0]), cells("twa", [80.5, 50.0, 61.0]), primary=[("twa", PLAIN)])
    line = line_of(comparisons(frame), "twa")
    assert line["mean"] < -17
    assert line["verdict"] == "undecided"
    assert line["findable"] > 30


def test_a_method_is_compared_with_the_control_that_its_preset_names():
    frame = frame_of(
        cells(PLAIN, [80.0, 81.0, 82.0]),
        cells("clock", [82.0, 83.5, 84.0]),
        cells("cmd_online", [82.1, 83.2, 84.3], control="clock"),
    )
    table = comparisons(frame)
    assert line_of(table, "cmd_online", "clock")["mean"] == pytest.approx(0.1 / 3)
    assert set(table.loc[table["control"] == "clock", "method"]) == {"cmd_online"}
    named = table[["model", "dataset", "optimizer", "method", "control"]]
    assert not named.duplicated().any()


def test_seeds_are_averaged_over_rows_before_they_are_counted():
    """Two seeds on three models are two seeds, whose differences are the means 2 and 2.5."""
    groups = []
    for model in ("a", "b", "c"):
        groups += [cells(PLAIN, [80.0, 81.0], model), cells("swa", [82.0, 83.5], model)]
    over_all = line_of(comparisons(frame_of(*groups)), "swa", model="all")
    assert (over_all["n"], over_all["runs"], over_all["verdict"]) == (2, 6, "no test: fewer than 3 seeds")
    assert over_all["mean"] == pytest.approx(2.25)
    assert over_all["std"] == pytest.approx(0.5 / 2**0.5)


def test_rows_without_the_control_are_not_among_the_rows_taken_together():
    groups = [cells(PLAIN, [80.0] * 3, model) for model in ("a", "b", "c")]
    groups += [cells("swa", [81.0, 82.0, 83.0], model) for model in ("a", "b", "c")]
    groups += [cells("time_mean", [80.0] * 3, model) for model in ("a", "b")]
    over_all = line_of(comparisons(frame_of(*groups)), "swa", "time_mean", "all")
    assert (over_all["n"], over_all["runs"], over_all["mean"]) == (3, 6, 2.0)


def test_a_seed_that_one_row_lacks_is_left_out_of_all_rows_together():
    groups = [cells(PLAIN, [80.0] * 4, model) for model in ("a", "b")]
    groups += [cells("swa", [81.0, 82.0, 83.0, 99.0], "a"), cells("swa", [82.0, 83.0, 85.0, "failed"], "b")]
    over_all = line_of(comparisons(frame_of(*groups)), "swa", model="all")
    assert (over_all["n"], over_all["mean"]) == (3, pytest.approx((1.5 + 2.5 + 4.0) / 3))


def test_rows_of_a_constant_and_of_an_annealed_rate_are_not_averaged_with_each_other():
    groups = []
    for model in ("a", "b"):
        for optimizer, schedule, gain in (("sgd", "constant", 2.0), ("sgd_cosine", "cosine", 0.0)):
            named = {"optimizer": optimizer, "schedule": schedule}
            groups += [cells(PLAIN, [80.0, 81.0, 82.0], model, **named)]
            groups += [cells("swa", [80.0 + gain, 81.1 + gain, 82.0 + gain], model, **named)]
    table = comparisons(frame_of(*groups))
    over = table[(table["model"] == "all") & (table["method"] == "swa")].set_index("optimizer")["mean"]
    assert over.to_dict() == pytest.approx({"constant": 2.1 - 0.2 / 3, "annealed": 0.1 / 3})


def test_a_rate_that_ends_above_a_tenth_is_averaged_with_no_other():
    rates = {"sgd": ("constant", 1.0), "half": ("cosine", 0.5), "tenth": ("step", 0.1), "wsd": ("wsd", 0.0)}
    groups = []
    for place, (optimizer, (schedule, end)) in enumerate(rates.items()):
        named = {"optimizer": optimizer, "schedule": schedule, "rate_end": end}
        for model in ("a", "b"):
            groups += [cells(PLAIN, [80.0, 81.0, 82.0], model, **named)]
            groups += [cells("swa", [value + 2**place for value in (80.0, 81.0, 82.0)], model, **named)]
    table = comparisons(frame_of(*groups))
    over = table[(table["model"] == "all") & (table["method"] == "swa")].set_index("optimizer")["mean"]
    assert over.to_dict() == pytest.approx({"constant": 1.0, "partly annealed": 2.0, "annealed": 6.0})


def test_losses_are_better_when_lower():
    frame = frame_of(cells(PLAIN, [80.0, 81.0, 82.0]), cells("swa", [83.0, 84.1, 85.2]), primary=[("swa", PLAIN)])
    line = line_of(comparisons(frame, "test_loss"), "swa")
    assert line["mean"] == pytest.approx(-0.031)
    assert (line["verdict"], line["wins"]) == ("better", 3)
