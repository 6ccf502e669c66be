"""Kernels in a report: which methods are nearly the same, the table of distances, and the figure."""

import itertools

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from frames import cells, frame_of, write_suite

from harness.report.command import Options, make_report
from harness.report.figures.draw import draw_figures
from harness.report.figures.kernels import draw_kernels
from harness.report.figures.style import STYLE, Labels
from harness.report.stats.kernels import Kernels, in_words, kernels
from harness.report.stats.summary import results
from harness.report.tables.kernels import printed
from harness.results.frame import load_frame, load_history
from harness.storage.store import Store

EPOCHS = 6


def kernel(coefficients, epochs=None, mode="all", **columns):
    epochs = range(EPOCHS + 1 - len(coefficients), EPOCHS + 1) if epochs is None else epochs
    return pd.DataFrame({"mode": mode, "epoch": list(epochs), "coefficient": list(coefficients), **columns})


TABLES = {
    "base": kernel([1.0]),
    "swa": kernel([0.5, 0.5]),
    "lawa": kernel([0.49, 0.51]),
    "time_mean": kernel([1 / EPOCHS] * EPOCHS),
    # ten steps an epoch, over the last two: the epochs' sums are SWA's, the number of states is not
    "ema": kernel([1 / 20] * 20, epochs=[step / 10 for step in range(41, 61)]),
    "cmd_posthoc": pd.concat(
        [kernel([0.0, 1.0], mode="0", share=0.75), kernel([1.0, 0.0], mode="1", share=0.25)], ignore_index=True
    ),
}
NUMBERS = {"base": (0, 1), "swa": (0.5, 2), "lawa": (0.49, 2), "time_mean": (2.5, 6), "ema": (0.95, 20)}


@pytest.fixture
def store(tmp_path):
    """A suite of two seeds whose first gives kernels, and a method that gives none."""
    store = Store(tmp_path)
    groups = []
    for method in [*TABLES, "lookahead"]:
        age, n_eff = NUMBERS.get(method, (0.25, 1.0))
        linear = {} if method == "lookahead" else {"age": float(age), "n_eff": float(n_eff)}
        groups.append(list(cells(method, [80.0, 81.0], **linear)))
    write_suite(store, groups)
    for method, table in TABLES.items():
        for seed in (0, 1):
            store.write_tables(f"net-digits-sgd-{method}-{seed}", {"kernel": table if seed == 0 else TABLES["base"]})
    return store


def found_in(store):
    frame = load_frame(store.root, "quick")
    (found,) = kernels(store, frame)
    return found


def test_methods_with_nearly_one_kernel_are_named(store):
    found = found_in(store)
    assert (found.row, found.seed) == (("net", "digits", "sgd"), 0)
    assert list(found.methods["method"]) == list(TABLES)
    far = {frozenset(line[:2]): line[2:] for line in found.pairs.itertuples(index=False, name=None)}
    assert far[frozenset(("swa", "lawa"))] == (pytest.approx(0.01), True)
    # as far by epochs, but of ten times as many states
    assert far[frozenset(("swa", "ema"))] == (pytest.approx(0.0), False)
    assert far[frozenset(("swa", "time_mean"))] == (pytest.approx(2 / 3), False)
    assert far[frozenset(("base", "cmd_posthoc"))] == (pytest.approx(0.25), False)
    assert found.alike() == [(["lawa", "swa"], pytest.approx(0.01))]
    said = "nearly the same: lawa = swa (0.010) (distance at most 0.1)"
    assert in_words(found) == f"kernels: net digits sgd, seed 0: of 6 linear methods {said}"


def test_a_group_has_only_methods_that_are_near_to_all_others():
    """Three in a chain, of which the ends are too far apart, and the base beside its recalibrated self, which the table
    marks too."""
    names = ["base", "base_recalibrated", "a", "b", "c"]
    methods = pd.DataFrame({"method": names, "modes": 1, "age": [0.0, 0.0, 1.0, 2.0, 3.0], "n_eff": 1.0})
    near = {("base", "base_recalibrated"): 0.0, ("a", "b"): 0.06, ("b", "c"): 0.07}
    pairs = [(one, other, near.get((one, other), 0.5)) for one, other in itertools.combinations(names, 2)]
    table = pd.DataFrame([(*pair, pair[2] <= 0.1) for pair in pairs], columns=["method", "other", "distance", "near"])
    found = Kernels(("net", "digits", "sgd"), 0, methods, table)
    assert found.alike() == [(["base", "base_recalibrated"], 0.0), (["a", "b"], 0.06)]
    said = "base = base_recalibrated (0.000); a = b (0.060) (distance at most 0.1)"
    assert in_words(found).endswith(f"of 5 linear methods nearly the same: {said}")


