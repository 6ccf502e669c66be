"""The loss landscape: points where CMD's model puts them, and a drawing that goes on where it was interrupted."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from harness.report.landscape import Kept, Plane, draw_landscapes

from baselines.cmd import CMD
from harness.report import landscape
from harness.results.frame import read_plan
from harness.storage.files import write_json
from harness.storage.store import Store

T = 6
CELL = {
    **{"cell_key": "cell", "base_key": "base", "model": "net", "dataset": "digits", "optimizer": "sgd", "seed": 0},
    **{"method": "cmd_posthoc", "batchnorm": "recalibrate", "parameters": {"modes": 2, "samples": 8}},
}


@pytest.fixture(scope="module")
def plane():
    """Eight weights: five move as a line, three as an uncorrelated zigzag, each with a scale of its own."""
    line = torch.arange(T, dtype=torch.float64) - (T - 1) / 2
    zigzag = torch.tensor([1.0, -2.0, 1.0, 1.0, -2.0, 1.0], dtype=torch.float64)
    assert float(line @ zigzag) == 0
    scale_N = torch.tensor([1.0, 2, 3, 4, 5, 1, 2, 3], dtype=torch.float64)
    W_TN = torch.cat([line[:, None].expand(T, 5), zigzag[:, None].expand(T, 3)], 1) * scale_N + 10
    model = CMD.fit(W_TN.float(), modes=2, samples=8, seed=0).model
    return Plane.of(model, tuple(range(1, T + 1))), W_TN


def test_the_path_is_that_of_training(plane):
    """Where both references are as in an epoch, the point is that epoch's weights: here the model is exact."""
    own, W_TN = plane
    for t in (0, 3, T - 1):
        u, v = own.path_T2[t].tolist()
        torch.testing.assert_close(own.theta(u, v).double(), W_TN[t], atol=1e-4, rtol=0)
    torch.testing.assert_close(own.theta(0.0, 0.0).double(), W_TN.mean(0), atol=1e-4, rtol=0)
    assert own.path_T2.std(0, correction=0).tolist() == pytest.approx([1, 1])


def test_the_grid_holds_the_path_with_a_margin(plane):
    own, _ = plane
    for axis, path_T in zip(own.grid(5), own.path_T2.T.numpy(), strict=True):
        assert len(axis) == 5
        margin = 0.3 * np.ptp(path_T)
        assert (axis[0], axis[-1]) == pytest.approx((path_T.min() - margin, path_T.max() + margin), abs=1e-5)


def test_one_mode_spans_no_plane():
    line = torch.arange(T, dtype=torch.float32)[:, None] * torch.ones(4)
    with pytest.raises(ValueError, match="a landscape needs 2 modes, CMD found 1"):
        Plane.of(CMD.fit(line, modes=1, samples=4, seed=0).model, tuple(range(T)))


@pytest.fixture
def store(tmp_path, plane, monkeypatch):
    """A finished cell; evaluating a point is counted and gives the squared distance from (1, 2)."""
    store = Store(tmp_path / "results")
    config = {"base": {"epochs": T}}
    end = {"status": "done", "reason": None, "summary": {}, "cost": {}, "device": "cpu", "versions": {}, "run_id": "r"}
    store.write_record({**CELL, **end, "config": config}, [{"epoch": T, "val_accuracy": 50.0}])
    whole = {"schema": 1, "suite": "quick", "command": "run", "created": "monday", "config": {}, "cells": [CELL]}
    write_json(store.suite_folder("quick") / "plan.json", whole)
    own, _ = plane
    monkeypatch.setattr(
        landscape, "chosen", lambda store, cells: iter([(("net", "digits", "sgd"), store.record("cell"))])
    )
    monkeypatch.setattr(landscape, "stored_window", lambda store, record: Window())
    monkeypatch.setattr(landscape, "_fit", lambda record, window: own.model)
    monkeypatch.setattr(landscape, "_evaluator", lambda record: None)
    return store


