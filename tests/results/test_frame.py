"""The frame of a suite: one row per cell of the plan, from records in a temporary results folder."""

import hashlib
import json
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from command import here, state

from harness.config import ConfigError
from harness.report.views import write_views
from harness.report.warnings import warnings
from harness.results.columns import ADDED, FRAME_COLUMNS
from harness.results.frame import (
    build_frame,
    build_history,
    load_frame,
    load_history,
    validate,
)
from harness.storage.files import write_json
from harness.storage.store import Store
from harness.storage.views import read_plan

COST = {
    "train_seconds": 6.0,
    "method_seconds": 0.5,
    "eval_seconds": 1.0,
    "peak_memory_bytes": 1 << 30,
    "epochs": 2,
    "prefix_epochs": 0,
    "gradients_full": 20,
    "gradients_subspace": 0,
    "forward_passes": 20,
    "trainable_fraction": 1.0,
}


def cell(method, seed, model="net"):
    return {
        "cell_key": f"{model}-{method}-{seed}",
        "base_key": f"{model}-{seed}",
        "model": model,
        "dataset": "digits",
        "optimizer": "sgd",
        "seed": seed,
        "method": method,
        "kind": "observer",
        "batchnorm": "recalibrate",
        "parameters": {"window": 5, "beta": 0.9},
    }


def finish(store, planned, accuracy=90.0, status="done", rows=(), **changes):
    done = status == "done"
    numbers = {"val_accuracy": accuracy + 1, "val_loss": 0.3, "test_accuracy": accuracy, "test_loss": 0.4}
    record = {
        **planned,
        "status": status,
        "reason": None if done else "NaN loss",
        "traceback": None,
        "config": {},
        "summary": numbers if done else {},
        "cost": COST if done else {},
        "device": "cpu",
        "threads": 1,
        "versions": {"torch": "2.14.0"},
        "sources": {},
        "run_id": f"run-{planned['cell_key']}",
    }
    store.write_record({**record, **changes}, list(rows))


def write_plan(store, cells, suite="quick", created="monday"):
    plan = {"schema": 1, "suite": suite, "command": "run", "created": created, "config": {}, "cells": cells}
    write_json(store.suite_folder(suite) / "plan.json", plan)
    return plan


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_one_row_per_planned_cell_in_plan_order_with_the_contracts_columns(store):
    cells = [cell("swa", 1), cell("base", 0), cell("swa", 0)]
    finish(store, cells[1])
    finish(store, cells[0], status="diverged")
    finish(store, cell("ema", 0))  # of another suite
    frame = build_frame(store, write_plan(store, cells))
    assert " ".join(frame.columns) == (
        "model dataset optimizer seed method batchnorm status val_accuracy val_loss val_ece val_brier test_accuracy "
        "test_loss test_ece test_brier train_seconds method_seconds eval_seconds peak_memory_bytes epochs "
        "prefix_epochs gradients_full gradients_subspace forward_passes trainable_fraction moving busy age n_eff "
        "federation upload_bytes download_bytes client_accuracy client_accuracy_std client_accuracy_worst "
        "control schedule rate_end twin parameters device versions base_key cell_key run_id"
    )
    assert list(frame["cell_key"]) == ["net-swa-1", "net-base-0", "net-swa-0"]
    assert list(frame["status"]) == ["diverged", "done", "left"]
    assert frame.dtypes.astype(str).to_dict() == FRAME_COLUMNS


def test_age_and_number_are_the_records_or_the_last_of_an_earlier_history(store):
    """A record of before kernels were taken has them in its history, where its method said them every epoch."""
    cells = [cell("swa", seed) for seed in range(3)]
    finish(store, cells[0], kernel={"age": 2.5, "n_eff": 6.0})
    history = [{"epoch": t, "kernel_age": float(t), "kernel_n_eff": 2.0 * t} for t in (1, 2, 3)]
    finish(store, cells[1], rows=history)
    finish(store, cells[2])
    frame = build_frame(store, write_plan(store, cells))
    assert frame["age"].tolist()[:2] == [2.5, 3.0]
    assert frame["n_eff"].tolist()[:2] == [6.0, 6.0]
    assert frame.loc[2, ["age", "n_eff"]].isna().all()


