"""Sentences follow from the numbers: what was named and found, what is seen beside it, and the annealed rivals."""

import pandas as pd
from frames import cells, frame_of

from harness.report.stats.headline import headline, joined
from harness.report.stats.summary import results

EMPTY = pd.DataFrame({"cell_key": pd.Series(dtype="str"), "epoch": pd.Series(dtype="int64")})
PLAIN = "base_recalibrated"
EXPLORATORY = (
    "This suite names no primary comparisons: what follows is exploratory, from intervals that are not adjusted, and "
    "nothing is tested."
)


def said(*groups, metric="test_accuracy", primary=()):
    return headline(results(frame_of(*groups, primary=[(method, PLAIN) for method in primary]), EMPTY, metric))


def test_every_verdict_of_a_primary_comparison():
    """+3.0 3.1 3.2; -3.0 -3.1 -3.2; +0.1 -0.1 +0.1; +2 -1 +1: each run of three counts once."""
    sentences = said(
        cells(PLAIN, [80.0, 81.0, 82.0]),
        cells("swa", [83.0, 84.1, 85.2]),
        cells("p_sgd", [77.0, 77.9, 78.8]),
        cells("ema", [80.1, 80.9, 82.1]),
        cells("lawa", [82.0, 80.0, 83.0]),
        primary=("swa", "p_sgd", "ema", "lawa"),
    )
    assert sentences == [
        "Of 4 primary comparisons over 3 training runs, 1 found the method better, 1 worse and 1 equivalent within 0.5 "
        "points; 1 is undecided.",
        "Better: SWA against plain training (+3.10 points, 95 % interval +2.85 to +3.35).",
        "Worse: P-SGD against plain training (−3.10 points, 95 % interval −3.35 to −2.85).",
        "Equivalent: EMA against plain training (+0.03 points, 95 % interval −0.25 to +0.32).",
        "Undecided: LAWA against plain training (+0.67 points, 95 % interval −3.13 to +4.46; would have found 10.00).",
    ]


def test_many_comparisons_of_one_verdict_are_said_briefly():
    methods = [f"m{place}" for place in range(7)]
    sentences = said(
        cells(PLAIN, [80.0, 81.0, 82.0]), *(cells(name, [82.0, 80.0, 83.0]) for name in methods), primary=methods
    )
    # +2, -1 and +1: t(0.975, 2) = 4.3027 times 1.5275 / sqrt(3)
    briefly = "against plain training (+0.67, \N{MINUS SIGN}3.13 to +4.46)"
    assert sentences[1] == "Undecided: " + "; ".join(f"{name} {briefly}" for name in methods) + "."


def test_what_is_not_finished_is_said():
    sentences = said(cells(PLAIN, [80.0, 81.0, 82.0]), cells("swa", [83.0, "left", "failed"]), primary=("swa",)) + said(
        cells(PLAIN, [80.0, 81.0, 82.0]), cells("ema", [83.0, 84.1, 85.2]), primary=("swa", "ema")
    )
    assert sentences[-2] == (
        "Of 2 primary comparisons over 3 training runs, 1 found the method better, 0 worse and 0 equivalent within 0.5 "
        "points; 0 are undecided and 1 is not made."
    )
    assert sentences[0].startswith("No test is possible with fewer than 3 seeds.")


def test_a_suite_without_primary_comparisons_says_so_and_tests_nothing():
    sentences = said(
        cells("base", [70.0, 71.0, 72.0]),
        cells(PLAIN, [80.0, 81.0, 82.0]),
        cells("swa", [83.0, 84.1, 85.2]),
        cells("lawa", [82.0, 80.0, 83.0]),
        cells("p_sgd", [77.0, 77.9, 78.8]),
        cells("ema", [80.1, 80.9, 82.1]),
    )
    assert sentences == [
        EXPLORATORY,
        "Exploratory, 3 training runs: against plain training the interval lies on the better side of 0 for SWA "
        "(+3.10), on the worse side for P-SGD (−3.10), within 0.5 points of 0 for EMA (+0.03), and nothing can be said "
        "of LAWA (+0.67).",
    ]


def test_one_method_of_which_nothing_can_be_said():
    assert said(cells(PLAIN, [80.0, 81.0, 82.0]), cells("swa", [81.0, 80.0, 82.5]))[1:] == [
        "Exploratory, 3 training runs: against plain training nothing can be said of SWA (+0.17)."
    ]


