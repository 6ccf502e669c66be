"""`traindyn tune` as a person uses it: killed, interrupted, on several machines, and what `tuned=true` makes of it."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from command import OWN, SECONDS, environment, here, start, state, wait_until
from omegaconf import OmegaConf
from wandb_server import WandbServer

from harness import load_frame
from harness.tracking.wandb.transaction_log import read_offline

TUNE = ("tune", "suite=smoke", "fast=true", "seeds=[0,1]")
PROBLEM = "test_resnet-digits-sgd_momentum"
METHODS = ("cmd_online", "swa")
TRIALS = 12
CMD = ("method=[cmd_online,swa]", "method.cmd_online.search.samples={type:int,low:50,high:99}", f"trials={TRIALS}")


def search_folder(results, method):
    return Path(results) / "tuning/smoke" / method / PROBLEM


def trials(results, method):
    """The trials without what two runs may differ in."""
    frame = pd.read_parquet(search_folder(results, method) / "trials.parquet")
    return frame.drop(columns=["seconds", "started", "ended"])


def best(results, method):
    return OmegaConf.to_container(OmegaConf.load(search_folder(results, method) / "best.yaml"))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Two methods tuned undisturbed, with W&B offline; the folder and what was printed."""
    results = tmp_path_factory.mktemp("tuned") / "results"
    return results, here(*TUNE, *CMD, results=results).stdout


@pytest.fixture(autouse=True)
def figures_once(tuned, monkeypatch):
    """Figures take seconds; those of `tuned` are drawn and looked at, no others."""
    monkeypatch.setattr("harness.tune.command.draw_search", lambda search: [])


def test_every_method_gets_the_same_budget_and_the_table_states_it(tuned):
    results, stdout = tuned
    assert f"best of {TRIALS} trials per method" in stdout
    for method in METHODS:
        frame = trials(results, method)
        assert frame["counts"].sum() == TRIALS
        assert list(frame["trial"]) == list(range(-1, len(frame) - 1))
        assert best(results, method)["budget"] == f"{TRIALS} trials"
        assert f"{method} on {PROBLEM}: {TRIALS}/{TRIALS} trials, best " in stdout
        assert "trials/min" in stdout


def test_the_best_is_the_best_of_the_trials_and_stands_with_its_seeds(tuned):
    results, stdout = tuned
    for method in METHODS:
        frame, found = trials(results, method), best(results, method)
        assert found["val_accuracy"]["mean"] == frame["val_accuracy"].max()
        row = frame[frame["trial"] == found["trial"]].iloc[0]
        assert {f"params_{name}": value for name, value in found["parameters"].items()} == dict(
            row[[f"params_{name}" for name in found["parameters"]]]
        )
        by_seed = found["val_accuracy"]["by_seed"]
        assert by_seed == {seed: row[f"val_accuracy_s{seed}"] for seed in (0, 1)}
        assert found["seeds"] == [0, 1]
        assert found["sentence"] in stdout.replace("\n", " ") or found["sentence"] in stdout
        assert "seed noise" in found["sentence"] or "No trial" in found["sentence"]


def test_figures_and_importances(tuned):
    results, _ = tuned
    folder = search_folder(results, "cmd_online") / "figures"
    assert {path.name for path in folder.iterdir()} == {
        *(f"{name}.{kind}" for name in ("history", "importances", "map") for kind in ("pdf", "png")),
        "importances.csv",
        "drawn.json",
    }
    weights = pd.read_csv(folder / "importances.csv")
    assert set(weights["parameter"]) == {"modes", "samples", "warmup", "forgetting"}
    assert ((weights["low"] <= weights["importance"]) & (weights["importance"] <= weights["high"])).all()
    assert weights["high"].max() <= 1


def test_trials_are_tracked_in_one_group_per_search(tuned):
    results, _ = tuned
    runs = [read_offline(path) for path in (results / "wandb").glob("*run-*/run-*.wandb")]
    for method in METHODS:
        own = [run for run in runs if run.group == f"tune-smoke/{method}/{PROBLEM}"]
        frame = trials(results, method)
        assert len(own) == len(frame) - sum(frame["state"] == "refused")
        assert all(run.finished and run.job_type == "trial" for run in own)
        values = sorted(run.history[-1]["val_accuracy"] for run in own if run.history)
        assert values == sorted(frame["val_accuracy"].dropna())


