"""Figures of what methods fitted: drawn from tables made by hand, and the files of a plan, without training."""

import json

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from command import here
from frames import cells, write_suite

from harness.report.figures.models import draw_errors, draw_trajectories
from harness.report.figures.modes import draw_correlation, draw_layers, draw_rho, grouped, shown_modes
from harness.report.figures.registry import FIGURES, MethodFigure
from harness.report.figures.style import STYLE, Labels
from harness.report.method_styles import KNOWN, SPARE
from harness.storage.store import Store

LABELS = Labels("title")
ROW = "net-digits-sgd"
KEY = "net-digits-sgd-mine-{}"


def layers():
    """The stem is of mode 0, the head of mode 1, and the frozen tensor never moved."""
    tensors = ("stem.weight", "stem.bias", "frozen.weight", "head.weight")
    counts = [(120, 0), (40, 0), (0, 0), (0, 60)]
    lines = [
        {"tensor": tensor, "mode": mode, "weights": count, "share": 100 * count / max(sum(own), 1)}
        for tensor, own in zip(tensors, counts, strict=True)
        for mode, count in enumerate(own)
    ]
    return pd.DataFrame(lines)


def sample():
    """Fifty weights of two modes: thirty and twenty."""
    mode = [0] * 30 + [1] * 20
    names = {"position": range(50), "mode": mode, "weight": range(50), "tensor": "stem.weight"}
    return pd.DataFrame({**names, "reference": [position in (0, 30) for position in range(50)]})


def correlation(step):
    """Squares of `step` weights: 1 within a mode, 0 between."""
    first = range(0, 50, step)
    mode = np.array([0 if position < 30 else 1 for position in first])
    squares = (mode[:, None] == mode).astype(float)
    return pd.DataFrame(squares, columns=[str(position) for position in first]).assign(position=first)


def rho(*modes):
    lines = [{"mode": mode, "mean_abs_rho": 0.5, "low": 0.0, "high": 0.5, "weights": 1} for mode in modes]
    lines += [{"mode": mode, "mean_abs_rho": 0.5, "low": 0.5, "high": 1.0, "weights": 3} for mode in modes]
    return pd.DataFrame(lines)


def errors():
    lines = [("time mean", 0, 1.0), ("post-hoc CMD", 2, 0.5), ("DMD", 1, 0.6), ("DMD", 2, 0.4)]
    return pd.DataFrame(lines, columns=["fit", "dimension", "share"])


def test_every_figure_has_a_name_of_its_own_and_those_of_methods_a_table_of_that_name():
    assert len({kind.name for kind in FIGURES}) == len(FIGURES)
    of_methods = [kind for kind in FIGURES if isinstance(kind, MethodFigure)]
    assert {kind.name for kind in of_methods} == {
        *("clients", "trajectories", "errors", "correlation", "layers", "rho", "eigenvalues", "kernel"),
    }
    assert all(next(iter(kind.tables)) == kind.name for kind in of_methods)


def test_more_than_ten_modes_share_colours_by_size():
    few = shown_modes(pd.Series(range(10)))
    assert [shown.modes for shown in few] == [[mode] for mode in range(10)]
    many = shown_modes(pd.Series([5, 90, 80, 70, 1, 60, 50, 40, 30, 20, 10, 2]))
    assert [shown.modes for shown in many] == [[mode] for mode in (1, 2, 3, 5, 6, 7, 8, 9, 10)] + [[0, 4, 11]]
    assert many[-1].label == "3 other modes"
    for shown in (few, many):
        assert len({colour for _, colour, _ in shown}) == 10


def test_tensors_are_grouped_by_module_and_deep_models_by_less_of_the_path():
    assert grouped(["conv1.weight", "bn1.weight", "bn1.bias", "cls_token"]) == {
        "conv1.weight": "conv1",
        "bn1.weight": "bn1",
        "bn1.bias": "bn1",
        "cls_token": "cls_token",
    }
    deep = [f"stage{stage}.{block}.{name}.weight" for stage in (1, 2) for block in range(20) for name in ("a", "b")]
    assert set(grouped(deep).values()) == {f"stage{stage}.{block}" for stage in (1, 2) for block in range(20)}


def test_bars_fill_every_layer_that_moved():
    (axes,) = draw_layers({"layers": layers()}, LABELS).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["stem", "frozen", "head"]
    width = {}
    for bars in axes.containers:
        for place, bar in enumerate(bars):
            width[place] = width.get(place, 0) + bar.get_width()
    assert width == pytest.approx({0: 100, 1: 0, 2: 100})


@pytest.mark.parametrize("step", [1, 5])
def test_borders_lie_where_the_modes_end(step):
    tables = {"correlation": correlation(step), "sample": sample()}
    axes, bar = draw_correlation(tables, LABELS).axes
    corners = [(min(line.get_xdata()), max(line.get_xdata())) for line in axes.lines[:2]]
    assert corners == [(0, 30), (30, 50)]
    assert bar.get_ylim() == (0, 1)
    (image,) = axes.images
    assert image.get_extent() == [0, 50, 50, 0]


def test_a_position_without_a_column_is_named():
    tables = {"correlation": correlation(10).drop(columns="20"), "sample": sample()}
    with pytest.raises(ValueError, match="the table correlation has no column 20"):
        draw_correlation(tables, LABELS)