def test_a_row_holds_its_records_numbers_and_a_left_cell_holds_none(store):
    cells = [cell("base", 0), cell("swa", 0)]
    finish(store, cells[0], accuracy=87.25)
    done, left = build_frame(store, write_plan(store, cells)).to_dict("records")
    assert (done["test_accuracy"], done["val_accuracy"]) == (87.25, 88.25)
    assert {name: done[name] for name in COST} == COST
    assert done["parameters"] == '{"beta": 0.9, "window": 5}'
    assert json.loads(done["versions"]) == {"torch": "2.14.0"}
    assert done["run_id"] == "run-net-base-0"
    assert all(math.isnan(left[name]) for name in ("val_loss", "test_accuracy", *COST))
    assert pd.isna(left["run_id"])
    assert left["parameters"] == done["parameters"]


def test_a_corrupt_record_counts_as_left_and_costs_no_other_row(store):
    cells = [cell("base", 0), cell("swa", 0)]
    for planned in cells:
        finish(store, planned)
    (store.cell_folder("net-base-0") / "record.json").write_text("{")
    assert list(build_frame(store, write_plan(store, cells))["status"]) == ["left", "done"]


def test_history_joins_all_metric_columns_in_plan_order(store):
    cells = [cell("swa", 0), cell("base", 0), cell("ema", 0)]
    finish(store, cells[1], rows=[{"epoch": 1, "val_accuracy": 50.0}, {"epoch": 2, "val_accuracy": 60.0}])
    finish(store, cells[0], rows=[{"epoch": 2, "val_accuracy": 70.0, "rho": 0.5}])
    history = build_history(store, write_plan(store, cells))
    assert list(history.columns[:2]) == ["cell_key", "epoch"]
    assert set(history.columns[2:]) == {"val_accuracy", "rho"}
    assert list(zip(history["cell_key"], history["epoch"], strict=True)) == [
        ("net-swa-0", 2),
        ("net-base-0", 1),
        ("net-base-0", 2),
    ]
    assert list(history["val_accuracy"]) == [70.0, 50.0, 60.0]
    assert list(history["rho"].isna()) == [False, True, True]


def test_a_plan_without_any_record_gives_an_empty_history_and_writable_views(store):
    write_plan(store, [cell("base", 0), cell("swa", 0)])
    frame = write_views(store, "quick")
    assert list(frame["status"]) == ["left", "left"]
    labels = ["model", "dataset", "optimizer", "method", "seed"]
    assert list(load_history(store.root).columns) == ["cell_key", *labels, "epoch"]


def test_views_hold_what_the_records_say_and_load_without_them(store, tmp_path_factory):
    cells = [cell("base", 0), cell("swa", 0)]
    for planned in cells:
        finish(store, planned, rows=[{"epoch": 1, "val_accuracy": 50.0}])
    plan = write_plan(store, cells)
    views = write_views(store, "quick")
    folder = store.suite_folder("quick")
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "frame.parquet"), build_frame(store, plan))
    assert {"main.md", "main.csv", "main.tex", "summary.csv", "cost.md"} <= {
        p.name for p in (folder / "tables").iterdir()
    }
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (store.root / "suites").rename(elsewhere / "suites")
    pd.testing.assert_frame_equal(load_frame(elsewhere, "quick"), views)
    assert len(load_history(elsewhere, "quick")) == 2


def test_a_view_of_an_earlier_version_is_read_without_the_columns_added_since(store, tmp_path_factory):
    """With records it is built anew from them; alone it has what it had, and the report's new columns are unknown."""
    finish(store, cell("base", 0), cost={**COST, "moving": 0.5})
    write_plan(store, [cell("base", 0)])
    write_views(store, "quick")
    view = store.suite_folder("quick") / "frame.parquet"
    earlier = pd.read_parquet(view).drop(columns=list(ADDED))
    earlier.to_parquet(view, index=False)
    assert load_frame(store.root)["moving"].tolist() == [0.5]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (store.root / "suites").rename(elsewhere / "suites")
    found = load_frame(elsewhere, "quick")
    assert found["test_accuracy"].tolist() == [90.0]
    assert found["federation"].tolist() == ["none"]
    assert found[[name for name in ADDED if name != "federation"]].isna().all(axis=None)


