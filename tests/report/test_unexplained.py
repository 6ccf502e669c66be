"""The reconstruction-error table against shares that follow from a trajectory made by hand."""

import json

import pandas as pd
import pytest
import torch
from harness.report.unexplained import unexplained
from harness.report.written import write_csv, write_errors

from baselines.cmd import CMD
from harness.method import Snapshot
from harness.report import printing
from harness.storage.files import write_json
from harness.storage.trajectory import MemoryTrajectory

ROW = {"model": "net", "dataset": "digits", "optimizer": "sgd", "seed": 0}


def trajectory(W_TN):
    return MemoryTrajectory([Snapshot(t, t, row, {}) for t, row in enumerate(W_TN.float(), start=1)])


# Three motions over four snapshots, orthogonal to each other and of mean 0, each of squared length 4.
WALSH_4 = torch.tensor([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], dtype=torch.float64)


def shares(W_TN, modes):
    model = CMD.fit(W_TN.float(), modes=modes, samples=W_TN.shape[1], seed=0).model
    table, _ = unexplained(trajectory(W_TN), model)
    return {(fit, dimension): share for fit, dimension, share in table.itertuples(index=False)}


def test_principal_components_leave_the_smaller_motions():
    """Weights with squared motions 16, 4 and 4: the first component holds 16 of 24, the second 4 more."""
    W_TN = torch.stack([2 * WALSH_4[0], WALSH_4[1], WALSH_4[2]], 1) + 7.0
    found = shares(W_TN, modes=2)
    assert found["time mean", 0] == 1.0
    assert found["principal components", 1] == pytest.approx(8 / 24, abs=1e-6)
    assert found["principal components", 2] == pytest.approx(4 / 24, abs=1e-6)


def test_cmd_explains_a_weight_by_its_correlation_with_the_reference():
    """One mode, three weights: the reference moves as u, and the others as (3 u + 4 v) / 5, whose correlation with u is
    0.6 by construction: 0.36 of their motion is explained, if u is the reference."""
    u, v = WALSH_4[0], WALSH_4[1]
    W_TN = torch.stack([u, (3 * u + 4 * v) / 5, (3 * u - 4 * v) / 5], 1)
    found = shares(W_TN, modes=1)
    # u has |correlations| 0.6 and 0.6, the others 0.6 and |9 - 16| / 25 = 0.28: u is the most central
    assert found["post-hoc CMD", 1] == pytest.approx(2 * 0.64 / 3, abs=1e-6)


def test_the_table_says_percent_at_cmds_dimension_and_which_rank_it_is_of(tmp_path):
    """Two modes: CMD as it is, the components' second line, and of DMD the highest rank up to two."""
    lines = [("time mean", 0, 1.0), ("post-hoc CMD", 2, 0.1234), ("principal components", 1, 0.3)]
    lines += [("principal components", 2, 0.05), ("principal components", 3, 0.01), ("DMD", 1, 0.5)]
    figures = tmp_path / "figures"
    write_csv(pd.DataFrame(lines, columns=["fit", "dimension", "share"]), figures / "net-digits-sgd-errors.csv")
    write_json(figures / "net-digits-sgd.json", ROW)
    write_errors(figures, tmp_path / "tables")
    text = (tmp_path / "tables" / "errors.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("| net")]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        *("net", "digits", "sgd", "0", "2"),
        *("100.00", "12.34", "50.00 (of 1)", "5.00"),
    ]
    assert len(pd.read_csv(tmp_path / "tables" / "errors.csv")) == 6
    (figures / "net-digits-sgd-errors.csv").unlink()
    write_errors(figures, tmp_path / "tables")
    assert list((tmp_path / "tables").iterdir()) == []
    assert json.loads((figures / "net-digits-sgd.json").read_text()) == ROW
    assert printing.errors(pd.DataFrame(columns=[*ROW, "fit"])) == []
