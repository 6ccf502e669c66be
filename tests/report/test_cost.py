"""What methods cost, and the comparison on one budget, on frames whose means are known by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from harness.config import ConfigError
from harness.report.stats.budget import at_budget, budgets, check_budget
from harness.report.stats.cost import costs
from harness.report.tables.budget import budget_tables
from harness.report.tables.columns import COLUMNS as SHOWN
from harness.report.tables.suite import comparable
from harness.storage.store import Store

EPOCH = 1000
"""images of an epoch"""
BASE = {"model": "net", "dataset": "digits", "optimizer": "sgd"}


def cell(method, seed, prefix=0, own=0, subspace=False, status="done", epochs=4):
    """A cell of a base of `epochs` epochs, or of a branch of `own` epochs with twice as many gradients."""
    images = EPOCH * (prefix if own else epochs)
    return {
        **BASE,
        "seed": seed,
        "method": method,
        "status": status,
        "epochs": prefix + own if own else epochs,
        "prefix_epochs": prefix,
        "gradients_full": images if subspace else images + 2 * EPOCH * own,
        "gradients_subspace": 2 * EPOCH * own if subspace else 0,
        "forward_passes": images + 3 * EPOCH * own,
        "trainable_fraction": 1.0,
        "moving": 0.5,
        "busy": 0.5 if method == "p_bfgs" and seed == 1 else 0.1,
        **dict.fromkeys(("age", "n_eff"), np.nan),
        "train_seconds": 10.0 + seed,
        "method_seconds": 1.0,
        "eval_seconds": 2.0,
        "peak_memory_bytes": 3e8,
        "base_key": f"base-{seed}",
        "cell_key": f"{method}-{seed}",
    }


def curve(of, accuracies):
    """Rows of a cell: the base's gradients in the prefix, twice an epoch's images in every own one."""
    rows = []
    for epoch, accuracy in enumerate(accuracies, start=1):
        prefix = of["prefix_epochs"] if of["gradients_subspace"] or of["prefix_epochs"] else epoch
        inside = min(epoch, prefix)
        rows.append(
            {
                "cell_key": of["cell_key"],
                "epoch": epoch,
                "val_accuracy": accuracy,
                "val_loss": 1 - accuracy / 100,
                "gradients_full": float(EPOCH * inside),
                "gradients_subspace": float(2 * EPOCH * (epoch - inside)),
            }
        )
    return rows


@pytest.fixture
def frame():
    rows = [cell("base", seed) for seed in (0, 1)]
    rows += [cell("p_bfgs", seed, prefix=2, own=2, subspace=True) for seed in (0, 1)]
    return pd.DataFrame([*rows, cell("lost", 0, status="failed")])


@pytest.fixture
def history(frame):
    curves = {
        "base-0": [50, np.nan, 60, 70],
        "base-1": [52, np.nan, 62, 72],
        "p_bfgs-0": [50, 55, 80, 90],
        "p_bfgs-1": [52, 57, 84, 94],
    }
    by_key = {row["cell_key"]: row for row in frame.to_dict("records")}
    return pd.DataFrame([row for key, values in curves.items() for row in curve(by_key[key], values)])


def test_costs_are_means_over_finished_seeds(frame):
    table = costs(frame).set_index("method")
    assert list(table.index) == ["base", "p_bfgs"]
    assert table["n"].tolist() == [2, 2]
    assert table["train_seconds"].tolist() == [10.5, 10.5]
    assert table["subspace_epochs"].tolist() == [0, 2]
    assert table["prefix_epochs"].tolist() == [0, 2]
    assert table["gradients_full"].tolist() == [4 * EPOCH, 2 * EPOCH]
    assert table["gradients_subspace"].tolist() == [0, 4 * EPOCH]
    assert table["forward_passes"].tolist() == [4 * EPOCH, 8 * EPOCH]


def test_seconds_stand_beside_their_median_and_what_other_work_made_longer_is_marked(frame):
    """Three seeds of 10, 11 and 12 seconds, one of which had half of the cores beside it."""
    cells = [cell("base", seed) for seed in (0, 1, 2)] + [cell("p_bfgs", seed) for seed in (0, 1, 4)]
    table = costs(pd.DataFrame(cells)).set_index("method")
    assert table.loc["p_bfgs", ["train_seconds", "train_seconds_median", "busy_cells"]].tolist() == [35 / 3, 11.0, 1]
    assert table.loc["base", ["busy_cells", "unknown_cells"]].tolist() == [0, 0]
    texts = {method: SHOWN["train_seconds"].text(line) for method, line in table.to_dict("index").items()}
    assert texts == {"base": "11.0 / 11.0", "p_bfgs": "11.7 / 11.0 †"}
    summary = table.reset_index()
    assert comparable(summary).startswith("†: 1 of 6 cells ran while other processes")
    assert comparable(summary[:1]) == "Other processes never had more than 20 % of the cores."
    assert "Of 3 of 3 cells it is not known" in comparable(summary[:1].assign(unknown_cells=3))


def test_costs_of_nothing_done(frame):
    assert len(costs(frame[frame["status"] == "failed"])) == 0


def test_at_the_budget_of_the_base(frame, history):
    """The base's 4 epochs buy the branch its prefix of 2 and one epoch of its own, which costs two."""
    table = at_budget(frame, history, dict.fromkeys(("base-0", "base-1"), 4 * EPOCH)).set_index(["method", "seed"])
    assert table["epoch"].to_dict() == {("base", 0): 4, ("base", 1): 4, ("p_bfgs", 0): 3, ("p_bfgs", 1): 3}
    assert table["val_accuracy"].tolist() == [70, 72, 80, 84]
    assert table["gradients"].tolist() == [4 * EPOCH] * 4
    (printed,) = budget_tables(table.reset_index())
    assert printed.title == "net, digits, sgd: 4,000 gradient evaluations"
    assert printed.texts.to_numpy().tolist() == [
        ["base", "71.00 ± 1.41", "2", "4.0", "100 %"],
        ["p_bfgs", "82.00 ± 2.83", "2", "3.0", "100 %"],
    ]


