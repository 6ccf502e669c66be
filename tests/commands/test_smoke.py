"""The `smoke` suite through the command: what it leaves behind, and that a second run leaves it alone."""

import base64
import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from command import SECONDS, cell_folder, environment, here, state
from command_server import COMMAND
from offline import offline_runs

from harness import load_frame, load_history, load_model
from harness.problem.splits import load_split
from harness.report.method_styles import style_of
from harness.results.load_model import base_from_record
from harness.tracking.wandb.transaction_log import read_offline

METHODS = ["base", "base_recalibrated", "ema", "swa", "time_mean", "lawa", "cmd_online", "cmd_posthoc", "lookahead"]
COLUMNS = [
    *("model", "dataset", "optimizer", "seed", "method", "batchnorm", "status"),
    *("val_accuracy", "val_loss", "val_ece", "val_brier", "test_accuracy", "test_loss", "test_ece", "test_brier"),
    *("train_seconds", "method_seconds", "eval_seconds", "peak_memory_bytes", "epochs", "prefix_epochs"),
    *("gradients_full", "gradients_subspace", "forward_passes", "trainable_fraction", "moving", "busy"),
    *("age", "n_eff", "federation", "upload_bytes", "download_bytes"),
    *("client_accuracy", "client_accuracy_std", "client_accuracy_worst", "control", "schedule"),
    *("rate_end", "twin", "parameters", "device", "versions", "base_key", "cell_key", "run_id"),
    "param.start",  # of swa and lawa, which differ in it
]
EPOCHS = 6
BATCHES, BATCH_SIZE = 6, 64


@pytest.fixture(scope="module")
def frame(smoke):
    return pd.read_parquet(smoke.results / "suites/smoke/frame.parquet")


@pytest.fixture(scope="module")
def records(smoke, frame):
    return [json.loads((smoke.results / "cells" / key / "record.json").read_text()) for key in frame["cell_key"]]


def test_one_finished_row_per_cell(frame, smoke):
    assert list(frame.columns) == COLUMNS
    assert sorted(zip(frame["seed"], frame["method"], strict=True)) == sorted((s, m) for s in (0, 1) for m in METHODS)
    assert set(frame["status"]) == {"done"}
    assert frame["cell_key"].is_unique
    assert frame["base_key"].nunique() == 2
    pd.testing.assert_frame_equal(load_frame(smoke.results, "smoke"), frame)


def test_costs_follow_from_the_suite(frame):
    """Every cell stands for one training run of 6 epochs of 6 batches of 64 images."""
    assert set(frame["gradients_full"]) == {EPOCHS * BATCHES * BATCH_SIZE}
    assert set(frame["gradients_subspace"]) == {0}
    assert set(frame["epochs"]) == {EPOCHS}
    assert (frame["peak_memory_bytes"] > 1e7).all()
    assert (frame["train_seconds"] > 0).all()


def test_records_say_what_was_spent_where(records):
    """Epochs by the space they were in, and seconds by phase."""
    for record in records:
        cost = record["cost"]
        assert (cost["epochs_full"], cost["epochs_subspace"], cost["prefix_epochs"]) == (EPOCHS, 0, 0)
        assert cost["prefix_seconds"] == 0
        phases = ("train_seconds", "eval_seconds", "io_seconds", "track_seconds")
        assert all(cost[phase] > 0 for phase in phases), cost
        assert cost["method_seconds"] >= 0


def test_history_counts_gradients(smoke):
    history = load_history(smoke.results, "smoke")
    for _, rows in history.groupby("cell_key"):
        assert list(rows["gradients_full"]) == [epoch * BATCHES * BATCH_SIZE for epoch in rows["epoch"]]


def test_it_learns(frame):
    """Ten classes: guessing gives 10 %; after six short epochs recalibrated weights do far better."""
    assert (frame.loc[frame["method"] == "base_recalibrated", "test_accuracy"] > 40).all()