def test_surrogates_are_outlines_where_there_are_some():
    whole = draw_rho({"rho": rho("0", "1", "steps permuted", "signs flipped")}, LABELS)
    # all modes together, and each
    assert len(whole.axes) == 3
    filled, *outlines = whole.axes[0].patches
    assert [patch.get_data().values.tolist() for patch in (filled, *outlines)] == [[0.25, 0.75]] * 3
    assert [patch.get_label().split(":")[0] for patch in outlines] == ["steps permuted", "signs flipped"]
    assert len({patch.get_linestyle() for patch in outlines}) == 2
    assert [len(axes.patches) for axes in draw_rho({"rho": rho("0", "1")}, LABELS).axes] == [1, 1, 1]


def test_a_fit_of_one_dimension_is_a_point_and_others_are_lines():
    (axes,) = draw_errors({"errors": errors()}, LABELS).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert {label: line.get_linewidth() > 0 for label, line in lines.items()} == {
        "time mean": False,
        "post-hoc CMD": False,
        "DMD": True,
    }
    assert lines["DMD"].get_xydata().tolist() == [[1, 60], [2, 40]]


def test_every_model_of_a_weight_is_a_line_labelled_as_its_column():
    names = {"weight": [7, 7], "tensor": "stem.bias", "mode": 0, "rho": -0.5, "epoch": [1, 2]}
    table = pd.DataFrame({**names, "base": [0.0, 1.0], "post-hoc CMD": [0.1, 0.9], "mine": [0.5, 0.5]})
    (shown,) = draw_trajectories({"trajectories": table}, LABELS).axes
    assert [line.get_label() for line in shown.lines] == ["base", "post-hoc CMD", "mine"]
    assert [line.get_ydata().tolist() for line in shown.lines] == [[0.0, 1.0], [0.1, 0.9], [0.5, 0.5]]
    assert "ρ = −0.50" in shown.get_title()


def test_titles_of_weights_are_not_cut():
    names = ["layer4.0.conv1.weight", "stages.3.blocks.0.mlp.fc1.weight", "blocks.11.attn.qkv.weight"]
    weights = [
        pd.DataFrame({"weight": k, "tensor": name, "mode": 0, "rho": -0.5, "epoch": [1, 2], "base": [0.0, -0.00123]})
        for k, name in enumerate(names * 3)
    ]
    table = pd.concat(weights).assign(mine=0.0)
    with mpl.rc_context(STYLE):
        figure = draw_trajectories({"trajectories": table}, LABELS)
        figure.draw_without_rendering()
        extents = [axes.title.get_window_extent() for axes in figure.axes]
        edge = figure.bbox.width
    assert all(one.x0 >= 0 and one.x1 <= edge for one in extents)


def _lab(colour):
    """CIELAB (D65) of a colour in hex, in which Euclidean distances are about as large as they are seen."""
    rgb = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ linear / np.array([0.9505, 1.0, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_colours_of_own_methods_are_told_from_those_of_the_project():
    """By 15 at least, where a difference of 2 is just seen side by side."""
    for colour in SPARE:
        others = [style.colour for style in KNOWN.values()] + [other for other in SPARE if other != colour]
        assert min(np.linalg.norm(_lab(colour) - _lab(other)) for other in others) > 15


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Three seeds of a method, of which the first diverged; figures are coarse."""
    monkeypatch.setitem(STYLE, "savefig.dpi", 40)
    store = Store(tmp_path / "results")
    write_suite(store, [cells("mine", ["diverged", 80.0, 81.0])])
    return store


def report(store):
    printed = here("report", "suite=quick", results=store.root).stdout
    folder = store.suite_folder("quick") / "figures"
    lines = [line for line in printed.splitlines() if line.startswith("figures:")]
    return lines, {path.name: path.read_bytes() for path in folder.iterdir() if "mine" in path.name}


def test_figures_are_of_the_lowest_finished_seed_and_the_same_every_time(store):
    for seed in (1, 2):
        store.write_tables(KEY.format(seed), {"layers": layers(), "errors": errors()})
    lines, files = report(store)
    assert lines == ["figures: net digits sgd: mine: errors, layers of seed 1"]
    names = {f"{ROW}-mine-{name}.{ending}" for name in ("errors", "layers") for ending in ("png", "pdf", "csv")}
    assert set(files) == {*names, f"{ROW}-mine.json"}
    origin = json.loads(files[f"{ROW}-mine.json"])
    assert {name: cell["cell_key"] for name, cell in origin["figures"].items()} == {
        "errors": KEY.format(1),
        "layers": KEY.format(1),
    }
    assert report(store) == (lines, files)


def test_a_seed_with_older_tables_gives_way_to_one_with_whole_ones(store):
    """Cells from before have `size` for `weights`, and modes that nothing is drawn from."""
    older = {"layers": layers().rename(columns={"weights": "size"}), "modes": pd.DataFrame({"mode": [0]})}
    store.write_tables(KEY.format(1), older)
    lines, files = report(store)
    assert lines == ["figures: net digits sgd: mine: layers not drawn, the table layers has no column weights"]
    assert files == {}
    store.write_tables(KEY.format(2), {"layers": layers()})
    assert report(store)[0] == ["figures: net digits sgd: mine: layers of seed 2"]


def test_what_cannot_be_drawn_is_one_line_each_and_drawn_figures_of_old_tables_go(store):
    store.write_tables(KEY.format(1), {"layers": layers(), "errors": errors()})
    assert len(report(store)[1]) == 7
    folder = store.cell_folder(KEY.format(1)) / "tables"
    (folder / "layers.parquet").write_bytes(b"PAR1")
    store.write_tables(KEY.format(1), {"errors": errors().iloc[:0], "rho": rho("first", "second")})
    lines, files = report(store)
    assert [line.partition(" not drawn, ")[0] for line in lines] == [
        f"figures: net digits sgd: mine: {name}" for name in ("errors", "layers", "rho")
    ]
    assert lines[0].endswith("the table errors has no rows")
    assert files == {}
