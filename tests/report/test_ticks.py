"""Every figure of the report and of a search: a tick's label is its value, whatever the scale of the numbers."""

import math

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from frames import cells, frame_of, history_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from optuna.distributions import FloatDistribution, IntDistribution
from studies import by_seed, finished, made

from harness.method import Plane
from harness.report.figures.landscape import draw_landscape
from harness.report.figures.registry import FIGURES, MethodFigure, ResultFigure
from harness.report.figures.style import STYLE, Labels
from harness.report.figures.ticks import label_ticks, number_texts, rounded_apart
from harness.report.stats.summary import results
from harness.tune.figures import draw_history, draw_importances, draw_map
from harness.tune.results import trials_frame
from harness.tune.space import Space

LABELS = Labels("title", "test_loss", "target")
ROW = ("net0", "digits", "sgd")
METHODS = ("base", "base_recalibrated", "time_mean", "swa", "twa")
RANKS = pd.DataFrame({"method": METHODS[1:], "rank": [1.2, 1.9, 3.1, 3.8]}).assign(
    critical_difference=1.5, blocks=5, friedman_p=0.01
)
"""average ranks, of which a report has some only where Friedman's test finds something"""
SCALES = {
    "ordinary": (1.0, 0.0),
    "few": (0.02, 0.0),
    "tiny": (1e-7, 0.0),
    "huge": (3e9, 0.0),
    "negative": (-40.0, 0.0),
    "narrow": (1e-6, 91.0),
    "narrow and large": (0.3, 1234567.0),
}
"""what numbers between 0 and 1 are multiplied by, and what is added to them"""


@pytest.fixture(autouse=True, scope="module")
def style():
    """Of every figure of a report; how many ticks have room depends on it."""
    with mpl.rc_context(STYLE):
        yield


def number(text):
    """A label as its reader understands it."""
    return float(text.replace("\N{MINUS SIGN}", "-").replace(",", ""))


def labelled(axis, minor=False):
    """Values and labels of the ticks of an axis within its view; none where another axis has the labels of both."""
    low, high = sorted(axis.get_view_interval())
    texts = [label.get_text() for label in axis.get_ticklabels(minor=minor)]
    places = axis.get_ticklocs(minor=minor) if texts else []
    return [(place, text) for place, text in zip(places, texts, strict=True) if low <= place <= high]


def assert_ticks_say_their_values(figure, names=()):
    """All labels of the figure but those of the axes `names`, such as `0.y`, which say names."""
    for index, axes in enumerate(figure.axes):
        for letter, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
            if f"{index}.{letter}" in names or not axes.axison:
                continue
            both = labelled(axis) + labelled(axis, minor=True)
            assert [number(text) for _, text in both if text] == pytest.approx(
                [place for place, text in both if text], rel=1e-13, abs=1e-13 * max(map(abs, axis.get_view_interval()))
            )
            assert axis.get_major_formatter().get_offset() == ""
            assert len(set(filter(None, (text for _, text in both)))) == len([text for _, text in both if text])


def scaled(scale, *shape):
    """Numbers of a scale, the same every time."""
    factor, offset = SCALES[scale]
    return offset + factor * np.random.default_rng(0).random(shape)


def result_figure(kind, scale):
    """A figure of results whose numbers are of a scale, costs without an offset."""
    frame = frame_of(
        *[cells(method, [0.0] * 3, f"net{row}", federation="iid_10") for row in range(5) for method in METHODS]
    )
    frame["test_accuracy"] = frame["test_loss"] = scaled(scale, len(frame))
    frame["train_seconds"] = 4.5 * abs(SCALES[scale][0]) * np.random.default_rng(1).random(len(frame))
    frame["gradients_full"] = 1000 * frame["train_seconds"]
    history = history_of(frame)
    history["val_accuracy"], history["val_loss"] = scaled(scale, 2, len(history))
    found = results(frame, history, "test_loss")
    return kind.draw(RANKS if kind.name == "ranks" else kind.data(found, ROW), LABELS)


def profile(scale):
    """Ratios that reach as far as the scale, from 1 on."""
    reach = 1 + abs(SCALES[scale][0]) * np.array([0.0, 0.4, 1.0])
    return pd.DataFrame({"method": "swa", "ratio": reach, "share": [0.2, 0.6, 1.0], "problems": 5})


