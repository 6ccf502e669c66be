"""The loss landscape of a method's plane: its points, and a drawing that goes on where it was interrupted."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from frames import cells, frame_of, write_suite

from harness.config import ConfigError
from harness.method import Plane, Proposal, Reconstruction, Snapshot
from harness.report.figures import landscape
from harness.report.figures.draw import draw_figures
from harness.report.figures.kept_points import KeptPoints
from harness.report.figures.landscape import draw_landscapes, grid, reconstruction, weights_at
from harness.report.stats.summary import results
from harness.storage.paths import snapshot_path
from harness.storage.store import Store
from harness.storage.trajectory import write_snapshot

T = 4
NAME = "net-digits-sgd-mine-landscape"
BASE = "net-digits-sgd-0"
PLANE = Plane(
    origin_N=torch.tensor([1.0, 1.0, 5.0]),
    axes_2N=torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]]),
    path_T2=torch.tensor([[-1.0, 0.0], [0.0, 2.0], [1.0, 0.0], [1.0, 1.0]]),
    ts=(1, 2, 3, 4),
    labels=("first direction", "second direction"),
)


class Mine(Reconstruction):
    """Gives PLANE once it has been fitted on all its snapshots."""

    def needs(self, epochs):
        return 1, epochs

    def fit(self, run):
        self.seen = run.trajectory.ts

    def reconstruct(self, t):
        return Proposal(torch.zeros(3))

    def plane(self):
        return PLANE if self.seen == PLANE.ts else None


def squared(evaluator, snapshot, theta_N):
    """In place of the loss: the squared distance from the origin of the plane, 4 u^2 + 9 v^2."""
    return float((theta_N - PLANE.origin_N).double().square().sum())


class Interrupted:
    """Losses of so many points, then a person's Ctrl-C; counts the points."""

    def __init__(self, last=math.inf):
        self.last, self.seen = last, 0

    def __call__(self, *given):
        if self.seen == self.last:
            raise KeyboardInterrupt
        self.seen += 1
        return squared(*given)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A finished cell with its snapshots, whose method is Mine; no data set is needed."""
    store = Store(tmp_path / "results")
    write_suite(store, [cells("mine", [80.0])])
    for t in range(T + 1):
        write_snapshot(store.base_folder(BASE) / "trajectory", Snapshot(t, 6 * t, torch.ones(3) * t, {}))
    monkeypatch.setattr(landscape, "reconstruction", lambda record, folders: Mine())
    monkeypatch.setattr(landscape, "_layout", lambda record: None)
    monkeypatch.setattr(landscape, "_evaluator", lambda record: None)
    monkeypatch.setattr(landscape, "_loss", squared)
    return store


def frame():
    return frame_of(cells("mine", [80.0]))


def folder(store):
    return store.suite_folder("quick") / "figures"


def draw(store, points=3):
    return list(draw_landscapes(store, frame(), folder(store), points))


def test_a_point_stands_for_weights_and_the_grid_holds_the_path_with_a_margin():
    assert weights_at(PLANE, 0.5, -1.0).tolist() == [2.0, -2.0, 5.0]
    u_G, v_G = grid(PLANE, 3)
    # u from -1 to 1 and v from 0 to 2, each with 0.3 of its width on both sides
    assert u_G.tolist() == [-1.6, 0.0, 1.6]
    assert v_G.tolist() == [-0.6, 1.0, 2.6]


def test_every_point_has_its_loss(store):
    title = "landscape: net digits sgd mine:"
    # 9 at the least where u is 0 and v is 1; 4 * 1.6^2 + 9 * 2.6^2 at the most
    assert draw(store) == [
        f"{title} 9 of 9 points to evaluate on 512 validation images",
        f"{title} drawn, loss 3.2400 to 71.0800",
    ]
    table = pd.read_csv(folder(store) / f"{NAME}.csv")
    np.testing.assert_allclose(table["val_loss"], 4 * table["u"] ** 2 + 9 * table["v"] ** 2, rtol=1e-6)
    assert {path.name for path in folder(store).iterdir()} == {f"{NAME}.{ending}" for ending in ("png", "pdf", "csv")}


def test_an_interrupted_drawing_goes_on_and_ends_alike(store, monkeypatch):
    table = folder(store) / f"{NAME}.csv"
    monkeypatch.setattr(landscape, "_loss", Interrupted(last=4))
    with pytest.raises(KeyboardInterrupt):
        draw(store)
    assert not table.exists()
    partial = folder(store) / f".{NAME}.partial.csv"
    # a line that was being written when the process died
    with open(partial, "a") as file:
        file.write("\n0.5,0.")
    monkeypatch.setattr(landscape, "_loss", rest := Interrupted())
    assert "5 of 9 points to evaluate" in draw(store)[0]
    assert rest.seen == 5
    assert not partial.exists()
    resumed = table.read_bytes()
    table.unlink()
    draw(store)
    assert table.read_bytes() == resumed


def test_a_finished_drawing_evaluates_nothing_and_another_grid_everything(store, monkeypatch):
    draw(store)
    monkeypatch.setattr(landscape, "_loss", again := Interrupted())
    assert "0 of 9 points" in draw(store)[0]
    assert again.seen == 0
    draw(store, points=4)
    assert again.seen == 16


def test_points_of_another_cell_are_not_taken_up(tmp_path):
    mine, other = ({"cell_key": key, "points": 3, "images": 512} for key in ("mine", "other"))
    kept = KeptPoints(tmp_path / "partial.csv", tmp_path / "whole.csv", other)
    kept.add(0.5, -1.25, 0.75)
    assert kept.known() == {(0.5, -1.25): 0.75}
    assert KeptPoints(tmp_path / "partial.csv", tmp_path / "whole.csv", mine).known() == {}


def test_without_its_snapshots_it_is_not_drawn(store):
    snapshot_path(store.base_folder(BASE) / "trajectory", 2).unlink()
    assert draw(store) == [f"landscape: net digits sgd mine: not drawn, {landscape.GONE}"]


def test_a_landscape_stays_while_its_cell_is_planned_and_goes_with_it(store):
    draw(store)
    history = pd.DataFrame({"cell_key": pd.Series(dtype="str"), "epoch": pd.Series(dtype="int64")})
    for planned, left in ((frame(), 3), (frame_of(cells("other", [80.0])), 0)):
        list(draw_figures(store, results(planned, history), folder(store)))
        assert len(list(folder(store).glob(f"{NAME}.*"))) == left


def recorded(target):
    method = {"name": "mine", "target": target, "params": {}, "batchnorm": "recalibrate", "search": {}}
    return {"config": {"method": method}}


def test_methods_without_a_plane_are_not_fitted():
    assert reconstruction(recorded("baselines.dmd_reconstruction.DMDReconstruction"), ()) is None
    assert reconstruction(recorded("baselines.swa.SWA"), ()) is None


def test_a_record_makes_no_class_from_elsewhere():
    with pytest.raises(ConfigError, match=r"method\.mine\._target_ must lie in baselines or in a folder"):
        reconstruction(recorded("subprocess.Popen"), ())