def test_the_table_names_the_nearest_and_how_far_it_is(store):
    (table,) = printed([found_in(store)])
    lines = table.texts.set_index("method")
    assert list(lines.index) == ["base", "cmd_posthoc", "lawa", "swa", "ema", "time_mean"]
    assert lines.loc["lawa", ["kernels", "age (epochs)", "n_eff (snapshots)"]].tolist() == ["1", "0.49", "2.00"]
    assert lines.loc["cmd_posthoc", "kernels"] == "2"
    assert lines.loc["base", ["nearest", "distance"]].tolist() == ["cmd_posthoc", "0.250"]


def test_a_damaged_table_is_left_out(store):
    path = store.cell_folder("net-digits-sgd-swa-0") / "tables" / "kernel.parquet"
    path.write_bytes(b"nothing")
    store.write_tables("net-digits-sgd-lawa-0", {"kernel": TABLES["base"].assign(coefficient=0.5)})
    assert list(found_in(store).methods["method"]) == ["base", "time_mean", "ema", "cmd_posthoc"]


def test_a_report_says_and_writes_them(store):
    said = []
    report = make_report(Options.of(["name=quick", f"results_dir={store.root}", "figures=none"]), said.append)
    assert sum(line.startswith("kernels: net digits sgd") for line in said) == 1
    tables = store.suite_folder("quick") / "tables"
    pairs = pd.read_csv(tables / "kernels.csv")
    assert len(pairs) == 15
    assert set(pairs["near"]) == {True, False}
    page = report.page.read_text()
    assert 'id="kernels"' in page
    summary = pd.read_csv(tables / "summary.csv").set_index("method")
    assert summary.loc["time_mean", ["age", "n_eff"]].tolist() == [2.5, 6.0]
    assert summary.loc["lookahead", ["age", "n_eff"]].isna().all()


def test_without_kernels_there_is_nothing(tmp_path):
    frame = frame_of(cells("base", [80.0]), cells("lookahead", [81.0]))
    assert kernels(Store(tmp_path), frame) == []


def test_a_method_with_a_bad_table_is_named_and_the_others_are_drawn(store, tmp_path):
    store.write_tables("net-digits-sgd-swa-0", {"kernel": TABLES["swa"].assign(coefficient=0.4)})
    frame, history = load_frame(store.root, "quick"), load_history(store.root, "quick")
    lines = list(draw_figures(store, results(frame, history), tmp_path / "figures"))
    assert [line for line in lines if "kernel" in line] == [
        "figures: net digits sgd: kernel of swa seed 0 not drawn, coefficients of mode all must add up to 1, got 0.8",
        "figures: net digits sgd: kernels of base, lawa, time_mean, ema, cmd_posthoc",
    ]


def test_the_figure_has_a_panel_for_each_method_by_age(store, tmp_path):
    frame, history = load_frame(store.root, "quick"), load_history(store.root, "quick")
    lines = list(draw_figures(store, results(frame, history), tmp_path / "figures"))
    assert [line for line in lines if "kernels of" in line] == [
        "figures: net digits sgd: kernels of base, swa, lawa, time_mean, ema, cmd_posthoc"
    ]
    shown = pd.read_csv(tmp_path / "figures" / "net-digits-sgd-kernel.csv")
    assert set(shown["seed"]) == {0}
    with mpl.rc_context(STYLE):
        figure = draw_kernels({"kernel": shown}, Labels("net"))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "Base, as it is\nage 0.0, n_eff 1.0"
    assert titles[1] == "Post-hoc CMD\nage 0.2, n_eff 1.0"
    assert titles[-1] == "Time mean\nage 2.5, n_eff 6.0"
    bars = {axes.get_title().split("\n")[0]: [bar.get_height() for bar in axes.patches] for axes in figure.axes}
    np.testing.assert_allclose(bars["EMA"], [0.5, 0.5], rtol=1e-9)
    np.testing.assert_allclose(bars["Post-hoc CMD"], [0.25, 0.75])
