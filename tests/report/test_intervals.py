"""Intervals hold what they are called, and tests find what the plan says: simulations with fixed seeds.

The difference of method and control on an image is 1, 0 or -1. An image i favours the method with probability p_i and
the control with q_i, whatever the seed, and a seed s shifts both by its own factor of mean 1, so that the true
difference is the mean of p - q over images and seeds, which is known.
"""

import math

import numpy as np
import pytest
from frames import cells, frame_of
from scipy import special, stats

from harness.report.stats.comparisons import comparisons
from harness.report.stats.images import TestImages, image_variance
from harness.report.stats.paired import Paired, equivalence, half_width, holm, interval, two_sided
from harness.report.stats.power import earlier_std, findable, observed_std, smallest_difference

REPETITIONS = 1000
SD = math.sqrt(0.95 * 0.05 / REPETITIONS)
"""of a share of repetitions that is truly 0.95"""


def signs(rng, seeds, by_image, by_seed, images=300):
    """x_si, (S, I) of 1, 0 and -1, with the true mean 0: `by_image` concentrates what differs on few images."""
    share = 0.1
    favour_I, against_I = share * rng.gamma(1 / by_image, by_image, (2, images)).clip(0, 4.5)
    shift_S = (by_seed * rng.normal(size=seeds)).clip(-1, 1)
    u_SI = rng.random((seeds, images))
    favoured = u_SI < favour_I * (1 + shift_S)[:, None]
    return favoured.astype(np.int16) - (u_SI > 1 - against_I * (1 - shift_S)[:, None])


@pytest.mark.parametrize("seeds", [3, 5, 7])
@pytest.mark.parametrize(("by_image", "by_seed"), [(0.01, 0.0), (0.01, 0.5), (4.0, 0.1), (4.0, 0.0)])
def test_intervals_over_seeds_and_images_cover_the_truth(seeds, by_image, by_seed):
    """At least 95 % but for the simulation's own error (3 of its standard deviations), and not all of the time."""
    rng = np.random.default_rng(seeds)
    held = 0
    for _ in range(REPETITIONS):
        x_SI = signs(rng, seeds, by_image, by_seed)
        low, high = interval(100 * x_SI.mean(axis=1), *image_variance(x_SI))
        held += low <= 0 <= high
    assert 0.95 - 3 * SD <= held / REPETITIONS < 1


@pytest.mark.parametrize("seeds", [3, 4])
def test_seeds_that_agree_by_luck_have_no_narrow_interval(seeds):
    """Of 4,000 samples whose seeds differ by their own chance with the images alone, those whose spread came out below
    half of that: Student's interval covers too little of them, the one that knows the images what it is called."""
    rng = np.random.default_rng(seeds)
    lucky = []
    for _ in range(4000):
        x_SI = signs(rng, seeds, 0.01, 0.0)
        difference_S, known = 100 * x_SI.mean(axis=1), image_variance(x_SI)
        if difference_S.std(ddof=1) < math.sqrt(known.own) / 2:
            lucky.append((interval(difference_S, known.shared), interval(difference_S, *known)))
    student, joined = (np.mean([low <= 0 <= high for low, high in ends]) for ends in zip(*lucky, strict=True))
    assert len(lucky) > 500
    assert student < 0.85
    assert joined > 0.95 - 3 * math.sqrt(0.95 * 0.05 / len(lucky))


def test_an_interval_over_seeds_alone_does_not_cover_the_choice_of_images():
    """Seven seeds that share images which favour one side agree with each other and not with the truth."""
    rng = np.random.default_rng(0)
    samples = [100 * signs(rng, 7, 4.0, 0.0).mean(axis=1) for _ in range(REPETITIONS)]
    held = sum(low <= 0 <= high for low, high in map(interval, samples))
    assert held / REPETITIONS < 0.85


@pytest.mark.parametrize("seeds", [2, 3, 4, 6, 7, 10])
def test_intervals_of_normal_differences_between_seeds_are_as_wide_as_they_are_called(seeds):
    rng = np.random.default_rng(seeds)
    found = [interval(sample) for sample in rng.normal(1.0, 2.0, (REPETITIONS, seeds))]
    held = sum(low <= 1.0 <= high for low, high in found) / REPETITIONS
    assert held == pytest.approx(0.95, abs=3 * SD)


