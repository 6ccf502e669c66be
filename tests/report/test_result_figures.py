"""Figures of results: the data beside them is the frame's, drawn in one style per method."""

import math

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from frames import cells, frame_of, history_of
from matplotlib.figure import Figure

from harness.report.figures.cost import cost_data, draw_cost
from harness.report.figures.curves import draw_curves
from harness.report.figures.differences import differences_data, draw_differences
from harness.report.figures.draw import draw_figures
from harness.report.figures.files import Drawing, draw_all
from harness.report.figures.profile import draw_profile
from harness.report.figures.registry import FIGURES
from harness.report.figures.shown import MOST, SHOWN, only_shown
from harness.report.figures.style import Labels
from harness.report.method_styles import DASHES, KNOWN, LINES, MARKERS, POINTS, TOGETHER, style_of
from harness.report.page.curves import FIRST, curve_data, shown_first
from harness.report.stats.comparisons import pairs
from harness.report.stats.cost import accuracy_and_cost
from harness.report.stats.curves import curve_table
from harness.report.stats.summary import results
from harness.storage.store import Store

NO_HISTORY = pd.DataFrame({"cell_key": pd.Series(dtype="str"), "epoch": pd.Series(dtype="int64")})
LABELS = Labels("title", target="target")


def draw(frame, history, folder):
    """The lines of drawing a frame's figures; no cell has tables of its own."""
    return list(draw_figures(Store(folder / "results"), results(frame, history), folder / "figures"))


@pytest.fixture(scope="module")
def frame():
    return frame_of(
        cells("base", [79.0, 80.0, 81.0]),
        cells("base_recalibrated", [80.0, 81.0, 82.0]),
        cells("time_mean", [78.0, 79.5, 80.0]),
        cells("swa", [83.0, 84.1, 85.2]),
        cells("cmd_online", [82.0, "diverged", math.nan]),
        primary=[("swa", "base_recalibrated")],
    )


