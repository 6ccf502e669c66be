"""Time to a target, profiles and areas on curves whose answers are known by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from frames import cells, frame_of, history_of

from harness.report.stats.progress import areas, curves, mean_height, profiles, target_of, time_to_target

CURVES = {
    "base_recalibrated": [40.0, 60.0, 70.0, 80.0],
    "swa": [50.0, 80.0, 82.0, 84.0],
    "ema": [None, 60.0, None, 79.0],
    "cmd_posthoc": [None, None, None, 90.0],
}


@pytest.fixture
def frame():
    return frame_of(
        cells("base_recalibrated", [79.0, 79.0]),
        cells("swa", [83.0, "diverged"]),
        cells("ema", [78.0, 78.0]),
        cells("cmd_posthoc", [89.0, 89.0]),
        reconstructions=["cmd_posthoc"],
    )


@pytest.fixture
def curve(frame):
    return curves(frame, history_of(frame, CURVES), ["cmd_posthoc"])


def test_the_target_is_what_the_recalibrated_base_ends_with(frame):
    assert set(target_of(frame)) == {80.0}
    assert set(target_of(frame, 66.0)) == {66.0}
    assert target_of(frame[frame["method"] == "swa"]).isna().all()


def test_what_each_cell_spends_up_to_the_target(frame, curve):
    times = time_to_target(frame, curve, target_of(frame), ["cmd_posthoc"]).set_index(["method", "seed"])
    assert set(times.index) == {("base_recalibrated", 0), ("base_recalibrated", 1), ("swa", 0), ("ema", 0), ("ema", 1)}
    assert times["epochs"].to_dict()["swa", 0] == 2
    # an epoch takes 2 s of training and 0.5 s of the method, and 1,000 images
    assert times.loc[("swa", 0), ["seconds", "gradients"]].tolist() == [5.0, 2000.0]
    assert times.loc[("base_recalibrated", 1), "epochs"] == 4
    assert times.loc[("ema", 0), "epochs"] == math.inf


def test_no_target_no_time(frame, curve):
    nothing = pd.Series(math.nan, index=frame["base_key"].unique())
    assert time_to_target(frame, curve, nothing)["epochs"].isna().all()


def test_a_suite_of_which_nothing_is_done_has_no_times():
    """Every cell diverged after its first epochs: no curve is left, and none reaches a target."""
    frame = frame_of(cells("base_recalibrated", [79.0, 79.0]))
    history = history_of(frame, CURVES).astype({"cell_key": "str"})
    frame["status"] = "diverged"
    curve = curves(frame, history)
    assert len(curve) == 0
    assert len(time_to_target(frame, curve, target_of(frame))) == 0


def test_profiles_by_hand(frame, curve):
    """swa solves the first base in 2 epochs and is not there for the second; the control needs 4 and is first there."""
    steps = profiles(time_to_target(frame, curve, target_of(frame), ["cmd_posthoc"]))
    assert set(steps["problems"]) == {2}
    by_method = {m: list(zip(s["ratio"], s["share"], strict=True)) for m, s in steps.groupby("method")}
    assert by_method["swa"] == [(1.0, 0.5)]
    assert by_method["base_recalibrated"] == [(1.0, 0.5), (2.0, 1.0)]
    assert by_method["ema"] == [(1.0, 0.0)]


def test_profiles_of_a_target_that_nobody_reaches(frame, curve):
    assert profiles(time_to_target(frame, curve, target_of(frame, 99.0))).empty


@pytest.mark.parametrize(
    ("epochs", "values", "end", "height"),
    [
        ([1, 3, 5], [10, 20, 20], 5, (15 * 2 + 20 * 2) / 4),
        ([1, 3], [10, 20], 5, (15 * 2 + 20 * 2) / 4),  # over earlier: it stays what it is
        ([1, 3, 5], [10, 20, 99], 3, 15.0),  # longer than the base: cut
        ([1, 3], [10, 20], 2, 12.5),
    ],
)
def test_areas_by_hand(epochs, values, end, height):
    assert mean_height(np.array(epochs, float), np.array(values, float), end) == pytest.approx(height)


def test_a_single_evaluation_has_no_area():
    assert math.isnan(mean_height(np.array([4.0]), np.array([80.0]), 4.0))


def test_areas_of_cells(frame, curve):
    found = areas(frame, curve)
    assert found["net-digits-sgd-base_recalibrated-0"] == pytest.approx((50 + 65 + 75) / 3)
    assert found["net-digits-sgd-ema-0"] == pytest.approx((60 + 79) / 2)
    assert not [key for key in found.index if "posthoc" in key]


def test_an_empty_history_has_no_curves(frame):
    empty = pd.DataFrame({"cell_key": pd.Series(dtype="str"), "epoch": pd.Series(dtype="int64")})
    curve = curves(frame, empty)
    assert curve.empty
    assert (time_to_target(frame, curve, target_of(frame))["epochs"] == math.inf).all()
    assert areas(frame, curve).empty