@pytest.mark.parametrize("seeds", [3, 4, 6])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_joined_intervals_cover_at_least_what_they_are_called_whatever_the_images_share(seeds, share):
    """Normal seeds and images, 20,000 times: between 95 and 98 % for every share of the images in the variance."""
    rng = np.random.default_rng(0)
    d = rng.normal(0, math.sqrt((1 - share) * seeds), (20_000, seeds)) + rng.normal(0, math.sqrt(share), (20_000, 1))
    half = half_width(d.std(axis=1, ddof=1), np.array(seeds), np.array(share), 0.025)
    assert 0.947 < (np.abs(d.mean(axis=1)) <= half).mean() < 0.98


def test_intervals_of_few_seeds_are_students():
    """t(0.975, 2) = 4.3027 from any table."""
    low, high = interval(np.array([1.0, 2.0, 3.0]))
    assert (low, high) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)
    assert all(map(math.isnan, interval(np.array([1.0]))))


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0], [0.0, 1.0, 3.0, 2.0, 5.0, 4.0, 9.0, 7.0]])
def test_what_the_images_add_is_added_by_squares(values):
    """Images alone would give 1.96 times the root of their variance, 4, on either side."""
    values = np.array(values)
    low, high = interval(values)
    joined = interval(values, shared=4.0)
    mean = values.mean()
    assert mean - joined[0] == pytest.approx(math.hypot(mean - low, 1.959964 * 2), abs=1e-5)
    assert joined[1] - mean == pytest.approx(math.hypot(high - mean, 1.959964 * 2), abs=1e-5)


def test_the_variance_that_images_share_is_the_mean_covariance_of_two_seeds():
    x_SI = signs(np.random.default_rng(1), 4, 2.0, 0.3)
    covariance_SS = np.cov(100.0 * x_SI)
    expected = covariance_SS[~np.eye(4, dtype=bool)].mean() / 300
    found = image_variance(x_SI)
    assert found.shared == pytest.approx(max(expected, 0.0))
    # what is left of the mean variance of a seed over the images
    assert found.own == pytest.approx(covariance_SS.diagonal().mean() / 300 - found.shared)
    assert image_variance(x_SI[:1]) == (0.0, pytest.approx(covariance_SS[0, 0] / 300))


def test_images_that_seeds_do_not_share_add_nothing():
    """Each seed's own images are right by chance: their mean covariance is as often below 0 as above."""
    rng = np.random.default_rng(2)
    found = [image_variance(rng.integers(-1, 2, (3, 200)).astype(np.int16)).shared for _ in range(200)]
    assert 0.3 < np.mean(np.array(found) == 0.0) < 0.7


def test_p_is_the_level_at_which_the_interval_just_reaches_nothing():
    std, n, shared = np.array([0.3, 0.3, 0.0]), np.array([3, 5, 4]), np.array([0.01, 0.04, 0.02])
    mean = np.array([0.8, -0.6, 0.2])
    p = two_sided(mean, std, n, shared)
    assert half_width(std, n, shared, p / 2) == pytest.approx(np.abs(mean), rel=1e-6)
    # without any spread between seeds the images alone decide
    assert p[2] == pytest.approx(2 * special.ndtr(-0.2 / math.sqrt(0.02)))


def test_without_images_p_is_that_of_the_paired_t_test():
    samples = np.random.default_rng(5).normal(0.3, 1.0, (20, 6))
    p = two_sided(samples.mean(1), samples.std(1, ddof=1), np.full(20, 6), np.zeros(20))
    assert p == pytest.approx(stats.ttest_1samp(samples, 0.0, axis=1).pvalue)


def test_equivalence_is_the_two_one_sided_tests_of_statsmodels():
    from statsmodels.stats.weightstats import ttost_paired

    for sample in np.random.default_rng(6).normal(0.1, 0.3, (20, 5)):
        mean, std = np.array([sample.mean()]), np.array([sample.std(ddof=1)])
        p = equivalence(mean, std, np.array([5]), np.zeros(1), 0.5)
        assert p[0] == pytest.approx(ttost_paired(sample, np.zeros(5), -0.5, 0.5)[0])