def test_below_its_own_epochs_a_branch_has_its_base(frame, history):
    table = at_budget(frame, history, dict.fromkeys(("base-0", "base-1"), 3.5 * EPOCH)).set_index(["method", "seed"])
    assert table.loc[("p_bfgs", 0), "val_accuracy"] == 55
    assert table.loc[("p_bfgs", 0), "gradients"] == 2 * EPOCH
    assert table.loc[("base", 1), "val_accuracy"] == 62


def test_a_budget_below_the_first_evaluation_leaves_a_gap(frame, history):
    table = at_budget(frame, history, dict.fromkeys(("base-0", "base-1"), 1))
    assert table["val_accuracy"].isna().tolist() == [True] * 4
    (printed,) = budget_tables(table)
    assert printed.texts.iloc[0].tolist() == ["base", "–", "0", "–", "–"]


def test_budgets_come_from_the_bases_records(frame, tmp_path):
    store = Store(tmp_path)
    folder = store.base_folder("base-0")
    store.write_base({"base_key": "base-0", "status": "done", "counts": {"gradients_full": 4321}}, [], folder)
    assert json.loads((folder / "base.json").read_text())["counts"] == {"gradients_full": 4321}
    assert budgets(store, frame, "base") == {"base-0": 4321.0}
    assert budgets(store, frame, 10) == {"base-0": 10.0, "base-1": 10.0}


@pytest.mark.parametrize("budget", ["0", "-3", "1.5", "all", ""])
def test_bad_budgets(budget):
    with pytest.raises(ConfigError, match=r"tables\.budget must be base or at least 1 gradient evaluation, got"):
        check_budget(budget)
    assert (check_budget("base"), check_budget("1000")) == ("base", 1000)


def test_histories_without_counts_are_named(frame, history):
    with pytest.raises(ConfigError, match="must have histories with counts of gradients"):
        at_budget(frame, history.drop(columns="gradients_full"), {})
    old = history["cell_key"] == "base-1"
    with pytest.raises(ConfigError, match="got an older one of base seed 1; redo=base"):
        at_budget(frame, history.assign(gradients_full=history["gradients_full"].mask(old)), {})


def test_a_cell_without_rows_is_a_gap(frame, history):
    table = at_budget(frame, history[history["cell_key"] != "base-1"], dict.fromkeys(("base-0", "base-1"), 1e9))
    assert table["val_accuracy"].isna().tolist() == [False, True, False, False]
