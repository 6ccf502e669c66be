"""Methods that come later, go wrong, or are edited: bases are trained once, and only what must be is run again."""

import json
import shutil

import pandas as pd
import pytest
from command import (
    LATEST,
    OWN,
    RUN_ONLY,
    assert_same,
    base_folder,
    cell_folder,
    curves,
    here,
    numbers,
    state,
    traindyn,
    view_folder,
)

SMALL = ("model=test_resnet", "dataset=digits", "epochs=4", "batches_per_epoch=2", "tracker=none")
BASE_FILES = ("bases/*/base.json", "bases/*/history.parquet", "bases/*/trajectory/*", "bases/*/restart/*")


def record(results, view, method, seed=0):
    return json.loads((cell_folder(results, view, method, seed) / "record.json").read_text())


def statuses(results, view):
    """Statuses by method, those of controls that were added aside."""
    frame = pd.read_parquet(view_folder(results, view) / "frame.parquet")
    frame = frame[~frame["method"].isin(["base_recalibrated", "time_mean"])]
    return dict(zip(frame["method"], frame["status"], strict=True))


def snapshots(results, view):
    return sorted(int(path.stem) for path in (base_folder(results, view) / "trajectory").glob("*.safetensors"))


def changed(before, after):
    """Cells whose record was written between two states."""
    return {path.split("/")[1] for path in after if path.endswith("record.json") and after[path] != before.get(path)}


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """The smoke suite's first base with its brancher alone, then a suite of one's own that adds all other methods."""
    folder = tmp_path_factory.mktemp("second")
    (folder / "suite").mkdir()
    (folder / "suite/watchers.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n"
        "  - override /method: [base, base_recalibrated, ema, swa, time_mean, lawa, cmd_online, cmd_posthoc]\n"
        "seeds: [0]\nepochs: 6\nbatch_size: 64\nbatches_per_epoch: 6\n"
        "evaluate: {recalibrate_images: 256}\n"
        "method:\n"
        "  cmd_online: {modes: 5, samples: 500, warmup: 3}\n"
        "  cmd_posthoc: {modes: 5, samples: 500, control: time_mean}\n"
    )
    results = folder / "results"
    here("run", "suite=smoke", "seeds=[0]", "method=[base,lookahead]", "tracker=none", results=results)
    before = state(results, *BASE_FILES)
    own = f"--config-dir={folder}"
    planned = here("plan", own, "suite=watchers", results=results)
    run = here("run", own, "suite=watchers", "tracker.mode=offline", results=results)
    return results, before, planned.stdout, run.stdout


def test_a_second_suite_trains_no_base_again(second):
    results, before, planned, _ = second
    assert state(results, *BASE_FILES) == before
    assert "epochs to train: 6 in shadow runs of 1 base for ema, which watches optimizer steps" in planned


def test_plan_says_what_a_step_cadence_method_costs(second):
    """ema watches optimizer steps, which no snapshot holds: the base's 6 epochs run again for it alone."""
    planned = second[2]
    assert "6 in shadow runs of 1 base for ema, which" in planned
    assert "2 done, 6 left" in planned


def test_replay_and_shadow_give_the_numbers_of_a_live_run(second, smoke):
    results = second[0]
    got = numbers(results, "watchers")
    assert len(got) == 8
    assert_same(numbers(smoke.results, "smoke").loc[got.index], got)
    late, live = curves(results, "watchers"), curves(smoke.results, "smoke")
    assert_same(live.loc[live.index.get_level_values("cell_key").isin(got.index)], late)


