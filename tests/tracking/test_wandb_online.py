"""Runs at a W&B server, a stand-in for it on loopback, and what is left of them when it fails."""

import json
import os
import re

import pandas as pd
import pytest
from wandb_server import ENTITY, KEY, WandbServer

from harness.config import ConfigError, TrackerConfig
from harness.tracking import check_environment, open_tracker, run_locks
from harness.tracking.tracker import ArtifactFiles, RunEnd, RunInfo, as_id
from harness.tracking.wandb import live
from harness.tracking.wandb.live import WandbTracker

ONLINE = TrackerConfig("wandb", mode="online", tags=["night"], notes="ours")


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server, and an environment in which W&B knows it and nothing else."""
    for name in os.environ:
        if name.startswith("WANDB_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", os.devnull)
    with WandbServer() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def said():
    return []


def info(run_id="0123456789ab-store", **changes):
    given = {"name": "resnet18-digits-sgd-s0-ema", "group": "base0", "job_type": "ema", "tags": ("smoke",)}
    return RunInfo(run_id, **given | {"config": {"lr": 0.1, "seeds": [0]}} | changes)


def rows(first, last):
    return [{"epoch": t, "val_accuracy": 50 + t / 3, "val_loss": 1 / t} for t in range(first, last + 1)]


def give(tracker, run_info, last, **end):
    tracker.record(run_info, rows(1, last), RunEnd(**{"summary": {"test_accuracy": 87.5}, "digest": "abc", **end}))


def test_a_run_arrives_as_it_was_given(server, tmp_path, said):
    tracker = open_tracker(ONLINE, tmp_path, said.append)
    table = pd.DataFrame({"mode": [0, 1], "size": [7, 3]})
    path = tmp_path / "frame.csv"
    path.write_text("a,b\n")
    artifact = ArtifactFiles("frame", "frame", {"frame.csv": path, "manifest.json": b"{}"}, {"epochs": 5})
    give(tracker, info(), 5, tables={"modes": table}, artifacts=[artifact])
    run = server.runs[info().run_id]
    assert (run.display, run.group, run.job_type) == (info().name, "base0", "ema")
    assert (run.project, run.tags, run.notes) == ("traindyn", ["smoke", "night"], "ours")
    assert {k: v["value"] for k, v in run.config.items() if k != "_wandb"} == info().config
    assert run.rows == rows(1, 5)
    assert [json.loads(line)["_step"] for line in run.lines] == [1, 2, 3, 4, 5]
    metrics = run.config["_wandb"]["value"]["m"]
    assert {m.get("1"): m.get("5") for m in metrics if "1" in m} | {m["2"]: m["5"] for m in metrics if "2" in m} == {
        "epoch": None,
        "*": 1,  # the x axis of every metric is the first of the list: epoch
    }
    assert (run.summary["test_accuracy"], run.summary["status"], run.summary["record"]) == (87.5, "done", "abc")
    stored = json.loads(run.files[run.summary["tables/modes"]["path"]])
    assert (stored["columns"], stored["data"]) == (["mode", "size"], [[0, 7], [1, 3]])
    (kept,) = [a for a in server.artifacts if a["type"] == "frame"]
    assert kept["committed"]
    assert server.storage[f"artifacts/{kept['id']}/frame.csv"] == b"a,b\n"
    assert server.storage[f"artifacts/{kept['id']}/manifest.json"] == b"{}"
    assert run.state == "finished"
    assert said == []


def test_where_its_runs_are(server, tmp_path, said):
    assert WandbTracker(ONLINE, tmp_path, said.append).where == f"{server.url}/{ENTITY}/traindyn"


@pytest.mark.parametrize(("status", "state"), [("done", "finished"), ("diverged", "finished"), ("failed", "failed")])
def test_how_a_cell_ended(server, tmp_path, said, status, state):
    give(open_tracker(ONLINE, tmp_path, said.append), info(), 1, status=status)
    assert server.runs[info().run_id].state == state


def test_an_interrupted_run_goes_on_where_the_server_is(server, tmp_path, said):
    """A first tracker leaves after three rows, two more give all rows from the first on."""
    first = open_tracker(ONLINE, tmp_path, said.append)
    first.start(info())
    first.log(info().run_id, rows(1, 3))
    first.close()
    assert server.runs[info().run_id].state == "failed"
    for _ in range(2):
        give(open_tracker(ONLINE, tmp_path, said.append), info(), 6)
    assert server.runs[info().run_id].rows == rows(1, 6)
    assert server.runs[info().run_id].state == "finished"
    assert said == []


def test_what_the_server_holds_is_asked_of_it(server, tmp_path, said):
    tracker = open_tracker(ONLINE, tmp_path, said.append)
    assert tracker.states(["0123456789ab-store"]) == {}
    give(tracker, info(), 3)
    tracker.close()
    (state,) = tracker.states([info().run_id, "another"]).values()
    assert (state.rows, state.epoch, state.digest, state.tags) == (3, 3, "abc", ("smoke", "night"))
    assert state.last["val_loss"] == 1 / 3


@pytest.mark.parametrize("fault", ["500", "429"])
def test_a_passing_fault_is_not_noticed(server, tmp_path, said, fault):
    tracker = open_tracker(ONLINE, tmp_path, said.append)
    tracker.start(info())
    server.fail(fault, ("file_stream", "upload"), times=2)
    give(tracker, info(), 4)
    assert server.runs[info().run_id].rows == rows(1, 4)
    assert said == []


def test_rows_arrive_while_a_run_is_open(server, tmp_path, said):
    tracker = open_tracker(ONLINE, tmp_path, said.append)
    tracker.start(info())
    tracker.log(info().run_id, rows(1, 2))
    server.until(lambda: server.runs[info().run_id].rows == rows(1, 2))  # wandb sends what there is every 15 s
    tracker.close()


@pytest.mark.parametrize("fault", ["500", "429", "hang", "reset", "death"])
def test_a_server_that_fails_in_mid_run(server, tmp_path, said, monkeypatch, fault):
    """Said once; later runs go on offline; when it is back it is given what it lacks, and nothing twice."""
    monkeypatch.setattr(live, "FINISH_SECONDS", 2)
    monkeypatch.setattr("harness.tracking.wandb.server.SECONDS", 1)
    first, tracker = (open_tracker(ONLINE, tmp_path, said.append) for _ in range(2))
    for name in ("one", "two"):
        first.start(info(name))
        first.log(name, rows(1, 2))
    first.close()  # which sends them: wandb does so every 15 s otherwise
    for name in ("one", "two"):
        tracker.start(info(name))
        tracker.log(name, rows(1, 4))
    if fault == "death":
        server.stop()
    else:
        server.fail(fault)
    for name in ("one", "two", "three"):
        give(tracker, info(name), 5)
    tracker.close()
    (line,) = said
    assert server.url in line
    assert "offline" in line
    assert KEY not in line
    if fault == "death":
        server.start()
    server.recover()
    again = open_tracker(ONLINE, tmp_path, said.append)
    for name in ("one", "two", "three"):
        give(again, info(name), 5)
        assert server.runs[name].rows == rows(1, 5)
        assert server.runs[name].state == "finished"
    assert len(said) == 1


@pytest.mark.parametrize("fault", ["500", "429", "reset"])
def test_a_server_that_fails_from_the_start(server, tmp_path, said, fault):
    server.fail(fault)
    tracker = open_tracker(ONLINE, tmp_path, said.append)
    give(tracker, info(), 2)
    assert len(said) == 1
    assert tracker.states([info().run_id])[info().run_id].epoch == 2
    assert server.runs == {}


def test_a_key_that_the_server_does_not_know(server, tmp_path, said, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    tracker = open_tracker(TrackerConfig("wandb"), tmp_path, said.append)
    assert tracker.where == str(tmp_path / "wandb")
    (line,) = said
    assert "401" in line
    assert "f" * 40 not in line


def test_a_run_that_was_deleted_there_is_refused_alone(server, tmp_path, said):
    server.deleted.add("gone")
    tracker = open_tracker(ONLINE, tmp_path, said.append)
    give(tracker, info("gone"), 2)
    give(tracker, info("other"), 2)
    assert list(server.runs) == ["other"]
    (line,) = said
    assert "gone" in line
    assert (tracker.refuses("gone"), tracker.refuses("other")) == (True, False)


def test_names_and_tags_that_wandb_would_refuse_are_made_to_fit(server, tmp_path, said, monkeypatch):
    """64 characters of a tag, none empty, each once, and the run is then found to have all of them."""
    monkeypatch.setenv("WANDB_TAGS", f"night,, ,{'e' * 65}")
    tracker = open_tracker(ONLINE, tmp_path, said.append)
    long = info(name="n" * 200, group="g" * 200, tags=("t" * 65 + "a", "t" * 65 + "b", "t" * 64, "", " ", "x", "x"))
    give(tracker, long, 1)
    (run,) = server.runs.values()
    assert (len(run.display), len(run.group)) == (128, 128)
    assert [len(tag) for tag in run.tags] == [64, 64, 64, 1, 5, 64]
    assert len(set(run.tags)) == len(run.tags)
    assert run.tags[2:5] == ["t" * 64, "x", "night"]
    (state,) = tracker.states([long.run_id]).values()
    assert set(long.tags) <= set(state.tags)
    assert said == []


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("WANDB_PROJECT", "team/project", "WANDB_PROJECT must be text of .* without .*'team/project'"),
        ("WANDB_PROJECT", "p" * 129, "WANDB_PROJECT must be text of at most 128 characters"),
        ("WANDB_ENTITY", "my:team", "WANDB_ENTITY must be text .*, got 'my:team'"),
        ("WANDB_MODE", "loud", "WANDB_MODE must have a value that W&B takes: Input should be 'online'"),
        ("WANDB_BASE_URL", "localhost", "WANDB_BASE_URL must have a value that W&B takes: Input should be a valid URL"),
    ],
)  # fmt: skip
def test_variables_that_wandb_refuses_every_run_for(variable, value, line, monkeypatch):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=f"^{line}"):
        check_environment(TrackerConfig("wandb"))
    check_environment(TrackerConfig("csv"))
    check_environment(TrackerConfig("wandb", mode="disabled"))


def test_a_project_that_is_given_replaces_a_mistaken_variable(server, tmp_path, said, monkeypatch):
    """And what speaks of a single run counts for none of ours."""
    monkeypatch.setenv("WANDB_PROJECT", "team/project")
    monkeypatch.setenv("WANDB_RUN_ID", "a/b")
    config = TrackerConfig("wandb", mode="online", project="ours")
    check_environment(config)
    give(open_tracker(config, tmp_path, said.append), info(), 1)
    assert server.runs[info().run_id].project == "ours"
    assert said == []


@pytest.mark.parametrize("name", ["a/b", "a\\b", "a#b", "a?b", "a%b", "a:b", "p" * 129, ""])
def test_projects_and_entities_that_wandb_refuses(name):
    for key in ("project", "entity"):
        with pytest.raises(ConfigError, match=rf"^tracker\.{key} must be text"):
            TrackerConfig("wandb", **{key: name})


def test_ids_of_suites():
    """An ordinary name is as it is, one that W&B takes for no id or an artifact's name is told apart by a digest."""
    assert as_id("smoke") == "smoke"
    assert as_id("my-suite.v2_x") == "my-suite.v2_x"
    odd = [as_id(name) for name in ("s" * 41, "s" * 42, "it's", "it,s", "ß", "#")]
    assert len(set(odd)) == len(odd)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,40}", name) for name in odd)


