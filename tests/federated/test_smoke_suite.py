"""`suite=federated_smoke`: every exchange, its bytes and its table, and what searches and other commands make of it."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from command import here, traindyn, view_folder

from harness.conformance.tiny import find_class
from harness.method import Exchange
from harness.planning.compose import available

EXCHANGES = sorted(name for name in available("method") if issubclass(find_class(name), Exchange))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The suite with a report, on one of its seeds and in fewer rounds."""
    results = tmp_path_factory.mktemp("smoke") / "results"
    lengths = [f"method.{name}.warmup=2" for name in ("fed_cmd", "fed_frozen_random", "fed_frozen_least_moved")]
    traindyn(
        "run", "suite=federated_smoke", "seeds=[0]", "epochs=5", *lengths, "tracker=csv", "name=fed", results=results
    )
    here("report", "name=fed", results=results)
    return results


def test_every_exchange_is_in_it_and_done(finished):
    frame = pd.read_parquet(view_folder(finished, "fed") / "frame.parquet")
    assert set(EXCHANGES) <= set(frame["method"])
    assert (frame["status"] == "done").all()
    assert (frame["federation"] == "dirichlet_10").all()
    assert (frame["dataset"] == "digits-dirichlet_10").all()
    assert frame[["upload_bytes", "download_bytes", "client_accuracy"]].notna().all(axis=None)


def test_plain_training_is_federated_averaging(finished):
    """Exchanges are not recalibrated, and are held against what is not either."""
    done = here("report", "name=fed", "figures=none", results=finished)
    table = pd.read_csv(view_folder(finished, "fed") / "tables" / "comparisons.csv")
    against = table[(table["control"] == "base") & table["method"].isin(EXCHANGES)]
    assert set(against["method"]) == {*EXCHANGES}
    assert not against["verdict"].str.contains("policy").any()
    best = against.loc[against["mean"].idxmax()]
    assert best["mean"] > 0
    assert "to plain training (base) in 1 training run" in done.stdout
    assert "another BatchNorm policy" not in done.stdout


def test_clients_are_as_right_as_their_classes(finished):
    """By hand, from what the table of clients says of their images."""
    frame = pd.read_parquet(view_folder(finished, "fed") / "frame.parquet")
    for cell in frame.to_dict("records"):
        table = pd.read_parquet(finished / "cells" / cell["cell_key"] / "tables" / "clients.parquet")
        assert table["client"].tolist() == [0, 1, 2, 3]
        classes = table[[f"class_{c}" for c in range(10)]]
        assert (classes.sum(axis=1) == table["images"]).all()
        assert table["images"].sum() == 480
        assert math.isclose(table["accuracy"].mean(), cell["client_accuracy"])
        assert math.isclose(table["accuracy"].min(), cell["client_accuracy_worst"])
        assert math.isclose(float(np.std(table["accuracy"])), cell["client_accuracy_std"], abs_tol=1e-9)
        # weighed by their images, clients are as right as all classes in the mix that is trained on
        assert 0 <= table["accuracy"].min() <= table["accuracy"].max() <= 100


def test_the_table_is_what_histories_say(finished):
    folder = view_folder(finished, "fed")
    table = pd.read_csv(folder / "tables" / "communication.csv").set_index(["method", "seed"])
    history = pd.read_parquet(folder / "history.parquet")
    ends = history.sort_values("epoch").groupby(["method", "seed"]).last()
    for (method, seed), line in table.iterrows():
        end, plain = ends.loc[(method, seed)], ends.loc[("base", seed)]
        assert line["upload_bytes"] == end["upload_bytes"]
        both = end["upload_bytes"] + end["download_bytes"]
        assert math.isclose(line["saved"], 100 * (1 - both / (plain["upload_bytes"] + plain["download_bytes"])))
        assert math.isclose(line["at_equal_rounds"], end["val_accuracy"] - plain["val_accuracy"], abs_tol=1e-9)
    halves = table.loc["fed_half", "saved"]
    assert halves.between(49, 51).all()
    text = (folder / "tables" / "communication.md").read_text()
    assert "Δ at equal bytes" in text
    assert "Communication" in (folder / "report" / "index.html").read_text()
    drawn = {path.stem.rpartition("-")[2] for path in (folder / "figures").glob("*.pdf")}
    assert {"bytes", "transmitted", "clients"} <= drawn


def test_at_equal_bytes_the_cheaper_one_sets_what_both_may_move(finished):
    folder = view_folder(finished, "fed")
    table = pd.read_csv(folder / "tables" / "communication.csv").set_index(["method", "seed"])
    history = pd.read_parquet(folder / "history.parquet")
    history["moved"] = history["upload_bytes"] + history["download_bytes"]
    for method in ("fed_half", "scaffold"):
        own, plain = (history[(history["method"] == name) & (history["seed"] == 0)] for name in (method, "base"))
        within = min(own["moved"].max(), plain["moved"].max())
        values = [rows[rows["moved"] <= within].sort_values("epoch")["val_accuracy"].iloc[-1] for rows in (own, plain)]
        assert math.isclose(table.loc[(method, 0), "at_equal_bytes"], values[0] - values[1], abs_tol=1e-9)