def test_methods_beside_the_controls_that_their_presets_name():
    """CMD without one stands beside the time mean, and the plain base is no control that is worth a sentence."""
    groups = (
        cells(PLAIN, [80.0, 81.0, 82.0]),
        cells("time_mean", [78.0, 79.0, 80.1], control=PLAIN),
        cells("clock", [80.0, 81.2, 82.0]),
        cells("cmd_online", [80.1, 81.0, 82.2], control="clock"),
        cells("cmd_posthoc", [80.1, 81.0, 82.2]),
    )
    # +0.1 -0.2 +0.2 to the clock, +2.1 +2.0 +2.1 to the time mean
    assert said(*groups)[-1] == (
        "Exploratory, beside their own controls: post-hoc CMD to time mean (+2.07 points, 95 % interval +1.92 to "
        "+2.21: ahead) and online CMD to clock (+0.03 points, 95 % interval −0.48 to +0.55: close)."
    )


def on_bases(*gains, models=("net",), annealed=85.0):
    """Plain training and methods, by name and mean, on constant bases that have a twin, and plain runs on the twins."""
    groups = []
    for model in models:
        for method, mean in ((PLAIN, 80.0), *gains):
            values = [mean, mean + 1.1, mean + 2.0]
            groups.append(cells(method, values, model, twin="sgd_cosine"))
        values = [annealed, annealed + 1.0, annealed + 2.1]
        groups.append(cells(PLAIN, values, model, optimizer="sgd_cosine", schedule="cosine"))
    return groups


BESIDE = "Exploratory, beside the plain run of the same length with an annealed rate"


def test_methods_on_constant_bases_are_set_beside_the_plain_annealed_run():
    """0.0 +0.1 -0.1 and +1.0 +1.1 +0.9: sd 0.1, times t(0.975, 2) = 4.303 and over sqrt 3."""
    assert said(*on_bases(("swa", 85.0), ("ema", 84.0)))[-1] == (
        f"{BESIDE} (net digits sgd_cosine): of 2 methods on sgd, 3 training runs each, none is ahead; the best mean is "
        "that of SWA (+0.00 points, 95 % interval −0.25 to +0.25)."
    )
    assert said(*on_bases(("swa", 86.0)))[-1] == (
        f"{BESIDE} (net digits sgd_cosine): of 1 method on sgd, 3 training runs each, ahead is SWA (+1.00 points, 95 % "
        "interval +0.75 to +1.25)."
    )


def test_many_rows_share_a_sentence():
    sentences = said(*on_bases(("swa", 86.0), ("ema", 84.1), models=tuple("abcde")))
    assert sentences[-1] == (
        f"{BESIDE}: of 10 methods on 5 bases of constant rate 5 ahead, 5 behind, 0 close and 0 open."
    )
    assert sentences[1].startswith("Exploratory, 15 training runs at constant rate: against plain training")


def test_two_seeds_are_not_tested():
    (sentence,) = said(cells(PLAIN, [80.0, 81.0]), cells("swa", [83.0, 84.0]), cells("ema", [79.0, 80.0]))
    assert sentence == (
        "No test is possible with fewer than 3 seeds. The best mean is that of SWA: +3.00 points to plain training "
        "(base_recalibrated) in 2 training runs, which may be chance."
    )


def test_who_shares_the_best_mean_is_named_and_no_gain_is_none():
    (sentence,) = said(
        cells(PLAIN, [80.0, 81.0]), cells("swa", [83.0, 84.0]), cells("ema", [84.0, 83.0]), cells("lawa", [82.0, 83.0])
    )
    assert "The best mean is that of SWA and EMA: +3.00 points" in sentence
    (sentence,) = said(cells(PLAIN, [80.0, 81.0]), cells("swa", [80.0, 81.0]), cells("ema", [79.0, 80.0]))
    assert sentence.endswith("No method has a better mean than plain training (base_recalibrated) in 2 training runs.")


def test_without_a_control_nothing_is_compared():
    (sentence,) = said(cells("swa", [83.0, 84.0]), cells(PLAIN, ["left", "left"]))
    assert "Nothing can be compared yet" in sentence


def test_a_lower_loss_is_better():
    sentences = said(
        cells(PLAIN, [80.0, 81.0, 82.0]), cells("swa", [83.0, 84.1, 85.2]), metric="test_loss", primary=("swa",)
    )
    assert sentences == [
        "Of 1 primary comparison over 3 training runs, 1 found the method better, 0 worse and 0 equivalent; 0 are "
        "undecided.",
        "Better: SWA against plain training (−0.0310 of test loss, 95 % interval −0.0335 to −0.0285).",
    ]


def test_a_name_that_is_not_known_stays_as_it_is():
    sentences = said(cells(PLAIN, [80.0, 81.0, 82.0]), cells("Halfway", [83.0, 84.1, 85.2]), primary=("Halfway",))
    assert sentences[1].startswith("Better: Halfway against plain training")


def test_joining_names():
    assert [joined(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
