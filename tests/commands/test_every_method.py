"""Every method of the project that runs without clients, in one run of the real command at its smallest values."""

import json

import pandas as pd
import pytest
from command import here, view_folder

from harness.conformance.tiny import find_class
from harness.method import Brancher, Exchange
from harness.planning.compose import available
from harness.planning.methods import load_class

EPOCHS, BATCHES, BATCH_SIZE = 6, 3, 32
"""of `fast=true`"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("every") / "results"
    here("run", "method=all", "fast=true", "tracker=none", results=folder)
    return folder


@pytest.fixture(scope="module")
def frame(results):
    return pd.read_parquet(view_folder(results) / "frame.parquet").set_index("method")


def test_all_are_done_on_one_base(frame):
    exchanges = {name for name in available("method") if issubclass(find_class(name), Exchange)}
    assert len(exchanges) == 12
    assert set(frame.index) == set(available("method")) - exchanges
    assert set(frame["status"]) == {"done"}
    assert frame["base_key"].nunique() == 1


def test_epochs_and_gradients_add_up(results, frame):
    """What branches spend comes on top of the prefix, in the space that they declare."""
    for method, cell in frame.iterrows():
        record = json.loads((results / "cells" / cell["cell_key"] / "record.json").read_text())
        cost = record["cost"]
        assert cost["epochs_full"] + cost["epochs_subspace"] == cell["epochs"], method
        cls = load_class("", record["config"]["method"]["target"])
        space = cls.gradient_space if issubclass(cls, Brancher) else "full"
        prefix = cell["prefix_epochs"] * BATCHES * BATCH_SIZE
        if space == "subspace":
            assert cell["gradients_full"] == prefix, method
            assert cell["gradients_subspace"] > 0, method
            assert cost["epochs_full"] == cell["prefix_epochs"], method
        else:
            assert cell["gradients_full"] == cell["epochs"] * BATCHES * BATCH_SIZE, method
            assert cell["gradients_subspace"] == 0, method
        assert cell["forward_passes"] >= cell["gradients_full"] + cell["gradients_subspace"], method


def test_tables_of_costs_and_methods_are_there(results, frame):
    costs = pd.read_csv(view_folder(results) / "tables/cost.csv")
    assert set(costs["method"]) == set(frame.index)
    fractions = frame["trainable_fraction"]
    assert set(fractions[fractions < 1].index) >= {"cmd_embedded", "frozen_random", "frozen_least_moved"}