def method_tables(scale):
    """By table of a method, one whose numbers are of a scale, as far as the table's own bounds allow."""
    factor, _ = SCALES[scale]
    weights = {"weight": [7] * 5 + [8] * 5, "tensor": "stem", "mode": 0, "rho": -0.5, "epoch": [*range(1, 6)] * 2}
    base, mine = scaled(scale, 2, 10)
    some = factor * np.array([0.5, -0.2])
    points = {"method": "dmd", "real": 1 + factor * np.linspace(-1, 1, 9), "imaginary": factor * np.linspace(0, 1, 9)}
    bars = {"tensor": ["stem.weight", "head.weight"] * 2, "mode": [0, 0, 1, 1], "share": 50.0}
    ends = {"low": [0.0, 0.5] * 2, "high": [0.5, 1.0] * 2}
    sample = {"position": range(50), "mode": [0] * 30 + [1] * 20, "weight": 0, "tensor": "stem", "reference": False}
    clients = {"method": "swa", "client": range(5), "images": 30, "accuracy": scaled(scale, 5), "class_0": 30}
    return {
        "clients": pd.DataFrame(clients),
        "trajectories": pd.DataFrame({**weights, "base": base, "mine": mine}),
        "errors": pd.DataFrame({"fit": "mine", "dimension": range(1, 5), "share": np.abs(scaled(scale, 4)) / 100}),
        "correlation": pd.DataFrame(np.eye(50), columns=[str(i) for i in range(50)]).assign(position=range(50)),
        "sample": pd.DataFrame(sample),
        "layers": pd.DataFrame({**bars, "weights": 10 * (1 + np.abs(scaled(scale, 4)) // 1).astype(int)}),
        "rho": pd.DataFrame({"mode": [0, 0, 1, 1], "mean_abs_rho": 0.5, **ends, "weights": [1, 3, 2, 2]}),
        "eigenvalues": pd.DataFrame(points),
        "kernel": pd.DataFrame(
            {"method": "swa", "mode": "all", "epoch": [1, 2, 3], "coefficient": [*some, 1 - some.sum()]}
        ),
    }


def landscape(scale):
    """A bowl whose coordinates and losses are of a scale."""
    factor, offset = SCALES[scale]
    places = offset + abs(factor) * np.linspace(-1, 1, 5)
    lines = [
        (u, v, abs(offset) + abs(factor) * ((u - offset) ** 2 + (v - offset) ** 2)) for u in places for v in places
    ]
    path = torch.from_numpy(scaled(scale, 4, 2))
    plane = Plane(torch.zeros(3), torch.zeros(2, 3), path, (1, 2, 3, 4), ("first", "second"))
    return draw_landscape((pd.DataFrame(lines, columns=["u", "v", "val_loss"]).assign(images=512), plane), LABELS)


def search_figures(folder, scale):
    """The figures of a search for one real and one whole number, whose losses and real numbers are of a scale."""
    factor, offset = SCALES[scale]
    low, high = sorted((offset, offset + factor))
    space = Space({"modes": IntDistribution(2, 9), "rate": FloatDistribution(low, high)})
    losses = scaled(scale, 12, 2).tolist()
    params = [{"modes": 2 + i % 8, "rate": rate} for i, rate in enumerate(np.linspace(low, high, 12).tolist())]
    trials = [
        finished(own, by_seed([80.0, 81.0], loss), "loss", space=space)
        for own, loss in zip(params, losses, strict=True)
    ]
    search = made(folder, trials, seeds=(0, 1), space=space, metric="loss")
    weights = pd.DataFrame(
        {"parameter": ["modes", "rate"], "importance": 0.5, "low": 0.25, "high": 0.75, "resamples": 20}
    )
    yield draw_history(trials_frame(search), search), ()
    yield draw_importances(weights, search), ("0.y",)
    yield draw_map(trials_frame(search), ("modes", "rate"), search), ("0.x", "0.y", "1.x", "1.y")


NAMED = {"differences": ("0.y", "1.y"), "correlation": ("0.x", "0.y"), "layers": ("0.y",), "clients": ("0.y",)}
"""The axes of names, by figure."""
DRAWN_BY_HAND = ("ranks",)
"""Figures without axes of matplotlib's."""


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "kind", [kind for kind in FIGURES if kind.name not in DRAWN_BY_HAND], ids=lambda kind: kind.name
)
def test_a_label_is_its_ticks_value(kind, scale):
    if kind.name == "profile":
        figure = kind.draw(profile(scale), LABELS)
    elif isinstance(kind, ResultFigure):
        figure = result_figure(kind, scale)
    elif isinstance(kind, MethodFigure):
        figure = kind.draw(method_tables(scale), LABELS)
    else:
        figure = landscape(scale)
    assert_ticks_say_their_values(figure, NAMED.get(kind.name, ()))


@pytest.mark.parametrize("scale", SCALES)
def test_a_label_is_its_ticks_value_in_a_search(tmp_path, scale):
    for figure, names in search_figures(tmp_path, scale):
        assert_ticks_say_their_values(figure, names)


def test_a_rank_stands_at_its_place():
    kind = next(kind for kind in FIGURES if kind.name == "ranks")
    (axes,) = result_figure(kind, "ordinary").axes
    ticks = [text for text in axes.texts if text.get_text().isdigit()]
    assert [(text.get_position()[0], text.get_text()) for text in ticks] == [
        (place, str(place)) for place in range(1, 5)
    ]


def axes_of(scale, low, high):
    """A figure whose y axis goes from low to high, which may be reversed."""
    figure = Figure()
    axes = figure.subplots()
    axes.set_yscale(scale)
    axes.set_ylim(low, high)
    return label_ticks(figure)


bound = st.floats(-1e12, 1e12).filter(lambda value: value == 0 or abs(value) > 1e-12)


@settings(max_examples=40)
@given(bound, bound)
def test_any_linear_axis_either_way_round(low, high):
    assume(abs(high - low) > 1e-9 * max(abs(low), abs(high)))  # matplotlib moves nearer ends apart
    assert_ticks_say_their_values(axes_of("linear", low, high))


@settings(max_examples=40)
@given(st.floats(-12, 12), st.floats(1e-4, 12))
def test_any_logarithmic_axis(low, decades):
    assert_ticks_say_their_values(axes_of("log", 10**low, 10 ** (low + decades)))


def test_secondary_axes_and_names():
    """An axis of percent beside one of shares, and names that were given by hand."""
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.set(ylim=(0, 0.06), xlim=(0, 1))
    axes.set_xticks([0.25, 0.75], ["first", "second"])
    percent = axes.secondary_yaxis("right", functions=(lambda share: 100 * share, lambda share: share / 100))
    label_ticks(figure).draw_without_rendering()
    assert [text for _, text in labelled(percent.yaxis)] == ["0", "1", "2", "3", "4", "5", "6"]
    assert [text for _, text in labelled(axes.yaxis)] == [f"0.0{i}" for i in range(7)]
    assert [text for _, text in labelled(axes.xaxis)] == ["first", "second"]


def test_numbers_in_words():
    minus = "\N{MINUS SIGN}"
    assert number_texts([0, 1.5, 3, 4.5]) == ["0.0", "1.5", "3.0", "4.5"]
    assert number_texts([3, 2, 1]) == ["3", "2", "1"]
    assert number_texts([-0.1, -1e-18, 0.1, 0.2]) == [f"{minus}0.1", "0.0", "0.1", "0.2"]
    assert number_texts([91.00001, 91.00002]) == ["91.00001", "91.00002"]
    assert number_texts([0, 2.5e9, 5e9]) == ["0", "2.5e9", "5e9"]
    assert number_texts([0, -1e-7]) == ["0", f"{minus}1e{minus}7"]
    assert number_texts([0.001, 1, 1000]) == ["0.001", "1", "1,000"]
    assert number_texts([math.nan, 1.0, math.inf]) == ["", "1", ""]
    assert number_texts([]) == []


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6))
def test_numbers_are_told_apart_and_read_back(values):
    texts = number_texts(values)
    assert [number(text) for text in texts] == pytest.approx(values, rel=0, abs=1.001e-14 * max(map(abs, values)))
    assert len(set(texts)) == len(set(values))


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=8))
def test_rounded_borders_keep_their_order(values):
    rounded = rounded_apart(values)
    given_values = sorted(set(values))
    assert len(rounded) == len(given_values)
    assert list(rounded) == sorted(set(rounded))
    assert list(rounded) == pytest.approx(given_values, rel=0.05)