def test_views_are_written_where_a_record_or_the_plan_changed_or_one_is_gone(store):
    planned = cell("base", 0)
    folder = store.suite_folder("quick")
    finish(store, planned, accuracy=81.0)
    write_plan(store, [planned])
    write_views(store, "quick")
    written = state(folder)
    assert list(write_views(store, "quick")["test_accuracy"]) == [81.0]
    assert state(folder) == written
    (folder / "tables" / "summary.csv").unlink()
    write_views(store, "quick")
    assert (folder / "tables" / "summary.csv").exists()
    finish(store, planned, accuracy=82.0)
    write_views(store, "quick")
    assert "82.00" in (folder / "tables" / "main.md").read_text()
    written = state(folder, "frame.parquet")
    write_plan(store, [planned], created="tuesday")  # the same command once more
    write_views(store, "quick")
    assert state(folder, "frame.parquet") == written
    write_plan(store, [planned | {"control": None}])
    write_views(store, "quick")
    assert state(folder, "frame.parquet") != written


def test_a_cell_whose_base_has_other_weights_since_is_stale_and_without_numbers(store):
    """In table and differences it would stand beside cells of the new weights. Where no base is known nothing is."""
    old, new, alone = cell("swa", 0), cell("base", 0), cell("ema", 1)
    before, after = [f"{digit}" * 64 for digit in "ab"]
    for planned, made_of in ((old, before), (new, after), (alone, before)):
        finish(store, planned, base_digest=[made_of], rows=[{"epoch": 1, "val_loss": 0.3}])
    base = {"base_key": old["base_key"], "status": "done"}
    store.write_base({**base, "digests": ["c" * 64, before]}, [], store.base_folder(old["base_key"]))
    assert build_frame(store, write_plan(store, [old]))["status"].tolist() == ["done"]
    store.write_base({**base, "digests": ["c" * 64, after]}, [], store.base_folder(old["base_key"]))
    write_plan(store, [old, new, alone])
    frame = write_views(store, "quick")
    assert frame["status"].tolist() == ["stale", "done", "done"]
    assert frame["test_accuracy"].isna().tolist() == [True, False, False]
    assert old["cell_key"] not in set(load_history(store.root)["cell_key"])
    assert any("stale" in line and "redo=stale" in line for line in warnings(frame, store.root))


def test_a_view_whose_digest_is_that_of_an_earlier_version_is_read(store, tmp_path_factory):
    """It was of the whole plan, the time and the command that made it among it."""
    finish(store, cell("base", 0), accuracy=81.0)
    plan = write_plan(store, [cell("base", 0)])
    write_views(store, "quick")
    view = store.suite_folder("quick") / "frame.parquet"
    earlier = pd.read_parquet(view)
    earlier.attrs["plan"] = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
    earlier.to_parquet(view, index=False)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (store.root / "suites").rename(elsewhere / "suites")
    assert list(load_frame(elsewhere, "quick")["test_accuracy"]) == [81.0]


def test_loading_prefers_records_to_views_of_an_older_plan_or_of_unfinished_cells(store):
    cells = [cell("base", 0), cell("swa", 0)]
    finish(store, cells[0])
    write_plan(store, cells)
    write_views(store, "quick")
    finish(store, cells[1])
    assert list(load_frame(store.root)["status"]) == ["done", "done"]
    write_views(store, "quick")
    write_plan(store, [*cells, cell("ema", 0)], created="tuesday")
    assert list(load_frame(store.root)["status"]) == ["done", "done", "left"]