def test_a_finished_search_is_not_run_again(tuned, tmp_path):
    results = shutil.copytree(tuned[0], tmp_path / "results")
    journal = search_folder(results, "swa") / "journal.log"
    before, runs = journal.read_bytes(), state(results, "wandb/**/*.wandb")
    again = here(*TUNE, *CMD, results=results)
    assert journal.read_bytes() == before
    assert f"best of {TRIALS} trials per method" in again.stdout
    assert "trained" not in again.stdout
    assert state(results, "wandb/**/*.wandb") == runs


@pytest.fixture
def server():
    with WandbServer() as server:
        yield server


def assert_given_once(server, results, method):
    """Every trial of a search is a finished run with one row, that of the study."""
    frame = trials(results, method)
    runs = [run for run in server.runs.values() if run.group == f"tune-smoke/{method}/{PROBLEM}"]
    assert len(runs) == len(frame)
    assert all(run.state == "finished" for run in runs)
    rows = {run.config["trial"]["value"]: [row["val_accuracy"] for row in run.rows] for run in runs}
    assert rows == {trial: [value] for trial, value in zip(frame["trial"], frame["val_accuracy"], strict=True)}


SWA = (*TUNE, "method=swa", "trials=6", "tune.batch=2")


def bases_of(tuned, results):
    """The bases of a finished search, and no trials."""
    shutil.copytree(tuned[0] / "bases", results / "bases")
    shutil.copy(tuned[0] / "store.json", results)


def test_a_server_that_hangs_delays_no_search(tuned, server, monkeypatch, tmp_path):
    """It ends, says that its tracking does not, and the same command gives all of it once the server is back."""
    monkeypatch.setattr("harness.publishing.tracking_process.PATIENCE", 0.0)
    results = tmp_path / "results"
    bases_of(tuned, results)
    server.fail("drip")
    done = here(*SWA, results=results, variables=server.environment())
    assert "best of 6 trials per method" in done.stdout
    assert done.stdout.splitlines()[-1] == "tracking does not end: the same command again gives what it lacks"
    assert server.runs == {}
    monkeypatch.undo()
    server.recover()
    here(*SWA, results=results, variables=server.environment())
    assert_given_once(server, results, "swa")


def test_trials_that_a_kill_lost_are_given_by_the_next_search(tuned, server, tmp_path):
    """Killed when the first run is at the server: runs that were ended, begun, told, or none of these."""
    results = tmp_path / "results"
    bases_of(tuned, results)
    process = start(*SWA, results=results, variables=server.environment())
    wait_until(lambda: server.runs, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=SECONDS)
    here(*SWA, results=results, variables=server.environment())
    assert_given_once(server, results, "swa")
    lines = {run_id: list(run.lines) for run_id, run in server.runs.items()}
    begun = server.operations.count("UpsertBucket")
    here(*SWA, results=results, variables=server.environment())
    assert {run_id: run.lines for run_id, run in server.runs.items()} == lines
    assert server.operations.count("UpsertBucket") == begun


def test_trials_that_were_kept_offline_are_sent_by_sync(tuned, server, tmp_path):
    """And are then there for the search as well."""
    results = shutil.copytree(tuned[0], tmp_path / "results")
    sent = here("sync", results=results, variables=server.environment()).stdout
    assert f"{len(server.runs)} sent" in sent
    for method in METHODS:
        assert_given_once(server, results, method)
    begun = server.operations.count("UpsertBucket")
    here(*TUNE, *CMD, results=results, variables=server.environment())
    assert server.operations.count("UpsertBucket") == begun


RUN = ("run", "suite=smoke", "fast=true", "tracker=none", "method=[base,base_recalibrated,cmd_online,swa]")


def test_tuned_runs_each_base_with_its_best_settings_on_fresh_seeds(tuned, tmp_path):
    results = shutil.copytree(tuned[0], tmp_path / "results")
    done = here(*RUN, "seeds=[2,3]", "tuned=true", results=results)
    frame = load_frame(results)
    assert set(frame["seed"]) == {2, 3}
    assert (frame["status"] == "done").all()
    for method in METHODS:
        for text in frame.loc[frame["method"] == method, "parameters"]:
            assert best(results, method)["parameters"].items() <= json.loads(text).items()
    assert f"every method had {TRIALS} trials on seeds 0, 1" in done.stdout
    # the suite's own seed was tuned on, and what the command line says goes before what was tuned
    planned = here("plan", *RUN[1:], "tuned=true", "method.swa.start=0.5", results=results).stdout
    assert [line.split()[3] for line in planned.splitlines() if line.startswith("test_resnet ")] == ["2"]
    here(*RUN, "tuned=true", "method.swa.start=0.5", results=results)
    frame = load_frame(results)
    assert {json.loads(text)["start"] for text in frame.loc[frame["method"] == "swa", "parameters"]} == {0.5}