def test_history_has_every_evaluated_epoch(smoke, frame):
    history = load_history(smoke.results, "smoke")
    methods = frame.set_index("cell_key")["method"]
    assert set(history["cell_key"]) == set(methods.index)
    for key, rows in history.groupby("cell_key"):
        wanted = [EPOCHS] if methods[key] == "cmd_posthoc" else list(range(1, EPOCHS + 1))
        assert list(rows["epoch"]) == wanted
        assert list(rows.loc[rows["test_accuracy"].notna(), "epoch"]) == [EPOCHS]
        last = frame.loc[frame["cell_key"] == key].iloc[0]
        assert rows.iloc[-1]["val_loss"] == last["val_loss"]


def test_tables_show_every_method(smoke, frame):
    tables = smoke.results / "suites/smoke/tables"
    markdown, latex = ((tables / name).read_text() for name in ("main.md", "main.tex"))
    for method in METHODS:
        assert f"| {method} " in markdown
        assert f"\n{style_of(method).label} & " in latex
    rows = pd.read_csv(tables / "main.csv")
    rows = rows[rows["metric"] == "test_accuracy"].set_index("method")
    accuracy = frame.groupby("method")["test_accuracy"]
    for method in METHODS:
        assert rows.loc[method, "mean"] == pytest.approx(accuracy.mean()[method])
        assert rows.loc[method, "std"] == pytest.approx(accuracy.std(ddof=1)[method])
        assert rows.loc[method, "n"] == 2
        assert method in smoke.stdout


def test_folders(smoke, frame):
    for key in set(frame["base_key"]):
        base = smoke.results / "bases" / key
        assert (base / "base.json").is_file()
        assert (base / "history.parquet").is_file()
        assert (base / "log.txt").is_file()
        assert len(list((base / "trajectory").glob("*.safetensors"))) == EPOCHS + 1
        assert [path.name for path in (base / "restart").iterdir()] == [f"{EPOCHS:05d}.safetensors"]
    for key in frame["cell_key"]:
        cell = smoke.results / "cells" / key
        for name in ("record.json", "history.parquet", "log.txt", "weights.safetensors"):
            assert (cell / name).is_file()
        assert not list((cell / "restart").glob("*"))
    assert (smoke.results / "suites/smoke/plan.json").is_file()
    assert not list(smoke.results.rglob("*.tmp"))


def test_wandb_has_one_run_per_cell_that_equals_its_record(smoke, records):
    assert len({record["run_id"] for record in records}) == len(records)
    for record in records:
        beginning = f"test_resnet-digits-s{record['seed']}-{record['method']}"
        assert re.fullmatch(rf"{beginning}-[0-9a-f]{{8}}", record["run_id"])
        (log,) = offline_runs(smoke.results, record["run_id"])
        run = read_offline(log)
        assert run.finished
        assert run.job_type == record["method"]
        assert run.name.removeprefix(f"test_resnet-digits-sgd_momentum-s{record['seed']}-{record['method']}") == (
            {"cmd_online": "-modes=5-samples=500-warmup=3", "cmd_posthoc": "-modes=5-samples=500"}.get(
                record["method"], ""
            )
        )
        assert run.config["environment"]["git"] == record["environment"]["git"]
        assert record["base_key"][:8] in run.group
        assert {"smoke", "test_resnet", "digits", record["method"]} <= set(run.tags)
        assert run.config["cell_key"] == record["cell_key"]
        assert run.config["base"] == record["config"]["base"]
        assert run.config["method_config"] == record["config"]["method"]
        assert run.config["evaluate"] == record["config"]["evaluate"]
        expected = {**record["summary"], **record["cost"], "status": "done"}
        assert {key: run.summary[key] for key in expected} == expected
        history = pd.read_parquet(smoke.results / "cells" / record["cell_key"] / "history.parquet")
        assert run.history == [{k: v for k, v in row.items() if v == v} for row in history.to_dict("records")]
    groups = {read_offline(offline_runs(smoke.results, r["run_id"])[0]).group: r["base_key"] for r in records}
    assert len(groups) == 2
    assert len(list((smoke.results / "wandb").glob("*run-*"))) == len(records) + 1  # and the suite's


def test_a_second_run_touches_no_record(smoke_copy):
    before = state(smoke_copy, "bases/**/*", "cells/**/*", "wandb/**/*")
    again = here("run", "suite=smoke", "save=final", results=smoke_copy)
    assert state(smoke_copy, "bases/**/*", "cells/**/*", "wandb/**/*") == before
    assert "18 left" not in again.stdout
    assert "images/s" not in again.stdout


