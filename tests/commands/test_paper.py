"""The paper's suite through the real command, with its smallest model; benchmarks/paper_shrunk.py runs all six."""

import pandas as pd
import pytest
from command import here, view_folder

METHODS = {"base", "base_recalibrated", "ema", "swa", "time_mean", "cmd_online", "p_bfgs_equal", "p_bfgs_long"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper") / "results"
    words = ("model=lenet5", "dataset=digits", "dataset.digits.resize=16", "fast=true", "tracker=none", "device=cpu")
    here("run", "suite=paper", *words, results=folder)
    return folder


def test_all_methods_of_the_paper_are_done(results):
    both = pd.read_parquet(view_folder(results) / "frame.parquet")
    assert set(both["status"]) == {"done"}
    assert set(both["model"]) == {"lenet5"}
    frame = both[both["optimizer"] == "adam"].set_index("method")
    assert set(frame.index) == METHODS
    assert set(both.loc[both["optimizer"] == "adam_cosine", "method"]) == METHODS - {"p_bfgs_equal", "p_bfgs_long"}
    # 6 epochs of 3 batches of 32
    assert frame.loc["base", "gradients_full"] == 6 * 3 * 32
    assert frame.loc[["p_bfgs_equal", "p_bfgs_long"], "gradients_subspace"].gt(0).all()


def test_snapshots_are_dropped_once_nobody_needs_them(results):
    assert list(results.glob("bases/*/trajectory/*.safetensors")) == []