def test_a_damaged_view_is_rebuilt_from_the_records(store):
    finish(store, cell("base", 0), accuracy=81.0)
    write_plan(store, [cell("base", 0)])
    write_views(store, "quick")
    view = store.suite_folder("quick") / "frame.parquet"
    view.write_bytes(view.read_bytes()[:100])
    assert list(load_frame(store.root)["test_accuracy"]) == [81.0]


def test_parameters_that_differ_between_cells_are_columns(store):
    """Of those that have them; numbers stay numbers, and all else is text."""
    cells = [cell("base", 0) | {"parameters": {}}, cell("swa", 0), cell("swa", 1), cell("ema", 0)]
    cells[1]["parameters"] = {"window": 5, "beta": None, "same": 1, "rule": "chain", "on": True}
    cells[2]["parameters"] = {"window": 7, "beta": 0.5, "same": 1, "rule": "first", "on": False}
    cells[3]["parameters"] = {"same": 1}
    frame = build_frame(store, write_plan(store, cells))
    assert [*frame.columns[len(FRAME_COLUMNS) :]] == ["param.beta", "param.on", "param.rule", "param.window"]
    assert frame["param.window"].dtype == "float64"
    assert frame["param.window"].tolist()[1:3] == [5.0, 7.0]
    assert frame["param.window"].isna().tolist() == [True, False, False, True]
    assert frame["param.beta"].tolist()[2] == 0.5
    assert frame["param.on"].tolist()[1:3] == ["true", "false"]
    assert frame["param.rule"].tolist()[1:3] == ["chain", "first"]
    validate(frame)


def test_an_unknown_view_names_those_that_exist_on_one_line(store):
    with pytest.raises(ConfigError, match="holds none"):
        load_frame(store.root, "quick")
    write_plan(store, [], suite="smoke")
    write_plan(store, [], suite="quick")
    with pytest.raises(ConfigError, match="got 'quik'; nearest: quick") as caught:
        read_plan(store.root, "quik")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="one of: quick, smoke"):
        read_plan(store.root, "paper")


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": 99, "cells": []}'])
def test_an_unreadable_plan_is_one_line_naming_the_file(store, content):
    write_plan(store, [])
    (store.suite_folder("quick") / "plan.json").write_text(content)
    with pytest.raises(ConfigError, match=r"plan\.json must") as caught:
        read_plan(store.root, "quick")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.drop(columns="test_loss"), "test_loss"),
        (lambda f: f[[*f.columns[1:], f.columns[0]]], "order"),
        (lambda f: f.astype({"seed": "float64"}), "frame.seed must be of dtype int64, got float64"),
        (lambda f: f.assign(cell_key="same"), "must not repeat, got same twice"),
        (lambda f: f.assign(status="old"), "got 'old' in cell net-base-0"),
        (lambda f: f.assign(test_accuracy=100.5), "within 0..100 percent, got 100.5"),
        (lambda f: f.assign(val_accuracy=-0.1), "val_accuracy must be within"),
    ],
)
def test_validation_names_what_is_wrong(store, spoil, message):
    cells = [cell("base", 0), cell("swa", 0)]
    frame = build_frame(store, write_plan(store, cells))
    validate(frame)
    with pytest.raises(ValueError, match=message.replace(".", r"\.")) as caught:
        validate(spoil(frame))
    assert "\n" not in str(caught.value)


def test_no_warnings_where_all_seeds_are_done_alike(store):
    cells = [cell(method, seed) for seed in (0, 1) for method in ("base", "swa")]
    for planned in cells:
        finish(store, planned)
    assert warnings(build_frame(store, write_plan(store, cells))) == []


def test_warnings_name_missing_seeds_mixtures_and_cells_that_did_not_finish(store):
    cells = [cell(method, seed) for seed in (0, 1) for method in ("base", "swa", "ema", "lawa")]
    for planned in cells:
        match planned["method"], planned["seed"]:
            case "lawa", 1:
                finish(store, planned, status="failed")
            case "swa" | "ema", 1:
                continue
            case "base", 1:
                finish(store, planned, device="cuda", versions={"torch": "2.11.0"})
            case _:
                finish(store, planned)
    assert warnings(build_frame(store, write_plan(store, cells))) == [
        "partial: 2 left, 1 failed of 8 cells",
        "missing: net digits sgd: seeds 1 of swa, ema",
        "mixed: device: cpu (4 cells), cuda (1 cells) (column device of the frame)",
        "mixed: torch version: 2.14.0 (4 cells), 2.11.0 (1 cells) (column versions of the frame)",
        "failed: net digits sgd seed 1: lawa: NaN loss",
    ]


