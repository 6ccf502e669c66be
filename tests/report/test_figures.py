"""Figures of CMD: what is drawn, on planted modes; and the command's files, from a store without training."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from command import here
from harness.report.decomposition import clustered_order, decompose, random_walks
from harness.report.drawing import STYLE, draw_correlation, draw_layers, grouped, shown_modes

from baselines.cmd import CMDPosthoc
from harness.config import DatasetConfig, ModelConfig
from harness.method import Layout, Run, Snapshot
from harness.problem.models import build_model
from harness.randomness import generator
from harness.report import decomposition
from harness.storage.files import write_json
from harness.storage.store import Store
from harness.storage.trajectory import MemoryTrajectory, StoredTrajectory, snapshot_path, write_snapshot
from harness.training.flat_model import FlatModel

T = 8
LAYOUT = Layout(("stem.weight", "stem.bias", "frozen.weight", "head.weight"), ((10, 12), (40,), (30,), (60,)))


def trajectory(W_TN):
    return MemoryTrajectory([Snapshot(t, t, row, {}) for t, row in enumerate(W_TN, start=1)])


def planted():
    """The stem follows one trajectory, the head another, uncorrelated one; the frozen tensor never moves."""
    rng = generator(0, "test")
    random_T2 = torch.randn(T, 2, dtype=torch.float64, generator=rng)
    x_T, y_T = torch.linalg.qr(random_T2 - random_T2.mean(0)).Q.T
    scale_N = torch.rand(LAYOUT.N, generator=rng).double() + 0.5
    W_TN = torch.cat([x_T[:, None].expand(T, 160), torch.zeros(T, 30), y_T[:, None].expand(T, 60)], 1) * scale_N
    return trajectory((W_TN + torch.randn(LAYOUT.N, generator=rng)).float())


@pytest.fixture(scope="module")
def tables():
    return decompose(planted(), LAYOUT, modes=2, samples=50, seed=0)


def test_the_sample_is_ordered_by_mode_and_the_correlation_is_one_within_and_zero_between(tables):
    sample = tables.sample
    assert sample["mode"].is_monotonic_increasing
    assert sample.groupby("mode")["reference"].sum().tolist() == [1, 1]
    families = sample["tensor"].str.split(".").str[0].groupby(sample["mode"]).unique()
    assert sorted(name for (name,) in families) == ["head", "stem"]
    same = sample["mode"].to_numpy()[:, None] == sample["mode"].to_numpy()
    np.testing.assert_allclose(tables.correlation.to_numpy(), same, atol=1e-3)


def test_within_a_mode_the_linkage_puts_close_weights_side_by_side():
    """Two kinds of weight in one mode, correlated 0.9 between and 1 within, given alternately; another mode apart."""
    kind = np.array([0, 2, 1, 0, 1, 0, 2, 1])
    between = np.array([[1.0, 0.9, 0.1], [0.9, 1.0, 0.1], [0.1, 0.1, 1.0]])
    corr_KK = torch.from_numpy(between[kind][:, kind])
    order_K, mode_K = clustered_order(corr_KK, modes=2)
    assert sorted(order_K) == list(range(8))
    assert mode_K.tolist() == [0, 1, 0, 0, 0, 0, 1, 0]
    assert mode_K[order_K].tolist() == [0] * 6 + [1] * 2
    assert np.count_nonzero(np.diff(kind[order_K])) == 2


def test_layers_count_exactly_the_weights_that_moved(tables):
    counts = tables.layers.pivot_table(index="tensor", columns="mode", values="weights", sort=False)
    head = tables.sample.loc[tables.sample["tensor"] == "head.weight", "mode"].iloc[0]
    assert counts[head].tolist() == [0, 0, 0, 60]
    assert counts[1 - head].tolist() == [120, 40, 0, 0]
    shares = tables.layers.groupby("tensor", sort=False)["share"].sum()
    assert shares.tolist() == [100, 100, 0, 100]


def test_histograms_hold_every_weight_that_moved_in_its_bin(tables):
    own = tables.rho[tables.rho["mode"] != "surrogate"]
    assert own["weights"].sum() == 220
    # multiples of one trajectory: |rho| = 1
    assert own.loc[own["high"] == 1.0, "weights"].sum() == 220
    assert own["mean_abs_rho"].to_numpy() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("modes", "mean"), [(1, 0.61), (10, 0.76)])
def test_random_walks_reach_the_known_mean_correlation(modes, mean):
    """Of 21 points: 0.61 with the most central reference of a sample, 0.76 with the best of ten (found apart)."""
    model = random_walks(21, modes, 1000, seed=0)
    assert float(model.rho_N.abs().mean()) == pytest.approx(mean, abs=0.03)


def test_chosen_weights_are_of_both_modes_no_references_and_their_model_is_exact(tables):
    chosen = tables.weights.groupby("weight", sort=False).first()
    assert len(chosen) == decomposition.PANELS
    assert set(chosen["mode"]) == {0, 1}
    assert not set(chosen.index) & set(tables.sample.loc[tables.sample["reference"], "weight"])
    assert {"stem.weight", "stem.bias", "head.weight"} == set(chosen["tensor"])
    np.testing.assert_allclose(tables.weights["cmd"], tables.weights["base"], atol=1e-5)
    rows = planted()
    weight = tables.weights["weight"].iloc[0]
    expected = [rows[index].theta_N[weight].item() for index in range(T)]
    assert tables.weights["base"].iloc[:T].tolist() == expected
    assert tables.weights["epoch"].iloc[:T].tolist() == list(range(1, T + 1))


def test_many_samples_are_averaged_in_squares(tables, monkeypatch):
    monkeypatch.setattr(decomposition, "POOLED", 10)
    pooled = decompose(planted(), LAYOUT, modes=2, samples=50, seed=0).correlation
    assert list(pooled.index) == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]
    squares = tables.correlation.to_numpy().reshape(10, 5, 10, 5).mean((1, 3))
    np.testing.assert_allclose(pooled.to_numpy(), squares, atol=1e-3)


def test_a_base_that_never_moved_is_one_error():
    with pytest.raises(ValueError, match="no weight moved"):
        decompose(trajectory(torch.ones(T, LAYOUT.N)), LAYOUT, modes=2, samples=50, seed=0)


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


def test_bars_fill_every_layer_that_moved(tables):
    (axes,) = draw_layers(tables.layers, "title").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["stem", "frozen", "head"]
    width = {}
    for bars in axes.containers:
        for place, bar in enumerate(bars):
            width[place] = width.get(place, 0) + bar.get_width()
    assert width == pytest.approx({0: 100, 1: 0, 2: 100})


def test_borders_lie_where_the_modes_end(tables):
    axes, bar = draw_correlation(tables.correlation, tables.sample, "title").axes
    first = int((tables.sample["mode"] == 0).sum())
    corners = [(min(line.get_xdata()), max(line.get_xdata())) for line in axes.lines[:2]]
    assert corners == [(0, first), (first, 50)]
    assert bar.get_ylim() == (0, 1)


EPOCHS = 4
MODEL = {"name": "test_vit", "timm": "test_vit", "patch_size": 8, "img_size": 8}
DATASET = {"name": "digits", "source": "digits", "digest": "", "channels": 1, "size": 8, "classes": 10}
BASE = {
    "model": MODEL,
    "dataset": {**DATASET, "mean": [0.5], "std": [0.5], "val_size": 100},
    "optimizer": {"name": "sgd", "target": "torch.optim.SGD", "params": {}, "schedule": {}},
    "seed": 3,
    "epochs": EPOCHS,
    "batch_size": 64,
    "batches_per_epoch": None,
    "precision": "float32",
    "compile": False,
    "memory_format": "contiguous",
    "deterministic": True,
    "device": "cpu",
}
CELL = {
    "cell_key": "cell",
    "base_key": "base",
    "model": "test_vit",
    "dataset": "digits",
    "optimizer": "sgd",
    "seed": 3,
    "method": "cmd_posthoc",
    "batchnorm": "recalibrate",
    "parameters": {"modes": 3, "samples": 120, "include_initial": False},
}
NAMES = {
    *(f"test_vit-digits-sgd-{name}.{kind}" for name in ("correlation", "layers", "rho", "weights", "errors", "curves")
      for kind in ("csv", "pdf", "png")),
    "test_vit-digits-sgd-sample.csv",
    "test_vit-digits-sgd.json",
}  # fmt: skip


def plan(store, cells):
    whole = {"schema": 1, "suite": "quick", "command": "run", "created": "monday", "config": {}, "cells": cells}
    write_json(store.suite_folder("quick") / "plan.json", whole)


def finish(store, cell):
    record = {
        **cell,
        "status": "done",
        "reason": None,
        "config": {"base": BASE},
        "summary": {"val_accuracy": 50.0, "val_loss": 1.0, "test_accuracy": 50.0, "test_loss": 1.0},
        "cost": {},
        "device": "cpu",
        "versions": {"torch": "2.14.0"},
        "run_id": f"run-{cell['cell_key']}",
    }
    store.write_record(record, [{"epoch": EPOCHS, "val_accuracy": 50.0}])


@pytest.fixture(scope="module")
def layout():
    return FlatModel(build_model(ModelConfig(**MODEL), DatasetConfig(**BASE["dataset"]), 3)).layout


@pytest.fixture
def store(tmp_path, layout, monkeypatch):
    """One finished cell whose base walked at random; figures are coarse."""
    monkeypatch.setitem(STYLE, "savefig.dpi", 40)
    store = Store(tmp_path / "results")
    theta_N = torch.zeros(layout.N)
    rng = generator(1, "walk")
    for t in range(EPOCHS + 1):
        theta_N = theta_N + torch.randn(layout.N, generator=rng)
        write_snapshot(store.base_folder("base") / "trajectory", Snapshot(t, t, theta_N, {}))
    finish(store, CELL)
    plan(store, [CELL])
    return store


def figures(store):
    return {path.name: path.read_bytes() for path in (store.suite_folder("quick") / "figures").iterdir()}


ONLINE = {**CELL, "cell_key": "online", "method": "cmd_online", "parameters": {**CELL["parameters"], "warmup": 2}}


def test_report_draws_the_modes_of_the_cell_that_saw_the_whole_run(store, layout):
    finish(store, ONLINE)
    plan(store, [ONLINE, CELL])
    printed = here("report", "suite=quick", results=store.root).stdout
    assert "figures: test_vit digits sgd: seed 3, epochs 1..4, 3 modes of 120 sampled weights\n" in printed
    assert set(figures(store)) == NAMES
    folder = store.suite_folder("quick") / "figures"
    assert json.loads((folder / "test_vit-digits-sgd.json").read_text())["cell_key"] == "cell"
    whole = StoredTrajectory(store.base_folder("base") / "trajectory", torch.device("cpu"))
    rng = {"rng": lambda purpose: generator(3, f"method/{purpose}")}
    method = CMDPosthoc(modes=3, samples=120)
    method.fit(Run(layout, whole, epochs=EPOCHS, steps_per_epoch=1, device=torch.device("cpu"), **rng))
    modes = method.tables()["modes"]
    sample = pd.read_csv(folder / "test_vit-digits-sgd-sample.csv")
    references = sample[sample["reference"]]
    assert references["weight"].tolist() == modes["reference"].tolist()
    assert references["tensor"].tolist() == modes["tensor"].tolist()
    sizes = pd.read_csv(folder / "test_vit-digits-sgd-layers.csv").groupby("mode")["weights"].sum()
    assert sizes.tolist() == modes["size"].tolist()


def test_figures_of_snapshots_that_are_gone_stay_and_those_of_another_plan_go(store):
    here("report", "suite=quick", results=store.root)
    drawn = figures(store)
    store.write_tables("cell", {"modes": pd.DataFrame({"reference": [0, 1, 2]})})
    printed = here("report", "suite=quick", results=store.root).stdout
    assert "sampled weights; cmd_posthoc has others" in printed
    assert figures(store) == drawn
    snapshot_path(store.base_folder("base") / "trajectory", 2).unlink()
    printed = here("report", "suite=quick", results=store.root).stdout
    assert "figures: test_vit digits sgd: not drawn, the base's snapshots are gone" in printed
    assert figures(store) == drawn
    plan(store, [{**CELL, "cell_key": "another"}])
    printed = here("report", "suite=quick", results=store.root).stdout
    assert "figures: test_vit digits sgd: not drawn, no cell is done" in printed
    assert "figures: test_vit digits sgd: no results are drawn, no cell is done" in printed
    assert figures(store) == {}


def test_a_damaged_snapshot_is_one_line_and_no_error(store):
    path = snapshot_path(store.base_folder("base") / "trajectory", 2)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    printed = here("report", "suite=quick", results=store.root).stdout
    (line,) = [line for line in printed.splitlines() if line.startswith("figures:")]
    assert "not drawn" in line
    assert path.name in line


def test_a_suite_without_cmd_says_nothing_of_figures(store):
    plan(store, [{**CELL, "parameters": {}}])
    assert "figures:" not in here("report", "suite=quick", results=store.root).stdout


def test_a_cell_with_a_warmup_serves_where_no_other_is_done(store):
    unfinished = {**CELL, "cell_key": "unfinished"}
    finish(store, ONLINE)
    plan(store, [unfinished, ONLINE])
    printed = here("report", "suite=quick", results=store.root).stdout
    assert "sampled weights; cmd_online has those of its warm-up" in printed
    origin = store.suite_folder("quick") / "figures" / "test_vit-digits-sgd.json"
    assert json.loads(origin.read_text())["cell_key"] == "online"