def test_a_repeated_base_has_the_threads_of_its_record(tmp_path):
    """The sums in float32 of another number of threads would be refused."""
    here("run", *SMALL, "method=[base]", "engine.threads=2", results=tmp_path)
    again = here("run", *SMALL, "method=[base,ema]", "engine.threads=1", results=tmp_path)
    assert "repeats its base with engine.threads=2, as it was recorded" in again.stdout
    assert set(statuses(tmp_path, LATEST).values()) == {"done"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Results of one plan under keep=none and keep=warmup, by that word."""
    folder = tmp_path_factory.mktemp("kept")
    few = "method=[base,cmd_online]"
    values = ("method.cmd_online.warmup=2", "method.cmd_online.samples=50", "method.cmd_online.modes=3")
    here("run", *SMALL, few, *values, "trajectory.keep=none", results=folder / "none")
    here("run", *SMALL, "method=[base,cmd_online,swa]", *values, "trajectory.keep=warmup", results=folder / "warmup")
    return folder


def test_keep_none_leaves_no_snapshot(kept):
    assert snapshots(kept / "none", LATEST) == []
    assert set(statuses(kept / "none", LATEST).values()) == {"done"}


def test_tracker_none_writes_nothing_for_wandb(kept):
    assert not (kept / "none/wandb").exists()


def test_keep_warmup_leaves_what_online_cmd_read(kept):
    """With a warm-up of F = 2 modes are fixed after epoch F + 1 = 3 of 4; w(0) belongs to every trajectory."""
    assert snapshots(kept / "warmup", LATEST) == [0, 1, 2, 3]


def test_keeping_less_changes_no_number(kept):
    alone = numbers(kept / "none", LATEST)
    assert_same(numbers(kept / "warmup", LATEST).loc[alone.index], alone)


def test_an_observer_added_without_snapshots_runs_in_a_shadow(kept, tmp_path):
    results = shutil.copytree(kept / "none", tmp_path / "results")
    before = state(results, "bases/*/base.json", "bases/*/history.parquet", "bases/*/restart/*")
    here("run", *SMALL, "method=[base,swa]", "trajectory.keep=none", results=results)
    assert state(results, "bases/*/base.json", "bases/*/history.parquet", "bases/*/restart/*") == before
    assert snapshots(results, LATEST) == []
    got = numbers(results, LATEST)
    assert_same(numbers(kept / "warmup", LATEST).loc[got.index], got)


@pytest.mark.parametrize(("keep", "finished_first"), [("none", True), ("all", False)])
def test_snapshots_that_will_go_are_not_piled_up(tmp_path, keep, finished_first):
    """One job at a time: with keep=none the first base's branch ends before the second base begins."""
    results = tmp_path / "results"
    branch = ("method=[base,p_sgd]", "method.p_sgd.warmup=2", "method.p_sgd.dimensions=1", "method.p_sgd.epochs=1")
    values = ("seeds=[0,1]", "engine.workers=1", f"trajectory.keep={keep}")
    here("run", *SMALL, *branch, *values, results=results)
    branched = cell_folder(results, LATEST, "p_sgd", 0) / "record.json"
    second = base_folder(results, LATEST, 1) / "base.json"
    assert (branched.stat().st_mtime_ns < second.stat().st_mtime_ns) == finished_first


OWN_METHODS = "method=[base,swa,last_weights,raises]"
OWN_RUN = ("run", "epochs=3", "batches_per_epoch=2", "dataset=digits", OWN_METHODS)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A run through the command in which one method of four raises."""
    results = tmp_path_factory.mktemp("broken") / "results"
    return results, traindyn(*OWN_RUN, "--config-dir", OWN, results=results, code=1)


def test_a_method_that_raises_ends_its_own_cell_only(broken):
    results, done = broken
    assert statuses(results, LATEST) == {"base": "done", "swa": "done", "last_weights": "done", "raises": "failed"}
    found = record(results, LATEST, "raises")
    assert found["reason"] == "RuntimeError: nothing works at t = 2"
    assert "ends_badly.py" in found["traceback"]
    code = 'raise RuntimeError(f"nothing works at t = {snapshot.t}")'
    number = 1 + [line.strip() for line in (OWN / "ends_badly.py").read_text().splitlines()].index(code)
    assert found["where"].endswith(f"ends_badly.py:{number} in observe: {code}")
    live = done.stdout.index("raises: failed")
    for text in (found["reason"], found["where"], found["log"]):  # at once, and below the table
        assert live < done.stdout.index(text) < done.stdout.rindex(text)
    assert [line for line in done.stdout.splitlines() if "raises" in line and "failed" in line]
    assert "Traceback" not in done.stdout + done.stderr


def test_logs_say_what_was_run_with_what_and_how_it_went_on_and_ended(broken):
    results = broken[0]
    base = base_folder(results, LATEST) / "log.txt"
    logs = {name: cell_folder(results, LATEST, name) / "log.txt" for name in ("base", "swa", "raises")}
    texts = {name: path.read_text().splitlines() for name, path in {**logs, "trained": base}.items()}
    for lines in texts.values():
        header = "\n".join(lines[:18])
        versions = record(results, LATEST, "swa")["versions"]
        said = ["traindyn run epochs=3", "test_resnet", "digits", "sgd_momentum", "git of folder", "git of harness"]
        assert all(text in header for text in (*said, f"torch {versions['torch']}", f"timm {versions['timm']}"))
    history = pd.read_parquet(logs["base"].with_name("history.parquet"))
    for name in ("base", "trained"):
        epochs = [line for line in texts[name] if " epoch " in line]
        assert len(epochs) == 3
        for line, row in zip(epochs, history.to_dict("records"), strict=True):
            assert f"val_loss={row['val_loss']:.5g} val_accuracy={row['val_accuracy']:.5g} " in line
            assert f" lr={row['lr']:.5g}" in line
            assert "images/s" in line
    assert " done: " in texts["trained"][-1]
    assert f"test_accuracy={history['test_accuracy'].iloc[-1]:.5g} " in texts["base"][-1]
    failed = record(results, LATEST, "raises")
    assert any(line.endswith(f"failed: {failed['reason']}") for line in texts["raises"])
    assert any(failed["where"] in line for line in texts["raises"])


def test_own_method_that_proposes_the_bases_weights_equals_the_control(broken, tmp_path):
    """Scale 1: the recalibrated base under another name."""
    results = shutil.copytree(broken[0], tmp_path / "results")
    here(*OWN_RUN[:-1], "method=[base,base_recalibrated]", "tracker=none", results=results)
    control = record(results, LATEST, "base_recalibrated")["summary"]
    assert record(broken[0], LATEST, "last_weights")["summary"] == control


def test_without_redo_a_failed_cell_stays(broken, tmp_path):
    results = shutil.copytree(broken[0], tmp_path / "results")
    before = state(results, "cells/**/*", "bases/**/*")
    again = here(*OWN_RUN, "--config-dir", OWN, results=results, code=1)
    assert state(results, "cells/**/*", "bases/**/*") == before
    assert "raises" in again.stdout


@pytest.mark.parametrize(("redo", "method"), [("failed", "raises"), ("last_weights", "last_weights")])
def test_redo_runs_exactly_what_it_names(broken, tmp_path, redo, method):
    """A redone cell goes to a new W&B run, since W&B's history only appends."""
    results = shutil.copytree(broken[0], tmp_path / "results")
    first = record(results, LATEST, method)["run_id"]
    before = state(results, "cells/**/*", *BASE_FILES)
    here(*OWN_RUN, "--config-dir", OWN, f"redo={redo}", "tracker.mode=offline", results=results, code=1)
    after = state(results, "cells/**/*", *BASE_FILES)
    key = cell_folder(results, LATEST, method).name
    assert changed(before, after) == {key}
    assert {k: v for k, v in before.items() if key not in k} == {k: v for k, v in after.items() if key not in k}
    assert record(results, LATEST, method)["run_id"] == f"{first}-1"
    assert list((results / "wandb").glob(f"*run-*-{first}-1"))
    assert_same(numbers(broken[0], LATEST), numbers(results, LATEST))


@pytest.fixture
def editable(broken, tmp_path):
    """Finished results, and a copy of one's own methods that may be edited."""
    own = shutil.copytree(OWN, tmp_path / "own", ignore=shutil.ignore_patterns("__pycache__"))
    return shutil.copytree(broken[0], tmp_path / "results"), own


def test_an_edited_comment_or_docstring_reruns_nothing(editable):
    results, own = editable
    path = own / "last_weights.py"
    text = path.read_text()
    edited = "# a new comment\n\n" + text.replace('"""A user\'s own observer', '"""Mine, which is').replace(
        "self.last_N = None", "self.last_N = None  # nothing yet"
    )
    path.write_text(edited)
    before = state(results, "cells/**/*", "bases/**/*")
    planned = traindyn("plan", *OWN_RUN[1:], "--config-dir", own, results=results)
    assert "5 cells: 4 done, 1 failed" in planned.stdout
    assert state(results, "cells/**/*", "bases/**/*") == before


def test_an_edited_method_reruns_its_cells_alone(editable):
    results, own = editable
    old = cell_folder(results, LATEST, "last_weights")
    path = own / "last_weights.py"
    path.write_text(path.read_text().replace("self.last_N * self.scale", "self.last_N * self.scale * 0.5"))
    before = state(results, "cells/**/*", *BASE_FILES)
    traindyn(*OWN_RUN, "--config-dir", own, results=results, code=1)
    after = state(results, "cells/**/*", *BASE_FILES)
    new = cell_folder(results, LATEST, "last_weights")
    assert new != old
    assert {path: mark for path, mark in after.items() if new.name not in path} == before
    found = json.loads((new / "record.json").read_text())["summary"]
    assert found["val_loss"] != record(old.parents[1], LATEST, "base")["summary"]["val_loss"]


def test_a_lost_process_fails_its_base_and_the_next_run_can_redo_it(tmp_path):
    results = tmp_path / "results"
    here("run", *SMALL, "--config-dir", OWN, "method=[base,swa,vanishes,late]", results=results, code=1)
    assert statuses(results, LATEST) == {"base": "failed", "swa": "failed", "vanishes": "failed", "late": "skipped"}
    lost = record(results, LATEST, "swa")
    assert "exit code 3" in lost["reason"]
    base = base_folder(results, LATEST)
    assert {lost["log"], record(results, LATEST, "late")["log"]} == {f"bases/{base.name}/log.txt"}
    assert (base / "log.txt").read_text().splitlines()[-1].endswith(f"failed: {lost['reason']}")
    here("run", *SMALL, "--config-dir", OWN, "method=[base,swa,late]", "redo=failed", results=results)
    # what the second command did not ask for stays, and does not make it fail
    assert statuses(results, LATEST) == {"base": "done", "swa": "done", "vanishes": "failed", "late": "done"}


def test_a_method_that_exhausts_the_device_is_recorded_with_the_batch_and_the_others_go_on(tmp_path):
    results = tmp_path / "results"
    here("run", *SMALL, "--config-dir", OWN, "method=[base,swa,exhausts]", results=results, code=1)
    assert statuses(results, LATEST) == {"base": "done", "swa": "done", "exhausts": "failed"}
    found = record(results, LATEST, "exhausts")
    batch = found["config"]["base"]["batch_size"]
    assert found["reason"].startswith(f"OutOfMemory: out of memory at batch_size={batch}: set a smaller batch_size, ")
    assert "Tried to allocate 20.00 GiB" in found["traceback"]


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    """Momentum of a million: every batch's step is a million times the last, beyond float32 in a few epochs."""
    results = tmp_path_factory.mktemp("diverged") / "results"
    values = ("optimizer.sgd_momentum.momentum=1e6", "method.cmd_posthoc.samples=50", "method.cmd_posthoc.modes=3")
    words = ("epochs=6", "batches_per_epoch=2", "dataset=digits", "tracker=none", *values)
    methods = "method=[base,swa,cmd_posthoc,early,too_late]"
    return results, here("run", *words, methods, "--config-dir", OWN, results=results)


def test_a_base_that_diverges_takes_its_followers_along(diverged):
    results, done = diverged
    found = statuses(results, LATEST)
    base = json.loads((base_folder(results, LATEST) / "base.json").read_text())
    assert base["status"] == "diverged"
    epochs = len(base["digests"]) - 1
    assert 1 <= epochs < 5
    assert [found[m] for m in ("base", "swa", "cmd_posthoc")] == ["diverged"] * 3
    assert f"epoch {epochs + 1}" in record(results, LATEST, "swa")["reason"]
    assert found["early"] in ("done", "diverged")
    assert found["too_late"] == "skipped"
    assert "diverged" in record(results, LATEST, "too_late")["reason"]
    assert "diverged" in done.stdout


def test_a_learning_rate_without_bound_diverges_and_is_no_failure(tmp_path):
    results = tmp_path / "results"
    words = (*SMALL, "method=[base,ema,lookahead]", "optimizer.sgd_momentum.lr=1e30")
    done = here("run", *words, results=results)
    assert set(statuses(results, LATEST).values()) == {"diverged"}
    assert done.stdout.count("diverged") >= 3
    frame = pd.read_parquet(view_folder(results) / "frame.parquet")
    assert frame["test_accuracy"].isna().all()
    before = state(results, "cells/**/*", "bases/**/*")
    here("run", *words, results=results)
    assert state(results, "cells/**/*", "bases/**/*") == before


def test_what_two_runs_may_differ_in_is_in_every_frame(broken):
    """The comparisons above leave these columns out, and no others."""
    frame = pd.read_parquet(view_folder(broken[0]) / "frame.parquet")
    assert set(RUN_ONLY) <= set(frame.columns)
