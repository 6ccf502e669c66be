"""Every figure at the width of a column and of the text: nothing is cut, nothing is small, whatever the names."""

import numpy as np
import pandas as pd
import pytest
import torch
from frames import cells, frame_of, history_of
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from harness.method import Plane
from harness.report.figures.landscape import draw_landscape
from harness.report.figures.registry import FIGURES, LANDSCAPE, MethodFigure
from harness.report.figures.style import SIZE, STYLE, WIDTHS, Labels, Look, fitted, inches
from harness.report.method_styles import KNOWN
from harness.report.stats.means import ALL
from harness.report.stats.summary import results

LONG = "my_very_own_method_with_a_name_that_nobody_would_give_it_but_that_is_allowed"
UNBROKEN = "x" * 60
TENSOR = "stages.3.blocks.11.attention.projection.output.weight"
TITLE = "vit_base_patch16_224, fashion_mnist, sgd_momentum_with_a_schedule_of_my_own, " + LONG


ROW = ("net0", "digits", "sgd")


@pytest.fixture(scope="module")
def found():
    """Three seeds of every method there is and of one with a long name, and of few methods, one longer."""

    def made(methods):
        rng = np.random.default_rng(0)
        controls = {"cmd_online": "time_mean", LONG: "cmd_online"}
        groups = [
            cells(m, [*(80 + rng.normal(0, 1, 3))], ROW[0], control=controls.get(m), federation="iid_10")
            for m in methods
        ]
        frame = frame_of(*groups, primary=[(LONG, "base_recalibrated")])
        return results(frame, history_of(frame))

    few = ["base_recalibrated", "time_mean", "cmd_online", LONG, UNBROKEN]
    return {"all": made([*KNOWN, LONG]), "few": made(few)}


HAIR = 0.01
"""inches, less than the space around a letter"""


def method_tables():
    """Tables of a method with tensors, models and fits that have long names."""
    weights = {"weight": np.repeat([1, 2, 3], 5), "tensor": TENSOR, "mode": 0, "rho": -0.5, "epoch": [*range(1, 6)] * 3}
    tensors = [f"stages.{stage}.blocks.{TENSOR}" for stage in range(12)]
    bars = {"tensor": np.repeat(tensors, 12), "mode": [*range(12)] * 12, "weights": 123_456, "share": 100 / 12}
    bins = {"mode": np.repeat([*map(str, range(12)), f"surrogates of {LONG}"], 2), "mean_abs_rho": 0.5}
    sample = {"position": range(50), "mode": [0] * 30 + [1] * 20, "weight": 0, "tensor": "stem", "reference": False}
    fits = np.repeat(["post-hoc CMD", "principal components", LONG], 4)
    clients = pd.DataFrame({"method": np.repeat([*KNOWN, LONG], 10), "client": [*range(10)] * (len(KNOWN) + 1)})
    images = {"images": 100, "accuracy": 88.5, **{f"class_{c}": 10 for c in range(10)}}
    return {
        "clients": clients.assign(**images),
        "trajectories": pd.DataFrame(weights).assign(base=0.1, **{LONG: 0.2, "post-hoc CMD": 0.3}),
        "errors": pd.DataFrame({"fit": fits, "dimension": [*range(1, 5)] * 3, "share": 0.5}),
        "correlation": pd.DataFrame(np.eye(50), columns=[*map(str, range(50))]).assign(position=range(50)),
        "sample": pd.DataFrame(sample),
        "layers": pd.DataFrame(bars),
        "rho": pd.DataFrame({**bins, "low": [0.0, 0.5] * 13, "high": [0.5, 1.0] * 13, "weights": [1, 3] * 13}),
        "eigenvalues": pd.DataFrame({"method": np.repeat(["dmd", LONG], 4), "real": [0.9] * 8, "imaginary": 0.1}),
        "kernel": pd.DataFrame(
            {"method": np.repeat([*KNOWN, LONG], 4), "mode": "all", "epoch": [1, 2, 3, 4] * (len(KNOWN) + 1)}
        ).assign(coefficient=0.25),
    }


def landscape(labels):
    places = np.linspace(-1, 1, 5)
    table = pd.DataFrame([(u, v, 1 + u * u + v * v) for u in places for v in places], columns=["u", "v", "val_loss"])
    path = torch.tensor([[-1.0, -1.0], [0.0, 0.5], [1.0, 1.0]])
    plane = Plane(torch.zeros(3), torch.zeros(2, 3), path, (1, 2, 100), ("first direction", "second direction"))
    return draw_landscape((table.assign(images=512), plane), labels)


def assert_whole_and_legible(figure, width):
    """All that is drawn lies on the figure, panels keep a size that shows something, and all text has SIZE points."""
    figure.draw_without_rendering()
    box = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
    assert figure.get_figwidth() == width
    assert min(box.x0, box.y0, width - box.x1, figure.get_figheight() - box.y1) >= -HAIR, box
    for axes in figure.axes:
        size = axes.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        assert size.width > 0.5 or axes.get_label() == "<colorbar>"
        assert size.height > 0.25
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    assert {text.get_fontsize() for text in shown} == {SIZE}


def figures(kind, found, labels):
    """The figures of a kind with long names: of results those of many methods and of few."""
    if kind.name == LANDSCAPE:
        yield landscape(labels)
    elif isinstance(kind, MethodFigure):
        yield kind.draw(method_tables(), labels)
    else:
        for name, of in found.items():
            data = kind.data(of, ROW if "row" in kind.scopes else (ALL,) * 3)
            if kind.name == "ranks":
                data = ranks([*KNOWN, LONG] if name == "all" else [LONG, UNBROKEN, "swa"])
            yield kind.draw(data, labels)


def ranks(methods):
    """Average ranks of so many methods, which are apart by one each, and of which three beside each other tie."""
    columns = {"critical_difference": 2.5, "blocks": 5, "friedman_p": 0.01}
    return pd.DataFrame({"method": methods, "rank": [*range(1, len(methods) + 1)]}).assign(**columns)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", FIGURES, ids=lambda kind: kind.name)
def test_nothing_is_cut_and_all_can_be_read(kind, width, found):
    labels = Labels(TITLE, target="what the recalibrated base ends with", look=Look(WIDTHS[width]))
    with rc_context(STYLE):
        for figure in figures(kind, found, labels):
            assert figure.get_suptitle() != ""
            assert_whole_and_legible(figure, WIDTHS[width])


@pytest.mark.parametrize("kind", FIGURES, ids=lambda kind: kind.name)
def test_without_a_title_the_figure_is_lower_and_says_no_more_than_its_axes(kind, found):
    found = {"few": found["few"]}
    with rc_context(STYLE):
        (titled,) = figures(kind, found, Labels(TITLE, target="80 %"))
        (bare,) = figures(kind, found, Labels(TITLE, target="80 %", look=Look(titled=False)))
    assert bare.get_suptitle() == ""
    assert titled.get_suptitle() not in {text.get_text() for text in bare.findobj(Text)}
    assert bare.get_figheight() < titled.get_figheight()


def test_a_text_is_broken_where_it_can_be_and_loses_nothing():
    lines = fitted(f"{TITLE}\n{UNBROKEN}", 1.5).split("\n")
    assert "".join(lines).replace(" ", "") == (TITLE + UNBROKEN).replace(" ", "")
    assert max(map(inches, lines)) <= 1.5
    assert lines[0] == "vit_base_patch16_224,"
    assert fitted("short", 1.5) == "short"