def test_cells_that_failed_are_named_with_reason_line_of_code_and_log_once_where_these_are_the_same(store):
    """Also by a frame that was stored; a record of an earlier version has no line and no log."""
    cells = [cell(method, 0) for method in ("base", "swa", "ema", "lawa")]
    lost = {"where": "mine.py:3 in observe: crash()", "log": "bases/net-0/log.txt"}
    for planned in cells[:3]:
        finish(store, planned, status="failed", reason="process ended with SIGSEGV", **lost)
    finish(store, cells[3], status="failed")
    write_plan(store, cells)
    write_views(store, "quick")
    failed = "failed: net digits sgd seed 0:"
    reason = f"{failed} base, swa, ema: process ended with SIGSEGV; at mine.py:3 in observe: crash()"
    assert warnings(load_frame(store.root, "quick")) == [
        "partial: 4 failed of 4 cells",
        f"{reason}; log: bases/net-0/log.txt", f"{failed} lawa: NaN loss",
    ]  # fmt: skip
    _, named, _ = warnings(load_frame(store.root, "quick"), store.root)
    assert named.endswith(f"; log: {store.root / 'bases/net-0/log.txt'}")


def test_mixed_thread_counts_are_named_also_by_a_frame_that_was_stored(store):
    cells = [cell("base", seed) for seed in (0, 1, 2)]
    for planned, threads in zip(cells, (1, 2, 1), strict=True):
        finish(store, planned, threads=threads)
    plan = write_plan(store, cells)
    write_views(store, "quick")
    counted = "mixed: threads, between which sums in float32 differ: 1 (2 cells), 2 (1 cells)"
    line = f"{counted} (threads in the cells' record.json)"
    assert warnings(build_frame(store, plan)) == [line]
    assert warnings(load_frame(store.root, "quick")) == [line]


def test_weights_without_gradients_and_busy_machines_are_named(store):
    cells = [cell(method, seed) for seed in (0, 1) for method in ("base", "swa")]
    for planned, busy in zip(cells, (0.1, 0.6, None, 0.2), strict=True):
        load = {"machine": {"cores": 2, "load": {"cores": 2, "busy": busy}}}
        finish(store, planned, cost={**COST, "moving": 0.556}, **load)
    frame = build_frame(store, write_plan(store, cells))
    assert frame["busy"].tolist() == pytest.approx([0.1, 0.6, math.nan, 0.2], nan_ok=True)
    assert warnings(frame) == [
        "unmoved: 44 % of the weights of net digits sgd never had a gradient: methods that model, freeze or embed "
        "weights are told apart by the others alone (column moving of the frame)",
        "busy: 1 of 4 cells ran while other processes had more than 20 % of the cores (up to 60 %): their seconds are "
        "marked †; compare gradients instead (column busy of the frame)",
    ]


def test_what_a_suite_tests_is_read_from_its_plan(store):
    planned = {**cell("swa", 0), "control": "ema", "schedule": "constant", "rate_end": 1.0, "twin": "sgd_cosine"}
    finish(store, planned)
    plan = write_plan(store, [planned, cell("base", 0)])
    frame = build_frame(store, plan | {"primary": [{"method": "swa", "control": "ema"}], "margin": 0.3})
    assert (frame.attrs["primary"], frame.attrs["margin"]) == ([["swa", "ema"]], 0.3)
    names = ["control", "schedule", "rate_end", "twin"]
    assert frame.loc[0, names].tolist() == ["ema", "constant", 1.0, "sgd_cosine"]
    assert frame.loc[1, names].isna().all()
    before = build_frame(store, plan)
    assert (before.attrs["primary"], before.attrs["margin"]) == ([], 0.5)