class Window:
    """The epochs of a trajectory, whose weights nobody asks for."""

    ts = range(1, T + 1)

    def __len__(self):
        return T

    def __getitem__(self, place):
        return place


class Losses:
    """Losses by point, the squared distance of the weights from those of the point (0, 0); fails from `last` on."""

    def __init__(self, plane, last=math.inf):
        self.plane, self.last, self.seen = plane, last, 0

    def __call__(self, evaluator, snapshot, theta_N):
        if self.seen == self.last:
            raise KeyboardInterrupt
        self.seen += 1
        return float((theta_N - self.plane.theta(0.0, 0.0)).double().square().sum())


def test_an_interrupted_drawing_goes_on_and_ends_alike(store, plane, monkeypatch):
    own, _ = plane
    table = store.suite_folder("quick") / "figures" / "net-digits-sgd-landscape.csv"
    monkeypatch.setattr(landscape, "_loss", Losses(own, last=4))
    with pytest.raises(KeyboardInterrupt):
        list(draw_landscapes(store, "quick", 3))
    assert not table.exists()
    partial = table.with_name(".net-digits-sgd-landscape.partial.csv")
    # a line that was being written when the process died
    with open(partial, "a") as file:
        file.write("\n0.5,0.")
    monkeypatch.setattr(landscape, "_loss", rest := Losses(own))
    lines = list(draw_landscapes(store, "quick", 3))
    assert lines[0] == "landscape: net digits sgd: 5 of 9 points to evaluate on 512 validation images"
    assert rest.seen == 5
    assert not partial.exists()
    resumed = pd.read_csv(table)
    assert len(resumed) == 9
    for path in table.parent.glob("net-digits-sgd-landscape.*"):
        path.unlink()
    monkeypatch.setattr(landscape, "_loss", Losses(own))
    list(draw_landscapes(store, "quick", 3))
    pd.testing.assert_frame_equal(pd.read_csv(table), resumed)
    # the weights of mode 0 are 1 to 5 times a line of variance 35 / 12, those of mode 1 1 to 3 times one of variance 2
    expected = resumed["u"] ** 2 * 55 * 35 / 12 + resumed["v"] ** 2 * 14 * 2
    np.testing.assert_allclose(resumed["val_loss"], expected, rtol=1e-4)


def test_a_finished_drawing_evaluates_nothing_and_another_grid_everything(store, plane, monkeypatch):
    own, _ = plane
    monkeypatch.setattr(landscape, "_loss", first := Losses(own))
    list(draw_landscapes(store, "quick", 3))
    assert first.seen == 9
    monkeypatch.setattr(landscape, "_loss", again := Losses(own))
    assert "0 of 9 points" in next(draw_landscapes(store, "quick", 3))
    list(draw_landscapes(store, "quick", 3))
    assert again.seen == 0
    list(draw_landscapes(store, "quick", 4))
    assert again.seen == 16


def test_points_of_another_cell_are_not_taken_up(tmp_path):
    mine, other = ({"cell_key": key, "points": 3, "images": 512} for key in ("mine", "other"))
    kept = Kept(tmp_path / "partial.csv", tmp_path / "whole.csv", other)
    kept.add(0.5, -1.25, 0.75)
    assert kept.known() == {(0.5, -1.25): 0.75}
    assert Kept(tmp_path / "partial.csv", tmp_path / "whole.csv", mine).known() == {}


def test_a_landscape_of_another_plan_goes(store, plane, monkeypatch):
    from harness.report.figures import draw_figures

    monkeypatch.setattr(landscape, "_loss", Losses(plane[0]))
    list(draw_landscapes(store, "quick", 3))
    folder = store.suite_folder("quick") / "figures"
    list(draw_figures(store, "quick"))
    assert len(list(folder.glob("*-landscape.*"))) == 3
    plan = read_plan(store.root, "quick")
    write_json(store.suite_folder("quick") / "plan.json", {**plan, "cells": [{**CELL, "cell_key": "another"}]})
    list(draw_figures(store, "quick"))
    assert list(folder.glob("*-landscape.*")) == []