def test_plan_and_a_finished_run_read_no_tensor(smoke_copy):
    """Tensors that are all empty go unnoticed."""
    for path in smoke_copy.rglob("*.safetensors"):
        path.write_bytes(b"")
    before = state(smoke_copy, "bases/**/*", "cells/**/*")
    planned = here("plan", "suite=smoke", results=smoke_copy)
    assert "18 done" in planned.stdout
    assert "set aside" not in here("run", "suite=smoke", results=smoke_copy).stdout
    assert state(smoke_copy, "bases/**/*", "cells/**/*") == before


def test_plan_writes_nothing_and_counts_what_is_left(tmp_path):
    planned = here("plan", "suite=smoke", results=tmp_path / "results")
    assert "2 bases, 18 cells: 18 left" in planned.stdout
    # each base trains 6 epochs, and so does each lookahead
    assert "12 of bases, 12 of branches" in planned.stdout
    assert not (tmp_path / "results").exists()


def test_report_rebuilds_the_views(smoke_copy, frame):
    for path in (smoke_copy / "suites/smoke").glob("*.parquet"):
        path.unlink()
    here("report", "suite=smoke", "figures=none", results=smoke_copy)
    pd.testing.assert_frame_equal(pd.read_parquet(smoke_copy / "suites/smoke/frame.parquet"), frame)


def test_report_compares_on_one_budget(smoke_copy, frame):
    """Half of what the base took: everyone stands at the middle epoch, but for the reconstruction of the last one."""
    budget = EPOCHS * BATCHES * BATCH_SIZE // 2
    done = here("report", "suite=smoke", "figures=none", f"tables.budget={budget}", results=smoke_copy)
    assert f"{budget:,} gradient evaluations" in done.stdout
    table = pd.read_csv(smoke_copy / "suites/smoke/tables/budget.csv")
    assert len(table) == len(frame)
    watching = table["method"] != "cmd_posthoc"
    assert set(table.loc[watching, "epoch"]) == {EPOCHS // 2}
    assert table.loc[~watching, "epoch"].isna().all()


@pytest.mark.parametrize("method", ["base", "cmd_posthoc", "lookahead"])
def test_load_model_gives_the_model_that_was_tested(smoke, method):
    folder = cell_folder(smoke.results, "smoke", method)
    record = json.loads((folder / "record.json").read_text())
    model = load_model(smoke.results, folder.name)
    images = load_split(base_from_record(record).dataset, "test")
    with torch.no_grad():
        scores_BC = model((images.images_B.float() / 255 - images.mean[0]) / images.std[0])
    accuracy = 100 * (scores_BC.argmax(1) == images.labels_B).double().mean().item()
    # other batches round differently: one image in 360 may tip over
    assert accuracy == pytest.approx(record["summary"]["test_accuracy"], abs=100 / 360 + 1e-9)


def test_every_record_holds_the_test_images_that_were_right(smoke):
    records = [json.loads(path.read_text()) for path in smoke.results.glob("cells/*/record.json")]
    assert len(records) == 18
    for record in records:
        held = record["test_correct"]
        right = np.unpackbits(np.frombuffer(base64.b64decode(held["bits"]), np.uint8), count=held["images"])
        assert 100 * right.mean() == pytest.approx(record["summary"]["test_accuracy"])
        assert 0 < record["cost"]["moving"] <= 1


def imported(*arguments, **variables):
    """Top-level packages that the command imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(COMMAND), *arguments],
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["list", "methods", "models", "views"]])
def test_help_and_lists_import_no_torch(arguments):
    packages = imported(*arguments)
    assert "argparse" in packages
    assert not packages & {"torch", "timm", "wandb", "pandas", "hydra"}


def test_completion_imports_no_torch_and_knows_the_suites(tmp_path):
    line = "traindyn run suite=sm"
    variables = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "completions"),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": str(ord("\t")),
    }
    packages = imported(**variables)
    assert not packages & {"torch", "timm", "wandb", "pandas", "hydra"}
    assert "smoke" in (tmp_path / "completions").read_text()
    assert os.path.getsize(tmp_path / "completions") < 200