def test_a_tracker_has_the_columns_of_clients(finished):
    tracked = [path for path in (finished / "csv").rglob("*.csv") if "fed_cmd" in str(path)]
    assert any("client_drift" in path.read_text() and "transmitted_fraction" in path.read_text() for path in tracked)


def test_without_a_federation_there_is_no_table_of_it(smoke):
    assert not (view_folder(smoke.results, "smoke") / "tables" / "communication.csv").exists()
    frame = pd.read_parquet(view_folder(smoke.results, "smoke") / "frame.parquet")
    assert (frame["federation"] == "none").all()
    assert frame["upload_bytes"].isna().all()


@pytest.mark.parametrize("name", ["federated", "federated_smoke"])
def test_a_suite_that_is_shown_is_the_same_plan(tmp_path, name):
    given = ("seeds=[0]", "tracker=none")
    shown = here("show", f"suite={name}", *given, results=tmp_path / "results").stdout
    (tmp_path / "own" / "suite").mkdir(parents=True)
    (tmp_path / "own" / "suite" / "again.yaml").write_text(shown)
    one, two = (
        here("plan", *words, "--details", results=tmp_path / "results").stdout.splitlines()
        for words in ((f"suite={name}", *given), ("--config-dir", tmp_path / "own", "suite=again"))
    )
    keys = [[line for line in lines if "-s0" in line] for lines in (one, two)]
    assert keys[0] == keys[1] != []


def test_an_exchange_is_tuned(finished, tmp_path):
    tune = ("tune", "suite=federated_smoke", "epochs=5", "seeds=[0]", "method=fed_cmd", "trials=2", "tracker=none")
    given = ("method.fed_cmd.warmup=2", "method.fed_cmd.search.every.high=2", "tune.parameters=[percent]")
    traindyn(*tune, *given, results=tmp_path / "results")
    (best,) = (tmp_path / "results" / "tuning").rglob("best.yaml")
    assert best.parent.name == "lenet5-digits-dirichlet_10-sgd"
    assert "percent" in best.read_text()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            ["method=[base,apf]"],
            "method.apf must run on a federation, such as federation=iid_10, got federation=none",
        ),
        (
            ["federation=iid_10", "method=[base,scaffold]"],
            "method.scaffold.optimizer must be torch.optim.SGD without momentum, got momentum 0.9",
        ),
        (
            ["federation=iid_10", "method=[base,scaffold]", "optimizer=adam"],
            "method.scaffold.optimizer must be torch.optim.SGD without momentum, got torch.optim.Adam",
        ),
        (
            [
                *("federation=iid_10", "method=[base,fed_cmd]", "method.fed_cmd.coefficients=derived"),
                "federation.iid_10.per_round=3",
            ],
            "method.fed_cmd.coefficients must be sent where 3 of 10 clients take part in a round, got 'derived'",
        ),
        (
            ["federation=iid_10", "method=[base,fed_cmd]", "method.fed_cmd.warmup=29"],
            "method.fed_cmd.warmup must be below epochs - 1 = 29, got 29",
        ),
        (
            ["federation=iid_10", "method=[base,fedpaq]", "method.fedpaq.bits=17"],
            "method.fedpaq.bits must be at most 16, got 17",
        ),
        (
            ["federation=iid_10", "method=[base,top_k]", "method.top_k.share=0"],
            "method.top_k.share must be above 0 and at most 1, got 0",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(tmp_path, given, line):
    ended = here("run", "dataset=digits", "model=test_resnet", "tracker=none", *given, results=tmp_path / "r", code=2)
    assert ended.stderr == f"error: {line}\n"
    assert not (tmp_path / "r").exists()


def test_all_methods_are_those_that_run(tmp_path):
    """Exchanges on a federation alone, other branches without one alone."""
    for federation, there, not_there in (("iid_10", "fed_cmd", "lookahead"), ("none", "lookahead", "fed_cmd")):
        given = ("dataset=digits", "model=test_resnet", "optimizer=sgd", "method=all", f"federation={federation}")
        plan = here("plan", *given, "tracker=none", results=tmp_path / "results").stdout
        (methods,) = [line for line in plan.splitlines() if line.startswith("methods: ")]
        assert there in methods.replace(",", "").split()
        assert not_there not in methods.replace(",", "").split()


def test_records_of_a_federation_say_so(finished):
    for path in finished.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        assert record["federation"] == "dirichlet_10"
        assert set(record["communication"]) >= {"upload_bytes", "download_bytes", "client_accuracy"}