def test_holm_is_that_of_statsmodels():
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(7).uniform(0, 0.2, 9)
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


@pytest.mark.parametrize("seeds", [3, 8])
def test_differences_without_any_spread_are_not_certain(seeds):
    """Nothing is known of chance but the signs, unless the images say how much each seed would vary with them."""
    always = np.full(seeds, 0.1)
    found = Paired.of(always)
    assert (found.p, math.isnan(found.low), math.isnan(found.high)) == (2.0 ** (1 - seeds), True, True)
    assert equivalence(*(np.array([value]) for value in (0.1, 0.0, 3, 0.0)), 0.5)[0] == 0.125
    assert math.isnan(findable(np.zeros(1), np.array([seeds]), np.zeros(1))[0])
    known = Paired.of(always, own=0.04)
    half = stats.norm.ppf(0.975) * 0.2 / seeds**0.5
    assert (known.std, known.low, known.high) == pytest.approx((0.0, 0.1 - half, 0.1 + half))
    assert known.p == pytest.approx(2 * stats.norm.sf(0.1 * seeds**0.5 / 0.2))


def test_equal_accuracies_of_different_weights_are_not_equivalent_for_that():
    frame = frame_of(
        cells("base_recalibrated", [80.0, 81.0, 82.0]),
        cells("swa", [80.0, 81.0, 82.0]),
        primary=[("swa", "base_recalibrated")],
    )
    frame.loc[frame["method"] == "swa", "test_loss"] += 0.01
    line = comparisons(frame).iloc[0]
    assert (line["mean"], line["verdict"]) == (0.0, "undecided")
    assert math.isnan(line["findable"])


@pytest.mark.parametrize("shared", [0.0, 0.05])
@pytest.mark.parametrize(("seeds", "tests"), [(3, 1), (5, 4), (8, 1)])
def test_a_difference_as_large_as_is_said_is_found_in_80_of_100_suites(seeds, tests, shared):
    std, repetitions = 0.5, 4000
    delta = findable(np.array([std]), np.array([seeds]), np.array([shared]), tests)[0]
    rng = np.random.default_rng(seeds)
    d = delta + rng.normal(0, std, (repetitions, seeds)) + rng.normal(0, math.sqrt(shared), (repetitions, 1))
    columns = (d.mean(1), d.std(1, ddof=1), np.full(repetitions, seeds), np.full(repetitions, shared))
    found = (two_sided(*columns) * tests < 0.05) & (columns[0] > 0)
    assert found.mean() == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / repetitions))


@pytest.mark.parametrize(("seeds", "tests"), [(3, 1), (4, 3), (6, 5)])
def test_the_smallest_difference_is_that_of_the_noncentral_t(seeds, tests):
    t = special.stdtrit(seeds - 1, 1 - 0.025 / tests)
    delta = smallest_difference(seeds, 0.4, tests)
    assert special.nctdtr(seeds - 1, delta * math.sqrt(seeds) / 0.4, t) == pytest.approx(0.2, abs=0.002)


def test_three_seeds_find_large_differences_alone():
    """4.303 + about 1.35 standard errors of 0.5 / sqrt 3."""
    assert smallest_difference(3) == pytest.approx(1.63, abs=0.01)
    assert smallest_difference(6) < 0.75
    assert math.isnan(smallest_difference(2))


def test_the_spread_of_differences_is_that_of_earlier_results_where_there_are_any():
    """sd 1, 0.5 and 0.1: their median; one seed, equal runs and another BatchNorm policy say nothing."""
    gains = {"swa": [81.0, 82.0, 83.0], "ema": [80.5, 81.0, 81.5], "lawa": [80.1, 80.2, 80.3]}
    nothing = {"base": [10.0, 20.0, 60.0], "clock": [80.0] * 3, "twa": [90.0, "failed", "left"]}
    said = [cells(method, values) for method, values in (gains | nothing).items()]
    frame = frame_of(cells("base_recalibrated", [80.0] * 3), *said)
    assert observed_std(comparisons(frame).to_dict("records")) == pytest.approx(0.5)
    assert observed_std(comparisons(frame_of(cells("swa", [80.0, 81.0, 82.0]))).to_dict("records")) is None
    assert smallest_difference(3, 1.0) == pytest.approx(2 * smallest_difference(3, 0.5))