@pytest.mark.parametrize(
    ("entry", "bound"),
    [
        ({"primary": ["swa"]}, r"plan.primary must be a list of methods with their control, got \['swa'\]"),
        ({"primary": [{"method": "swa"}]}, "plan.primary must be"),
        ({"primary": {"method": "swa", "control": "ema"}}, "plan.primary must be"),
        ({"margin": 0}, "plan.margin must be above 0 points, got 0"),
        ({"margin": "half"}, "got 'half'"),
        ({"margin": None}, "got None"),
        ({"margin": math.nan}, "got nan"),
    ],
)
def test_a_plan_that_names_its_tests_wrongly_is_one_line(store, entry, bound):
    with pytest.raises(ConfigError, match=f"{bound}.*; the run of quick writes it anew") as caught:
        build_frame(store, write_plan(store, [cell("swa", 0)]) | entry)
    assert "\n" not in str(caught.value)


def test_a_plan_that_does_not_say_kinds_is_named(store):
    planned = cell("base", 0)
    finish(store, planned)
    del planned["kind"]
    (line,) = warnings(build_frame(store, write_plan(store, [planned])))
    assert line.startswith("plan: written by an older version")


def test_a_cell_that_stands_twice_in_a_plan_is_one_line_of_the_command(store):
    write_plan(store, [cell("base", 0), cell("base", 0)])
    done = here("report", "suite=quick", results=store.root, code=2)
    assert done.stderr == "error: frame.cell_key must not repeat, got net-base-0 twice\n"


def test_a_diverged_cell_and_one_without_a_number_are_named_and_averaged_with_nothing(store):
    """Seed 1 of swa diverged and seed 2 ended with a NaN: its mean is seed 0's alone, and says so."""
    cells = [cell(method, seed) for method in ("base_recalibrated", "swa") for seed in (0, 1, 2)]
    for planned in cells:
        match planned["method"], planned["seed"]:
            case "swa", 1:
                finish(store, planned, status="diverged")
            case "swa", 2:
                finish(store, planned, summary={"val_accuracy": 50.0, "test_accuracy": math.nan})
            case _:
                finish(store, planned, accuracy=90.0 + planned["seed"])
    write_plan(store, cells)
    done = here("report", "suite=quick", "figures=none", results=store.root)
    assert "diverged: net digits sgd seed 1: swa: NaN loss\n" in done.stdout
    tables = store.suite_folder("quick") / "tables"
    (line,) = [line for line in (tables / "main.md").read_text().splitlines() if line.startswith("| swa")]
    assert "90.00 (n=1)" in line
    summary = pd.read_csv(tables / "summary.csv").set_index("method")
    assert summary.loc["swa", ["n_to_base_recalibrated", "mean_to_base_recalibrated"]].tolist() == [1, 0.0]
    assert summary.loc["swa", "verdict_to_base_recalibrated"] == "no test: fewer than 3 seeds"


def test_two_bases_of_one_seed_in_a_row_are_warned_about(store):
    cells = [cell("base", 0), {**cell("base", 0), "cell_key": "longer", "base_key": "net-0-longer"}]
    for planned in cells:
        finish(store, planned)
    (line,) = warnings(build_frame(store, write_plan(store, cells)))
    assert line.startswith("pooled: net digits sgd")


def test_non_finite_numbers_of_a_record_survive(store):
    finish(store, cell("base", 0), summary={"val_accuracy": 10.0, "val_loss": math.inf, "test_accuracy": 9.0})
    frame = build_frame(store, write_plan(store, [cell("base", 0)]))
    assert frame["val_loss"].iloc[0] == math.inf
    assert np.isnan(frame["test_loss"].iloc[0])


def test_frames_are_read_without_what_trains_or_resolves_configurations():
    """Importing the public functions costs little more than pandas does."""
    script = "import sys; from harness import load_frame; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "pandas" in loaded
    assert not {"torch", "timm", "wandb", "hydra", "pydantic", "matplotlib"} & set(loaded)