def test_two_commands_do_not_write_one_run(server, tmp_path, said, monkeypatch):
    monkeypatch.setattr(run_locks, "WAIT_SECONDS", 0.1)
    first, second = (open_tracker(ONLINE, tmp_path, said.append) for _ in range(2))
    first.start(info())
    give(second, info(), 3)
    assert len(said) == 1
    give(first, info(), 3)
    assert server.runs[info().run_id].rows == rows(1, 3)


def test_a_run_that_is_no_cell(server, tmp_path, said):
    """A trial of tuning: any id, name and group, perhaps no row at all."""
    tracker = open_tracker(ONLINE, tmp_path, said.append)
    trial = RunInfo("tune-quick-ema-7", "ema trial 7", "tune-quick-ema", "tune", ("quick",), {"half_life": 1.5})
    tracker.record(trial, [], RunEnd({"val_accuracy": 81.0}))
    run = server.runs["tune-quick-ema-7"]
    assert (run.display, run.job_type, run.rows, run.summary["val_accuracy"]) == ("ema trial 7", "tune", [], 81.0)


def test_secrets_of_a_configuration_do_not_arrive(server, tmp_path, said, monkeypatch):
    monkeypatch.setenv("STORAGE_TOKEN", "s3cret-of-mine-and-long")
    config = {"api_key": "plain", "url": "https://me:hidden@host/x", "note": "with s3cret-of-mine-and-long", "key": KEY}
    tracker = open_tracker(ONLINE, tmp_path, said.append)
    give(tracker, info(config=config | {"cell_key": "0123abc"}), 1)
    stored = {k: v["value"] for k, v in server.runs[info().run_id].config.items() if k != "_wandb"}
    masked = {"api_key": "***", "url": "https://***@host/x", "note": "with ***", "key": "***"}
    assert stored == masked | {"cell_key": "0123abc"}