def refused(*arguments, results, words, verb="tune"):
    done = here(verb, "suite=smoke", "fast=true", *arguments, results=results, code=2)
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in words), line


def test_tuned_refuses_tuned_seeds_and_methods_that_were_not_tuned(tuned):
    results = tuned[0]
    refused(*RUN[3:], "tuned=true", "seeds=[1]", results=results, words=["seeds", "0, 1", "got 1"], verb="run")
    refused(
        "method=[base,ema]",
        "tuned=true",
        results=results,
        words=["tuned", "none of ema", "method=[ema] makes them"],
        verb="run",
    )


BAD = {
    "unknown parameter": (
        ("method=ema", "+method.ema.search.halflife={type:float,low:1,high:2}"), ["'halflife'", "half_life"],
    ),
    "empty range": (("method=ema", "method.ema.search.half_life.low=9"), ["half_life", "empty", "5.0", "9"]),
    "warm-up": (("method=cmd_online", "method.cmd_online.search.warmup.high=30"), ["warmup", "6 epochs", "got 30"]),
    "no database": (("method=ema", "tune.storage=sqlite:////nowhere/x.db"), ["tune.storage", "/nowhere/x.db"]),
    "no file": (("method=ema", "tune.storage=sqlite://"), ["tune.storage", "outlives", "'sqlite://'"]),
    "no URL": (("method=ema", "tune.storage=nowhere"), ["tune.storage", "'nowhere'", "URL"]),
    "a password stays secret": (
        ("method=ema", "tune.storage=postgresql://me:secret@localhost:1/x"), ["tune.storage", "//***@localhost"],
    ),
    "nothing to tune": (("method=[base,time_mean]",), ["method", "search space", "got base, time_mean"]),
    "sampler": (("method=ema", "tune.sampler=best"), ["tune.sampler", "tpe", "'best'"]),
    "trials": (("method=ema", "trials=0"), ["trials", "at least 1", "got 0"]),
    "no budget": (("method=ema", "trials=null"), ["trials", "tune.seconds"]),
    "parameters": (("method=ema", "tune.parameters=[modes]"), ["tune.parameters", "'modes'", "half_life"]),
    "redo": (("method=ema", "redo=all"), ["redo", "all"]),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line(tmp_path, arguments, words):
    refused(*arguments, results=tmp_path / "results", words=words)
    assert not (tmp_path / "results/bases").exists()
    assert "secret" not in str(words)


def test_a_database_that_somebody_else_locks_is_refused(tmp_path, monkeypatch):
    """It is waited for, which takes no time here."""
    monkeypatch.setattr("harness.tune.storage.BUSY_SECONDS", 0)
    path = tmp_path / "study.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        words = ["tune.storage", str(path), "database is locked"]
        refused("method=ema", f"tune.storage=sqlite:///{path}", results=tmp_path / "results", words=words)


def test_a_study_of_another_space_is_refused(tuned):
    words = ["space", "forgetting 0.8..1.0", "not there", "tune.name=study2"]
    given = (*CMD, "seeds=[0,1]", "tune.parameters=[modes,samples,warmup,start]")
    refused(*given, results=tuned[0], words=words)


def lines(results, method):
    path = search_folder(results, method) / "journal.log"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_killed_and_interrupted_it_goes_on_to_the_same_trials(tuned, tmp_path):
    """Killed while asking, while jobs run and while telling; interrupted once. Half a line, which losing power leaves,
    is cut off. Nothing is lost, and nothing counts twice."""
    whole, _ = tuned
    results = tmp_path / "results"
    bases_of(tuned, results)
    ends = [("cmd_online", 20, signal.SIGKILL), ("cmd_online", 40, signal.SIGKILL), ("swa", 8, signal.SIGINT)]
    for step, (method, more, end) in enumerate(ends):
        count = lines(results, method) + more
        process = start(*TUNE, *CMD, "tracker=none", results=results)
        wait_until(lambda method=method, count=count: lines(results, method) >= count, process)
        if step == 0:
            os.killpg(process.pid, signal.SIGSTOP)  # it holds its folders, and cannot end before it is killed
            held = here(*TUNE, *CMD, "tracker=none", results=results, code=2)
            assert "locked" in held.stderr
        os.killpg(process.pid, end)
        _, stderr = process.communicate(timeout=SECONDS)
        assert process.returncode == (130 if end == signal.SIGINT else -signal.SIGKILL), stderr
        if end == signal.SIGINT:
            assert stderr.splitlines() == [
                "interrupted: run the same command again to go on from the last finished trial"
            ]
    with open(search_folder(results, "cmd_online") / "journal.log", "ab") as journal:
        journal.write(b'{"op_code":4,"worker')
    here(*TUNE, *CMD, "tracker=none", results=results)
    for method in METHODS:
        pd.testing.assert_frame_equal(trials(whole, method), trials(results, method))
        assert best(whole, method)["parameters"] == best(results, method)["parameters"]
        assert not list((search_folder(results, method) / "work").glob("*/*"))


@pytest.mark.long
def test_the_number_of_workers_changes_nothing(tuned, tmp_path):
    results = tmp_path / "results"
    bases_of(tuned, results)
    here(*TUNE, *CMD, "tracker=none", "engine.workers=1", results=results)
    for method in METHODS:
        pd.testing.assert_frame_equal(trials(tuned[0], method), trials(results, method))


def test_a_candidate_that_takes_its_process_along_fails_alone(tmp_path):
    """Twice, being tried once more; those that shared its job are valued all the same."""
    given = ("method=vanishes", "+method.vanishes.search={at:{type:int,low:5,high:8}}", f"--config-dir={OWN}")
    here(*TUNE[:3], *given, "tracker=none", "trials=6", "tune.sampler=grid", results=tmp_path / "results")
    frame = trials(tmp_path / "results", "vanishes").set_index("trial").drop(-1)
    states = {at: set(part["state"]) for at, part in frame.groupby("params_at")}
    assert states == {5: {"failed"}, 6: {"failed"}, 7: {"complete"}, 8: {"complete"}}
    assert frame.loc[frame["state"] == "failed", "error"].str.contains("exit code 3").all()
    assert frame["counts"].sum() <= 6


def test_two_machines_share_a_database(tuned, tmp_path):
    """Two coordinators with results folders of their own: together they try as many settings as were asked for."""
    storage = f"tune.storage=sqlite:///{tmp_path / 'study.db'}"
    given = (*TUNE, "method=swa", "trials=8", "tune.batch=2", "tracker=none", storage)
    folders = [tmp_path / name / "results" for name in ("one", "two")]
    processes = []
    for folder in folders:
        shutil.copytree(tuned[0] / "bases", folder / "bases")
        processes.append(start(*given, results=folder))
    for process in processes:
        stdout, stderr = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, (stdout, stderr)
    here(*given, results=folders[0])
    frame = trials(folders[0], "swa")
    assert frame["counts"].sum() == 8
    assert set(frame["state"]) <= {"default", "complete", "failed"}
    assert frame.loc[frame["state"] == "complete", "params_start"].is_unique


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(url):
    """A server's answer as JSON; None while it does not listen yet."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            return json.loads(answer.read())
    except urllib.error.URLError:
        return None


def test_the_dashboard_reads_a_study(tuned):
    """optuna-dashboard on loopback, from the journal file."""
    journal, port = search_folder(tuned[0], "cmd_online") / "journal.log", free_port()
    command = [Path(sys.executable).parent / "optuna-dashboard", "--host", "127.0.0.1", "--port", str(port), journal]
    process = subprocess.Popen(
        list(map(str, command)), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}/api/studies"
    try:
        wait_until(lambda: fetch(url) is not None, process)
        (study,) = fetch(url)["study_summaries"]
        assert study["study_name"] == f"smoke/cmd_online/{PROBLEM}"
        detail = fetch(f"{url}/{study['study_id']}")
        assert len(detail["trials"]) == len(trials(tuned[0], "cmd_online")) - 1
    finally:
        process.terminate()
        process.wait(timeout=SECONDS)