@pytest.fixture(scope="module")
def drawn(frame, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    lines = draw(frame, history_of(frame), folder)
    return folder / "figures", lines


def table(drawn, name):
    return pd.read_csv(drawn[0] / f"{name}.csv")


def test_every_figure_has_its_data_beside_it(drawn):
    folder, lines = drawn
    names = {"net-digits-sgd-differences", "net-digits-sgd-curves", "net-digits-sgd-cost", "suite-profile"}
    assert {path.name for path in folder.iterdir()} == {f"{n}.{kind}" for n in names for kind in ("png", "pdf", "csv")}
    assert lines == []
    assert {name.rpartition("-")[2] for name in names} <= {kind.name for kind in FIGURES}


def test_curves_are_means_and_stds_of_the_history(drawn, frame):
    curve = table(drawn, "net-digits-sgd-curves").set_index(["method", "epoch"])
    # a straight line to one above the test accuracies of 83, 84.1 and 85.2
    assert curve.loc[("swa", 4), "val_accuracy_mean"] == pytest.approx(85.1)
    assert curve.loc[("swa", 2), "val_accuracy_std"] == pytest.approx(1.1 / 2)
    assert curve.loc[("swa", 3), ["n", "seconds", "gradients"]].tolist() == [3, 7.5, 3000]
    assert curve.loc[("cmd_online", 4), "n"] == 1
    history = history_of(frame).merge(frame[["cell_key", "method"]], on="cell_key")
    means = history.groupby(["method", "epoch"])["val_loss"].mean()
    pd.testing.assert_series_equal(curve["val_loss_mean"].sort_index(), means.sort_index(), check_names=False)


def test_differences_are_the_pairs_with_their_interval(drawn, frame):
    saved = table(drawn, "net-digits-sgd-differences")
    swa = saved[(saved["method"] == "swa") & (saved["control"] == "base_recalibrated")]
    assert swa["difference"].tolist() == pytest.approx([3.0, 3.1, 3.2])
    assert set(swa["mean"].round(9)) == {3.1}
    # t(0.975, 2) sd / sqrt 3
    assert swa["high"].to_numpy() - 3.1 == pytest.approx(4.302653 * 0.1 / 3**0.5)
    assert set(swa["verdict"]) == {"better"}
    expected = sum(len(pairs(frame, "test_accuracy", control)) for control in ("base_recalibrated", "time_mean"))
    assert len(saved) == expected


def test_cost_is_of_finished_cells_with_numbers(drawn):
    cost = table(drawn, "net-digits-sgd-cost").set_index("method")
    # 2 s of training and 2 s of the method, 4 epochs of 1,000 images
    assert cost.loc["swa", ["n", "seconds_mean", "gradients_mean"]].tolist() == [3, 4.0, 4000.0]
    assert cost.loc["swa", "test_accuracy_mean"] == pytest.approx(84.1)
    assert cost.loc["cmd_online", "n"] == 1


def test_figures_of_earlier_plans_go_and_a_row_without_results_is_named(tmp_path):
    folder = tmp_path / "figures"
    folder.mkdir()
    for name in (
        "net-digits-sgd-curves.png",
        "net-digits-sgd-mine-layers.csv",
        "net-digits-sgd-mine.json",
        "my-own.png",
    ):
        (folder / name).write_bytes(b"")
    frame = frame_of(cells("base", ["left", "failed"]))
    assert draw(frame, NO_HISTORY, tmp_path) == ["figures: net digits sgd: not drawn, no cell is done"]
    assert [path.name for path in folder.iterdir()] == ["my-own.png"]


def test_average_ranks_are_drawn_from_five_rows_on(tmp_path, monkeypatch):
    images = []

    def listed(drawings):
        images.extend(drawing.path.name for drawing in drawings)
        return [None] * len(drawings)

    monkeypatch.setattr("harness.report.figures.draw.draw_all", listed)
    groups = []
    for index in range(5):
        for method, value in (("base_recalibrated", 80.0), ("swa", 82.0), ("ema", 81.0)):
            groups.append([*cells(method, [value], f"net{index}")])
    assert draw(frame_of(*groups[:6]), NO_HISTORY, tmp_path) == [
        "figures: average ranks need at least 5 models or data sets, got 2"
    ]
    assert "suite-ranks" not in images
    assert draw(frame_of(*groups), NO_HISTORY, tmp_path) == []
    assert "suite-ranks" in images
    saved = pd.read_csv(tmp_path / "figures" / "suite-ranks.csv").set_index("method")
    assert saved["rank"].to_dict() == {"swa": 1.0, "ema": 2.0, "base_recalibrated": 3.0}
    # Demšar 2006, table 5a: 2.343 sqrt(3 * 4 / (6 * 5))
    assert saved["critical_difference"].iloc[0] == pytest.approx(2.343 * (12 / 30) ** 0.5, abs=1e-3)


def colours(figure):
    """Colours of the lines with a label in any panel, by label."""
    found = {}
    for axes in figure.axes:
        for artist in axes.get_lines():
            if not str(artist.get_label()).startswith("_"):
                found.setdefault(artist.get_label(), set()).add(matplotlib.colors.to_hex(artist.get_color()).upper())
    return found


@pytest.mark.parametrize("count", [5, 21])
def test_a_method_has_one_colour_in_every_figure_and_on_the_page(count):
    groups = [cells(m, [60.0 + place, 61.0 + place, 62.5 + place]) for place, m in enumerate(list(KNOWN)[:count])]
    frame = frame_of(*groups)
    history = history_of(frame)
    curve = curve_table(frame, history)
    figures = [
        draw_curves(curve, LABELS),
        draw_cost(accuracy_and_cost(frame), LABELS),
        draw_profile(pd.DataFrame({"method": list(KNOWN)[:count], "ratio": 1.0, "share": 1.0, "problems": 3}), LABELS),
    ]
    expected = {KNOWN[m].label: {KNOWN[m].colour.upper()} for m in list(KNOWN)[:count]}
    for figure in figures:
        assert colours(figure) == expected
    (row,) = curve_data(curve)["rows"]
    assert {m["method"]: m["colour"] for m in row["methods"]} == {m: KNOWN[m].colour for m in list(KNOWN)[:count]}


def test_known_methods_look_different_and_are_dark_enough_for_print():
    assert len({style.colour for style in KNOWN.values()}) == len(KNOWN)
    assert len({style.label for style in KNOWN.values()}) == len(KNOWN)
    for own in KNOWN.values():
        assert {own.dash} <= set(LINES)
        assert {own.marker} <= set(POINTS)
        linear = np.array(matplotlib.colors.to_rgb(own.colour)) @ [0.2126, 0.7152, 0.0722]
        assert linear < 0.8, own


def test_an_unknown_methods_looks_follow_from_its_name_alone():
    mine = style_of("halfway")
    assert mine == style_of("halfway")
    assert mine.label == "halfway"
    assert (mine.dash in DASHES, mine.marker in MARKERS) == (True, True)
    assert mine.colour not in {own.colour for own in KNOWN.values()}


def test_few_curves_share_a_panel_and_many_have_one_per_family():
    def panels(count):
        methods = list(KNOWN)[:count]
        frame = frame_of(*[cells(m, [60.0, 61.0]) for m in methods])
        return len(draw_curves(curve_table(frame, history_of(frame)), LABELS).axes) // 2

    assert panels(TOGETHER) == 1
    # averages, CMD and its controls, DMD, subspaces, frozen weights, two of exchanges; plain training is in each
    assert panels(len(KNOWN)) == 8


def test_a_method_far_beyond_the_others_does_not_flatten_them():
    """Three within 1 point, one that lost 60: the axis ends near 1.5 and the loss is written at its edge."""
    frame = frame_of(
        cells("base_recalibrated", [80.0, 81.0, 82.0]),
        cells("swa", [80.5, 81.9, 82.4]),
        cells("ema", [80.2, 81.3, 82.9]),
        cells("lawa", [79.8, 81.1, 82.2]),
        cells("twa", [20.0, 81.0, 82.0]),
    )
    table = differences_data(results(frame, history_of(frame)), ("net", "digits", "sgd"))
    (axes,) = draw_differences(table, LABELS).axes
    assert axes.get_xlabel() == "points above Base, recalibrated"
    low, high = axes.get_xlim()
    # t(0.975, 2) = 4.303 times 0.379 / sqrt 3 above ema's 0.47
    assert -1.5 < low < 0 < 1.4 < high < 1.6
    # and times 34.64 / sqrt 3 on either side of -20
    assert [text.get_text() for text in axes.texts] == ["−20.0 [−106.1, +66.1]"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["SWA", "EMA", "LAWA", "TWA"]
    small = frame.assign(test_loss=frame["test_accuracy"] / 1000)
    table = differences_data(results(small, history_of(small), "test_loss"), ("net", "digits", "sgd"))
    (axes,) = draw_differences(table, Labels("title", "test_loss")).axes
    assert [text.get_text() for text in axes.texts] == ["−0.02 [−0.11, +0.07]"]  # a thousandth of those


def test_long_curves_are_thinned_evenly_and_the_page_says_so():
    frame = frame_of(cells("swa", [80.0]))
    epochs = np.arange(1, 1002)
    rows = {"cell_key": "net-digits-sgd-swa-0", "epoch": epochs, "val_accuracy": epochs / 20, "val_loss": 1.0}
    history = pd.DataFrame(rows).assign(train_seconds=1.0, method_seconds=0.0)
    data = curve_data(curve_table(frame, history))
    drawn = data["rows"][0]["methods"][0]["values"]["epoch"]
    assert (len(drawn), data["thinned"]) == (100, 100)
    assert (drawn[0], drawn[-1]) == (1, 1001)
    assert {10, 11} >= set(np.diff(drawn))
    assert curve_data(curve_table(frame, history_of(frame)))["thinned"] is None


def test_the_page_draws_few_curves_at_first():
    """The controls, the reader's own method and CMD's before the best of the others."""
    methods = {m: 60.0 + place / 2 for place, m in enumerate(KNOWN)} | {"mine": 20.0}
    frame = frame_of(*[cells(m, [value, value]) for m, value in methods.items()])
    first = shown_first(curve_table(frame, history_of(frame)))
    assert len(first) == FIRST
    assert set(first) == {
        *("base_recalibrated", "time_mean", "mine", "cmd_online", "cmd_posthoc", "cmd_embedded"),
        *("frozen_least_moved", "frozen_random"),
    }
    few = frame[frame["method"].isin(["base", "twa", "swa"])]
    assert shown_first(curve_table(few, history_of(few))) == ["base", "swa", "twa"]


def test_images_are_drawn_anew_only_where_they_would_differ(tmp_path):
    """Another number, other words, a damaged image or one that is gone; not for what is whole and the same."""
    drawn = []

    def draw(data, labels):
        drawn.append(labels.title)
        return Figure(figsize=(1, 1))

    table, path = pd.DataFrame({"x": [0.1, 0.2], "name": ["a", "b"]}), tmp_path / "a-figure"

    def again(data=table, title="one"):
        before = len(drawn)
        draw_all([Drawing(path, draw, data, Labels(title), "from a table")])
        return len(drawn) > before

    assert again()
    first = {image: image.read_bytes() for image in tmp_path.iterdir()}
    assert not again()
    assert not again({"": table.copy()})
    assert again(table.assign(x=[0.1, 0.2 + 1e-16 * 4]))
    assert again(title="two")
    assert again()
    assert {image: image.read_bytes() for image in tmp_path.iterdir()} == first
    for image in first:
        image.write_bytes(image.read_bytes()[:-30])
        assert again()
        image.unlink()
        assert again()
    assert {image: image.read_bytes() for image in tmp_path.iterdir()} == first


def test_of_more_methods_than_can_be_told_apart_the_best_by_validation_are_shown():
    """Their table has all of them; the test split, whose order here is the opposite, has no part in it."""
    names = [f"mine_{number:02d}" for number in range(MOST + 5)]
    frame = frame_of(cells("base_recalibrated", [70.0, 71.0]), *[cells(name, [80.0, 81.0]) for name in names])
    number = frame["method"].map({name: place for place, name in enumerate(names)}).fillna(0).astype("float64")
    frame = frame.assign(val_accuracy=50 + number, test_accuracy=90 - number)
    found = results(frame, history_of(frame))
    row = ("net", "digits", "sgd")
    few = frame["method"].isin(["base_recalibrated", *names[:MOST]])
    assert SHOWN not in cost_data(results(frame[few], history_of(frame[few])), row)
    table = cost_data(found, row)
    assert len(table) == len(names) + 1
    assert set(table.loc[table[SHOWN], "method"]) == {"base_recalibrated", *names[5:]}
    drawn, labels = only_shown(table, Labels("here"))
    assert len(drawn) == MOST + 1
    assert labels.title == f"here; {MOST + 1} of {MOST + 6} methods, the best by validation accuracy"
