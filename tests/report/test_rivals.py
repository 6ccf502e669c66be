"""Every method on a constant base beside the plain annealed run of its length: pairs, tables and page."""

import re

import numpy as np
import pandas as pd
import pytest
from command import here
from frames import cells, frame_of, write_suite

from harness.report.stats.rivals import rivals
from harness.report.stats.summary import results, summary
from harness.report.tables import suite
from harness.report.tables.columns import Choice
from harness.storage.store import Store

NO_HISTORY = pd.DataFrame({"cell_key": pd.Series(dtype="str"), "epoch": pd.Series(dtype="int64")})
PLAIN = "base_recalibrated"
ANNEALED = {"optimizer": "sgd_cosine", "schedule": "cosine"}


@pytest.fixture
def groups():
    groups = [
        cells("base", [79.0, 80.0, 81.0, 82.0], twin="sgd_cosine"),
        cells(PLAIN, [80.0, 81.1, 82.0, 83.0], twin="sgd_cosine"),
        cells("swa", [86.0, 87.2, 88.1, 50.0], twin="sgd_cosine"),
        cells(PLAIN, [85.0, 86.0, 87.0, "diverged"], **ANNEALED),
        cells("swa", [85.1, 86.0, 87.0, 87.0], **ANNEALED),
    ]
    return [list(group) for group in groups]


def test_differences_pair_by_seed_with_the_plain_run_on_the_twin(groups):
    """+1.0 +1.2 +1.1 on the seeds that both have; a method on the annealed base has no rival."""
    table = rivals(frame_of(*groups)).set_index("method")
    assert list(table.index) == ["base", PLAIN, "swa"]
    assert set(table["twin"]) == {"sgd_cosine"}
    swa = table.loc["swa"]
    assert (swa["n"], swa["seeds"], swa["runs"], swa["wins"]) == (3, 4, 3, 3)
    assert (swa["mean"], swa["std"]) == pytest.approx((1.1, 0.1))
    assert (swa["method_mean"], swa["rival_mean"]) == pytest.approx((261.3 / 3, 86.0))
    assert (swa["verdict"], swa["family"]) == ("ahead", "exploratory")
    assert table.loc[PLAIN, "verdict"] == "behind"
    assert table.loc["base", "verdict"] == "no test: another BatchNorm policy"


@pytest.mark.parametrize("twin", ["adam", None, np.nan])
def test_without_a_plain_run_on_the_twin_there_is_no_rival(twin):
    frame = frame_of(cells(PLAIN, [80.0, 81.0], twin=twin), cells(PLAIN, [85.0, 86.0], **ANNEALED))
    table = rivals(frame)
    assert table.empty
    assert {"twin", "verdict", "rival_mean"} <= set(table.columns)
    found = results(frame, NO_HISTORY)
    assert suite.rivals(found, summary(found), Choice()) == []


def test_a_twin_is_of_the_same_model_and_data():
    frame = frame_of(cells("swa", [80.0, 81.0], "a", twin="sgd_cosine"), cells(PLAIN, [85.0, 86.0], "b", **ANNEALED))
    assert rivals(frame).empty


def test_the_command_prints_and_keeps_them(groups, tmp_path):
    write_suite(Store(tmp_path), groups)
    done = here("report", "suite=quick", "figures=none", results=tmp_path)
    assert "net · digits · sgd beside plain sgd_cosine" in done.stdout
    assert "+1.10±0.10" in done.stdout
    assert "ahead is SWA (+1.10 points" in done.stdout
    tables = Store(tmp_path).suite_folder("quick") / "tables"
    assert re.search(r"\| +\+1\.10 \[\+0\.85, \+1\.35\] \|", (tables / "rivals.md").read_text())
    assert r"\label{tab:rivals-net-digits-sgd}" in (tables / "rivals.tex").read_text()
    assert pd.read_csv(tables / "rivals.csv").set_index("method").loc["swa", "mean"] == pytest.approx(1.1)
    page = (tables.parent / "report" / "index.html").read_text()
    assert 'id="rivals"' in page
    assert "<td>+1.10 [+0.85, +1.35]</td>" in page
    write_suite(Store(tmp_path), groups[3:])
    here("report", "suite=quick", "figures=none", results=tmp_path)
    assert [path.name for path in tables.glob("rivals*")] == []