def test_earlier_results_of_the_same_model_and_data_say_how_differences_vary(tmp_path):
    """+1 +2 +3 in one suite, +1 +3 +5 in another, of a model that only the second has; a damaged table says nothing."""
    suites = {
        "a": [cells("base_recalibrated", [80.0] * 3), cells("swa", [81.0, 82.0, 83.0])],
        "b": [cells("base_recalibrated", [80.0] * 3, "other"), cells("swa", [81.0, 83.0, 85.0], "other")],
    }
    for name, groups in suites.items():
        folder = tmp_path / "suites" / name / "tables"
        folder.mkdir(parents=True)
        comparisons(frame_of(*groups)).to_csv(folder / "comparisons.csv", index=False)
    damaged = tmp_path / "suites" / "c" / "tables"
    damaged.mkdir(parents=True)
    (damaged / "comparisons.csv").write_bytes(b"model,dataset\nnet,digits\n\xff")
    assert earlier_std(tmp_path, {("net", "digits")}) == (pytest.approx(1.0), ["a"])
    assert earlier_std(tmp_path, {("net", "digits"), ("other", "digits")}) == (pytest.approx(1.5), ["a", "b"])
    assert earlier_std(tmp_path, {("net", "letters")}) == (None, [])


@pytest.mark.parametrize(
    ("arguments", "bound"), [((0,), "at least 1"), ((3, 0.0), "above 0"), ((3, -1.0), "got -1"), ((3, math.nan), "nan")]
)
def test_what_is_out_of_bounds_is_refused(arguments, bound):
    with pytest.raises(ValueError, match=bound):
        smallest_difference(*arguments)


def test_equivalence_is_claimed_at_the_margin_in_at_most_5_of_100_suites_and_found_within_it():
    """At a true difference of the margin a claim is false; at 0 with 6 seeds and a spread of 0.3 it is mostly found."""
    rng = np.random.default_rng(9)
    for true, low, high in ((0.5, 0.0, 0.06), (0.0, 0.8, 1.0)):
        d = rng.normal(true, 0.3, (4000, 6))
        p = equivalence(d.mean(1), d.std(1, ddof=1), np.full(4000, 6), np.zeros(4000), 0.5)
        assert low <= (p < 0.05).mean() <= high


def test_a_suite_whose_methods_are_all_the_base_gives_no_winner_beyond_the_stated_level():
    """200 suites of 3 seeds and 4 primary comparisons: any verdict of better or worse is false."""
    rng = np.random.default_rng(11)
    methods, controls = ("swa", "ema"), ("base_recalibrated", "time_mean")
    primary = [(method, control) for method in methods for control in controls]
    frame = frame_of(*(cells(method, [80.0] * 3) for method in (*methods, *controls)), primary=primary)
    winners = 0
    for _ in range(200):
        table = comparisons(frame.assign(test_accuracy=rng.normal(80.0, 0.5, len(frame))))
        assert (table["family"] == "primary").sum() == 4
        winners += table["verdict"].isin(["better", "worse"]).any()
    # 5 % of 200 are 10, with a standard deviation of 3
    assert winners <= 10 + 3 * 3


def test_a_suite_of_the_very_same_weights_has_no_winner():
    frame = frame_of(
        *(cells(method, [80.0, 81.0, 82.0]) for method in ("base_recalibrated", "swa", "ema")),
        primary=[("swa", "base_recalibrated"), ("ema", "swa")],
    )
    table = comparisons(frame)
    assert set(table.loc[table["family"] == "primary", "verdict"]) == {"equivalent"}
    assert set(table.loc[table["family"] == "exploratory", "verdict"]) == {"close"}


def test_cells_of_other_splits_have_no_images_in_common():
    images = TestImages()
    assert images.number(["a", "b"]) == 0
    assert images.signs(["a"], ["b"]) is None
