"""Sentences follow from the numbers: who beats plain training, by how much, in how many pairs, and who ties."""

import pandas as pd
from frames import cells, frame_of

from harness.report.stats.headline import headline, joined
from harness.report.stats.summary import results

EMPTY = pd.DataFrame({"cell_key": pd.Series(dtype="str"), "epoch": pd.Series(dtype="int64")})


def said(*groups, metric="test_accuracy"):
    return headline(results(frame_of(*groups), EMPTY, metric))


def test_two_that_tie_and_beat_plain_training():
    """+3.0 3.1 3.2 and +3.1 2.9 3.3: between them -0.1 +0.2 -0.1."""
    sentences = said(
        cells("base_recalibrated", [80.0, 81.0, 82.0]),
        cells("swa", [83.0, 84.1, 85.2]),
        cells("cmd_online", [83.1, 83.9, 85.3]),
    )
    assert sentences == ["SWA and online CMD tie; both beat plain training by 3.1 points in 6 of 6 pairs."]


def test_one_that_is_best_and_others():
    sentences = said(
        cells("base_recalibrated", [80.0, 81.0, 82.0]),
        cells("swa", [83.0, 84.1, 85.2]),
        cells("ema", [90.0, 91.2, 92.1]),
        cells("time_mean", [70.0, 71.1, 71.9]),
        cells("lawa", [81.0, 80.0, 82.5]),
    )
    assert sentences == [
        "EMA beats plain training by 10.1 points (95 % interval 10.0 to 10.2) in 3 of 3 pairs; "
        "SWA beats it by 3.1 points (95 % interval 3.0 to 3.2) in 3 of 3 pairs.",
        "Worse than plain training: time mean (by 10.0 points in 3 of 3 pairs).",
        "Not to be told apart from plain training: LAWA.",
    ]


def test_ahead_or_behind_in_every_pair_is_not_yet_better_or_worse():
    """+1 +3 +1: t = 2.5, p of 2 degrees of freedom 1 - t / sqrt(t^2 + 2) = 0.13, over three tests 0.26 after Holm."""
    sentences = said(
        cells("base_recalibrated", [80.0, 81.0, 82.0]),
        cells("swa", [81.0, 84.0, 83.0]),
        cells("p_sgd", [79.0, 78.0, 81.0]),
        cells("lawa", [81.0, 80.0, 82.5]),
    )
    assert sentences == [
        "None of the 3 methods compared can be told apart from plain training as better: the smallest Holm-adjusted p "
        "is 0.39 (paired t tests over 3 pairs, 5%).",
        "Ahead of plain training in every pair, but not significantly after Holm's correction: "
        "SWA by 1.7 points (p = 0.39).",
        "Behind plain training in every pair, but not significantly after Holm's correction: "
        "P-SGD by 1.7 points (p = 0.39).",
    ]


def test_nothing_to_tell_apart():
    (sentence,) = said(cells("base_recalibrated", [80.0, 81.0, 82.0]), cells("swa", [81.0, 80.0, 82.5]))
    assert sentence.startswith("The one method compared cannot be told apart from plain training as better")


def test_cmd_against_its_control():
    sentences = said(
        cells("base_recalibrated", [80.0, 81.0, 82.0]),
        cells("time_mean", [78.0, 79.0, 80.1]),
        cells("cmd_online", [80.1, 81.0, 82.2]),
    )
    assert sentences[-1] == (
        "Online CMD beats its control, the time mean, by 2.1 points (95 % interval 2.0 to 2.1) in 3 of 3 pairs."
    )


def test_two_seeds_are_not_tested():
    (sentence,) = said(cells("base_recalibrated", [80.0, 81.0]), cells("swa", [83.0, 84.0]), cells("ema", [79.0, 80.0]))
    assert sentence == (
        "No test is possible with fewer than 3 seeds. The best mean is that of SWA: +3.0 points to plain training in "
        "2 pairs, which may be chance."
    )


def test_without_a_control_nothing_is_compared():
    (sentence,) = said(cells("swa", [83.0, 84.0]), cells("base_recalibrated", ["left", "left"]))
    assert "Nothing can be compared yet" in sentence


def test_a_lower_loss_beats():
    sentences = said(
        cells("base_recalibrated", [80.0, 81.0, 82.0]), cells("swa", [83.0, 84.1, 85.2]), metric="test_loss"
    )
    assert sentences == [
        "SWA beats plain training by 0.0310 of test loss (95 % interval 0.0300 to 0.0320) in 3 of 3 pairs."
    ]


def test_a_name_that_is_not_known_stays_as_it_is():
    sentences = said(cells("base_recalibrated", [80.0, 81.0, 82.0]), cells("Halfway", [83.0, 84.1, 85.2]))
    assert sentences[0].startswith("Halfway beats plain training")


def test_joining_names():
    assert [joined(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
