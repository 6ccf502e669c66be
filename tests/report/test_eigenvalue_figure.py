"""The figure of eigenvalues: every point where it belongs, and the files of a plan from a store without training."""

import numpy as np
import pandas as pd
import pytest
from command import here

from harness.report.figures.eigenvalues import EDGE, draw_eigenvalues
from harness.report.figures.style import STYLE, Labels
from harness.storage.files import write_json
from harness.storage.store import Store

NAMES = {f"net-digits-sgd-{name}.{kind}" for name in ("eigenvalues", "curves") for kind in ("csv", "pdf", "png")}


def eigenvalues(*values):
    real, imaginary = np.real(values), np.imag(values)
    table = {"mode": range(len(values)), "real": real, "imaginary": imaginary, "modulus": np.abs(values)}
    return pd.DataFrame({**table, "amplitude": 1.0})


def cell(key, method="dmd", seed=0):
    labels = {"model": "net", "dataset": "digits", "optimizer": "sgd", "seed": seed, "method": method}
    return {"cell_key": key, "base_key": "base", **labels, "batchnorm": "recalibrate", "parameters": {}}


def finish(store, of, table=None, status="done"):
    config = {"base": {"epochs": 3}}
    end = {"status": status, "reason": None, "summary": {}, "cost": {}, "device": "cpu", "versions": {}, "run_id": "r"}
    store.write_record({**of, **end, "config": config}, [{"epoch": 3, "val_accuracy": 50.0}])
    if table is not None:
        store.write_tables(of["cell_key"], {"eigenvalues": table})


def plan(store, *cells):
    whole = {"schema": 1, "suite": "quick", "command": "run", "created": "monday", "config": {}, "cells": cells}
    write_json(store.suite_folder("quick") / "plan.json", whole)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Two methods, one with two seeds, one that is not done, and one without eigenvalues; figures are coarse."""
    monkeypatch.setitem(STYLE, "savefig.dpi", 40)
    store = Store(tmp_path / "results")
    cells = [cell("a"), cell("b", seed=1), cell("c", "cmd_dmd"), cell("d", "swa"), cell("e", "late")]
    finish(store, cells[0], eigenvalues(0.9 + 0.1j, 0.9 - 0.1j))
    finish(store, cells[1], eigenvalues(0.5))
    finish(store, cells[2], eigenvalues(1.1, -0.2))
    finish(store, cells[3])
    finish(store, cells[4], eigenvalues(0.3), status="diverged")
    plan(store, *cells)
    return store


def report(store):
    printed = here("report", "suite=quick", results=store.root).stdout
    figures = store.suite_folder("quick") / "figures"
    return printed, {path.name: path.read_bytes() for path in figures.iterdir()} if figures.exists() else {}


def test_report_draws_the_finished_cells_that_have_eigenvalues(store):
    printed, files = report(store)
    assert "figures: net digits sgd: 5 eigenvalues of dmd, cmd_dmd\n" in printed
    assert set(files) == NAMES
    saved = pd.read_csv(store.suite_folder("quick") / "figures" / "net-digits-sgd-eigenvalues.csv")
    assert saved["method"].tolist() == ["dmd"] * 3 + ["cmd_dmd"] * 2
    assert saved["seed"].tolist() == [0, 0, 1, 0, 0]
    assert saved["cell_key"].tolist() == ["a", "a", "b", "c", "c"]
    assert saved["real"].tolist() == [0.9, 0.9, 0.5, 1.1, -0.2]
    assert report(store)[1] == files


def test_figures_of_another_plan_go(store):
    report(store)
    plan(store, cell("d", "swa"))
    printed, files = report(store)
    assert "eigenvalues" not in printed
    assert not [name for name in files if "eigenvalues" in name]


def test_points_lie_at_their_eigenvalue_and_beyond_the_edge_on_their_ray():
    far = 3 * np.exp(0.5j)
    table = pd.concat([eigenvalues(0.5, 1j).assign(method="dmd"), eigenvalues(far).assign(method="cmd_dmd")])
    whole, close = draw_eigenvalues({"eigenvalues": table.reset_index(drop=True)}, Labels("title")).axes
    for axes in (whole, close):
        (inner, outer) = (points.get_offsets() for points in axes.collections)
        np.testing.assert_allclose(inner, [[0.5, 0], [0, 1]])
        np.testing.assert_allclose(outer, [[EDGE * np.cos(0.5), EDGE * np.sin(0.5)]])
        (circle,) = axes.patches
        assert (circle.center, circle.radius) == ((0, 0), 1)
    labels = [points.get_label() for points in whole.collections]
    assert labels == ["DMD (2)", "DMD of CMD's references (1, 1 beyond the edge)"]
    assert whole.get_xlim()[1] > EDGE
    assert len({tuple(points.get_facecolor()[0]) for points in whole.collections}) == 2


def test_the_close_up_shows_the_quarter_nearest_to_1():
    near = [0.9 + 0.02j, 0.9 - 0.02j]
    table = eigenvalues(*near, -0.5, -0.6, -0.7, -0.8, 0.1j, -0.1j).assign(method="dmd")
    close = draw_eigenvalues({"eigenvalues": table}, Labels("title")).axes[1]
    (low, high), (bottom, top) = close.get_xlim(), close.get_ylim()
    assert low < 0.9 < 1 < high
    assert bottom < -0.02 < 0.02 < top
    assert low > 0.1
