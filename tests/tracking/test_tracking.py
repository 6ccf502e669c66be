"""Tracking against real wandb runs, offline, read back from their transaction logs; servers are on loopback."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_module
from offline import offline_runs
from omegaconf import OmegaConf

from harness.arguments import SyncArguments
from harness.config import ConfigError, TrackerConfig, from_mapping
from harness.publishing.sync import sync
from harness.tracking import open_tracker
from harness.tracking.runs import cell_info
from harness.tracking.tracker import RunEnd, RunInfo, Tracker, readable_id
from harness.tracking.wandb import server
from harness.tracking.wandb.destination import resolve_mode, resolve_target, user_settings
from harness.tracking.wandb.live import _Open
from harness.tracking.wandb.transaction_log import read_offline, transaction_logs

KEY = "0123456789abcdef" * 2 + "01234567"
OFFLINE = TrackerConfig("wandb", mode="offline")
CONFIG = {"optimizer": {"lr": 0.1, "nesterov": True}, "seeds": [0, 1], "notes": None}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """No W&B setting, key, netrc or folder but the test's own."""
    for name in os.environ:
        if name.startswith("WANDB_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / ".netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def warnings():
    return []


def info(run_id="0123456789ab-store", config=CONFIG):
    return RunInfo(run_id, "test_resnet-digits-s0-ema", "base0", "ema", ("smoke", "ema"), config, "a note")


class Handle:
    """One run of a tracker."""

    def __init__(self, tracker, run_info):
        self.tracker, self.run_id = tracker, run_info.run_id
        tracker.start(run_info)

    @property
    def logged(self):
        return self.tracker._runs[self.run_id].logged

    def log(self, row):
        self.tracker.log(self.run_id, [row])

    def finish(self, summary, tables=None, status="done"):
        self.tracker.end(self.run_id, RunEnd(summary, tables or {}, status=status))


def opened(config, folder, run_info, warn):
    return Handle(open_tracker(config, folder, warn), run_info)


def rows(first, last):
    return [{"epoch": t, "val_accuracy": 50 + t / 3, "val_loss": 1 / t} for t in range(first, last + 1)]


def union(folder, run_id):
    """All rows of all fragments, one after the other and nothing removed."""
    return [row for path in offline_runs(folder, run_id) for row in read_offline(path).history]


def test_a_finished_run_holds_what_was_given(tmp_path, warnings):
    run = opened(TrackerConfig("wandb", mode="offline", tags=["mine", "ema"]), tmp_path, info(), warnings.append)
    assert run.logged is None
    run.log({"epoch": 1, "val_loss": 0.1, "test_loss": None, "train_loss": math.nan, "rho": math.inf})
    run.log({"epoch": 2, "val_loss": 1e-17})
    table = pd.DataFrame({"mode": [0, 1], "size": [7, 3]})
    run.finish({"val_accuracy": 87.5, "test_accuracy": None}, {"modes": table}, status="diverged")

    (path,) = offline_runs(tmp_path, info().run_id)
    read = read_offline(path)
    assert (read.run_id, read.name, read.group, read.job_type) == (info().run_id, info().name, "base0", "ema")
    assert (read.tags, read.notes, read.project) == (("smoke", "ema", "mine"), "a note", "traindyn")
    assert read.config == CONFIG
    first, second = read.history
    assert math.isnan(first.pop("train_loss"))
    assert (first, second) == ({"epoch": 1, "val_loss": 0.1, "rho": math.inf}, {"epoch": 2, "val_loss": 1e-17})
    assert (read.summary["val_accuracy"], read.summary["status"]) == (87.5, "diverged")
    assert "test_accuracy" not in read.summary
    stored = json.loads((path.parent / "files" / read.summary["tables/modes"]["path"]).read_text())
    assert (stored["columns"], stored["data"]) == (["mode", "size"], [[0, 7], [1, 3]])
    assert (read.finished, read.exit_code) == (True, 0)
    assert warnings == []


def test_reader_agrees_with_wandbs_own(tmp_path, warnings):
    run = opened(OFFLINE, tmp_path, info(), warnings.append)
    wide = [{"epoch": t, **{f"mode_{i}": t + i / 7 for i in range(60)}} for t in range(1, 31)]
    for row in wide:
        run.log(row)
    run.finish({"val_accuracy": 1.5}, status="failed")
    (path,) = offline_runs(tmp_path, info().run_id)
    assert path.stat().st_size > 2 * 32768  # several blocks, so records that are split over two

    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    theirs = [json.loads(line)["history"]["item"] for line in lines if '"type":"history"' in line]
    ours = read_offline(path)
    assert ours.history == wide
    assert ours.history == [{k: v for k, v in row.items() if not k.startswith("_")} for row in theirs]
    assert [row["_step"] for row in theirs] == [row["epoch"] for row in wide]
    assert (ours.finished, ours.exit_code) == (True, 1)


def test_a_torn_or_damaged_log_gives_the_rows_before(tmp_path, warnings):
    run = opened(OFFLINE, tmp_path, info(), warnings.append)
    for row in rows(1, 40):
        run.log(row)
    run.finish({})
    (path,) = offline_runs(tmp_path, info().run_id)
    data = path.read_bytes()
    torn = tmp_path / "run-torn.wandb"
    for cut in (*range(9), *range(100, len(data), 1009), len(data) - 1):
        torn.write_bytes(data[:cut])
        read = read_offline(torn)
        assert read.history == rows(1, len(read.history))
        assert not read.finished
    middle = len(data) // 2
    torn.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    assert 0 < len(read_offline(torn).history) < 40
    torn.write_bytes(b"not a log of W&B's")
    assert read_offline(torn).history == []


def test_reopened_run_gets_only_what_is_missing(tmp_path, warnings):
    run_id = info().run_id
    for last in (2, 2, 5, 6):  # within a second or so: folders are named by the second
        run = opened(OFFLINE, tmp_path, info(), warnings.append)
        for row in rows(1, last):
            run.log(row)
            run.log(row)
        assert run.logged == last
        run.finish({}, status="interrupted")
    assert [len(read_offline(path).history) for path in offline_runs(tmp_path, run_id)] == [2, 0, 3, 1]
    assert union(tmp_path, run_id) == rows(1, 6)
    assert warnings == []


def test_epoch_zero_is_an_epoch(tmp_path, warnings):
    for _ in range(2):
        run = opened(OFFLINE, tmp_path, info(), warnings.append)
        run.log({"epoch": 0, "val_loss": 2.0})
        assert run.logged == 0
        run.finish({})
    assert union(tmp_path, info().run_id) == [{"epoch": 0, "val_loss": 2.0}]


def test_fragments_in_the_order_of_their_start(tmp_path):
    def fragment(folder, run_id):
        path = tmp_path / "wandb" / folder / f"run-{run_id}.wandb"
        path.parent.mkdir(parents=True)
        path.touch()
        return path

    tenth = fragment("offline-run-20260101_000000-abc-x-10", "abc-x")
    second = fragment("offline-run-20260101_000000-abc-x-2", "abc-x")
    first = fragment("offline-run-20260101_000000-abc-x", "abc-x")
    online = fragment("run-20260101_000001-abc-x", "abc-x")
    generation = fragment("offline-run-20260101_000000-abc-x-1", "abc-x-1")
    fragment("offline-run-20260101_000000-zabc-x", "zabc-x")
    assert offline_runs(tmp_path, "abc-x") == [first, second, tenth]
    assert transaction_logs(tmp_path, "abc-x") == [first, second, tenth, online]
    assert offline_runs(tmp_path, "abc-x-1") == [generation]
    assert offline_runs(tmp_path / "absent", "abc-x") == []


JOB = """
import os, signal, sys
from pathlib import Path
from harness.config import TrackerConfig
from harness.tracking import open_tracker
from harness.tracking.tracker import RunInfo
tracker = open_tracker(TrackerConfig("wandb", mode="offline"), Path(sys.argv[1]), print)
tracker.start(RunInfo(sys.argv[2], "name", "base0", "ema", (), {}))
rows = [{"epoch": t, "val_accuracy": 50 + t / 3, "val_loss": 1 / t} for t in range(1, int(sys.argv[3]) + 1)]
tracker.log(sys.argv[2], rows)
if sys.argv[4] == "wait":
    signal.pause()
os.kill(os.getpid(), signal.SIGKILL)
"""


def job(folder, run_id, last, then):
    environment = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    return subprocess.Popen([sys.executable, "-c", JOB, str(folder), run_id, str(last), then], env=environment)


def test_killed_jobs_lose_nothing_and_repeat_nothing(tmp_path, warnings):
    run_id = info().run_id
    process = job(tmp_path, run_id, 4, "wait")
    deadline = time.monotonic() + 30
    while len(union(tmp_path, run_id)) < 4:  # rows reach the file while the process lives
        assert time.monotonic() < deadline, "rows were not flushed"
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # killed before anything is flushed: leaves an empty fragment, or some of its rows
    assert job(tmp_path, run_id, 6, "die").wait() == -signal.SIGKILL

    run = opened(OFFLINE, tmp_path, info(), warnings.append)
    assert run.logged is not None
    assert run.logged >= 4
    for row in rows(1, 8):
        run.log(row)
    run.finish({})
    assert len(offline_runs(tmp_path, run_id)) == 3
    assert union(tmp_path, run_id) == rows(1, 8)
    assert warnings == []


def forkserver_job(folder, number, queue):
    said = []
    runs = [opened(OFFLINE, folder, info(f"job{number}-cell{i}"), said.append) for i in range(3)]
    for row in rows(1, 3):
        for run in runs:
            run.log(row)
    for run in runs:
        run.finish({"val_accuracy": 1.0})
    queue.put(said)


def test_jobs_of_a_forkserver_that_has_imported_wandb(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["wandb"])
    queue = context.Queue()
    processes = [context.Process(target=forkserver_job, args=(tmp_path, n, queue)) for n in range(2)]
    for process in processes:
        process.start()
    said = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert said == [[], []]
    for number in range(2):
        for cell in range(3):
            (path,) = offline_runs(tmp_path, f"job{number}-cell{cell}")
            assert read_offline(path).history == rows(1, 3)
            assert read_offline(path).finished


def test_no_key_in_any_file(tmp_path, warnings, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    run = opened(OFFLINE, tmp_path, info(), warnings.append)
    run.log({"epoch": 1, "val_loss": 1.0})
    run.finish({})
    written = [path for path in (tmp_path / "wandb").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in written)
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []


class BrokenRun:
    """A wandb run whose service is gone."""

    def log(self, *_, **__):
        raise ConnectionResetError("Connection lost\nsecond line")


def test_an_error_of_wandb_is_said_once_and_ends_tracking_only(tmp_path, warnings):
    tracker = open_tracker(OFFLINE, tmp_path, warnings.append)
    run = Handle(tracker, info())
    tracker._runs[run.run_id].run.finish()
    tracker._runs[run.run_id] = _Open(BrokenRun(), "some-cell", False, None)
    for row in rows(1, 3):
        run.log(row)
    run.finish({"val_accuracy": 1.0})
    (line,) = warnings
    assert "some-cell" in line
    assert "Connection lost" in line
    assert "\n" not in line


def test_a_run_that_cannot_start_is_not_tracked(tmp_path, warnings):
    blocked = tmp_path / "results"
    blocked.mkdir()
    (blocked / "wandb").write_text("a file where the folder should be")
    run = opened(OFFLINE, blocked, info(), warnings.append)
    run.log({"epoch": 1})
    run.finish({})
    assert run.tracker._runs == {}
    assert len(warnings) == 1


@pytest.mark.parametrize("config", [TrackerConfig("none"), TrackerConfig("wandb", mode="disabled")])
def test_tracking_that_is_off_writes_nothing(tmp_path, warnings, config):
    run = opened(config, tmp_path / "results", info(), warnings.append)
    run.log({"epoch": 1, "val_loss": 1.0})
    run.finish({}, {"modes": pd.DataFrame({"mode": [0]})})
    assert type(run.tracker) is Tracker
    assert not (tmp_path / "results").exists()
    assert warnings == []


@pytest.mark.parametrize("answers", [False, True], ids=["refused", "hanging"])
def test_a_server_that_is_away_means_offline_said_once(tmp_path, warnings, monkeypatch, answers):
    monkeypatch.setattr(server, "SECONDS", 1)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    online = TrackerConfig("wandb", mode="online")
    before = opened(OFFLINE, tmp_path, info("before-store"), warnings.append)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if answers:
            listener.listen()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        tracker = open_tracker(online, tmp_path, warnings.append)
        runs = {name: Handle(tracker, info(name)) for name in ("one-store", "two-store")}
    for run in (before, *runs.values()):
        run.log({"epoch": 1, "val_loss": 1.0})
        run.finish({})
    for name in ("before-store", *runs):
        assert union(tmp_path, name) == [{"epoch": 1, "val_loss": 1.0}]
    (line,) = warnings
    assert "offline" in line
    assert "127.0.0.1" in line
    assert KEY not in line


def test_sync_without_a_key_says_what_to_do_and_leaves_the_runs(tmp_path, warnings):
    run = opened(OFFLINE, tmp_path, info(), warnings.append)
    run.log({"epoch": 1, "val_loss": 1.0})
    run.finish({})
    with pytest.raises(ConfigError) as error:
        sync(SyncArguments(results_dir=str(tmp_path)), warnings.append)
    assert str(error.value) == (
        f"W&B at {user_settings().base_url} cannot be used: no API key is configured (`wandb login` stores one, "
        f"WANDB_API_KEY is one); the runs stay in {tmp_path / 'wandb'}, and the same command sends them when it can be "
        "used"
    )
    assert len(union(tmp_path, info().run_id)) == 1


@pytest.mark.parametrize(
    ("parts", "suffix", "expected"),
    [
        (("resnet18", "fashion_mnist", "s0", "cmd_online"), "", "resnet18-fashion_mnist-s0-cmd_online-01234567"),
        (("vit.tiny", "my data", "s0", "swa"), "-1", "vit-tiny-my-data-s0-swa-01234567-1"),
        (("a" * 90, "b" * 20, "s12", "swa"), "-2", f"{'a' * 24}-{'b' * 20}-s12-swa-01234567-2"),
    ],
)
def test_ids_of_runs_begin_readably_within_what_wandb_takes(parts, suffix, expected):
    """The longest part gives way first, so that all are told."""
    found = readable_id(*parts, digest="0123456789abcdef", suffix=suffix)
    assert found == expected
    assert len(found) <= 64


def test_settings_of_a_method_have_names_of_their_own():
    config = {"base": {}, "method": {}, "evaluate": {}}
    labels = {"model": "net", "dataset": "digits", "optimizer": "sgd", "seed": 0, "method": "swa", "batchnorm": "as_is"}
    record = {**labels, "base_key": "b" * 20, "cell_key": "c" * 20, "config": config, "run_id": "an-id"}
    assert cell_info(record, "quick").name == "net-digits-sgd-s0-swa"  # of an earlier version
    changed = cell_info(record | {"changed": {"start": 0.5, "cadence": "epoch", "ts": [1, 2]}}, "quick")
    assert changed.name == "net-digits-sgd-s0-swa-start=0.5-cadence=epoch-ts=[1,2]"
    assert changed.run_id == "an-id"


def test_online_without_a_key_goes_offline_without_a_question(tmp_path, warnings):
    run = opened(TrackerConfig("wandb", mode="online"), tmp_path, info(), warnings.append)
    run.log({"epoch": 1, "val_loss": 1.0})
    run.finish({})
    assert len(union(tmp_path, info().run_id)) == 1
    (line,) = warnings
    assert "no API key" in line


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": KEY}, "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_MODE": "online"}, "offline"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "sometimes"}, "offline"),
    ],
)
def test_auto_follows_key_and_environment(monkeypatch, environment, mode):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a network call"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    resolved, note = resolve_mode(TrackerConfig("wandb"))
    assert resolved == mode
    assert note is not None
    assert "\n" not in note
    assert KEY not in note


def test_auto_reads_netrc_and_settings_file(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:8080")
    Path(os.environ["NETRC"]).write_text(f"machine 127.0.0.1:8080 login user password {KEY}\n")
    assert resolve_mode(TrackerConfig("wandb"))[0] == "online"
    settings = tmp_path / "home" / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nmode = offline\n")
    assert resolve_mode(TrackerConfig("wandb"))[0] == "offline"


@pytest.mark.parametrize("mode", ["online", "offline", "disabled"])
def test_a_stated_mode_needs_no_note(mode):
    assert resolve_mode(TrackerConfig("wandb", mode=mode)) == (mode, None)
    assert resolve_mode(TrackerConfig("none", mode=mode)) == ("disabled", None)


def test_presets():
    def preset(name, *overrides):
        values = OmegaConf.to_container(compose(f"tracker/{name}", list(overrides)).tracker)
        return from_mapping(TrackerConfig, "tracker", values)

    with initialize_config_module("conf", version_base="1.3"):
        wandb, none, csv = preset("wandb"), preset("none", "tracker.mode=offline"), preset("csv")
    assert wandb == TrackerConfig("wandb")
    assert (csv.name, none.name, resolve_mode(none)[0]) == ("csv", "none", "disabled")


def test_target_is_the_configuration_then_the_environment_then_wandbs_settings(monkeypatch, tmp_path):
    settings = tmp_path / "home" / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nproject = of-settings\nentity = of-settings\n")
    monkeypatch.setenv("WANDB_ENTITY", "of-environment")
    monkeypatch.setenv("WANDB_TAGS", "night,gpu")
    monkeypatch.setenv("WANDB_NOTES", "of-environment")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:8080/")
    silent = resolve_target(TrackerConfig("wandb", tags=["mine"]))
    assert (silent.project, silent.entity, silent.notes) == ("of-settings", "of-environment", "of-environment")
    assert (silent.server, silent.tags) == ("http://127.0.0.1:8080", ("mine", "night", "gpu"))
    spoken = TrackerConfig("wandb", base_url="https://wandb.example", entity="e", project="p", notes="n")
    target = resolve_target(spoken)
    assert (target.server, target.entity, target.project, target.notes) == ("https://wandb.example", "e", "p", "n")


def test_environment_of_a_single_run_does_not_reach_the_many(tmp_path, warnings, monkeypatch):
    """W&B would give every run this id and name, and with a sweep's refuse ours."""
    for name in ("RUN_ID", "NAME", "RUN_GROUP", "JOB_TYPE", "SWEEP_ID", "RESUME"):
        monkeypatch.setenv(f"WANDB_{name}", "never")
    for run_id in ("one-store", "two-store"):
        opened(OFFLINE, tmp_path, info(run_id), warnings.append).finish({})
        read = read_offline(offline_runs(tmp_path, run_id)[0])
        assert (read.run_id, read.name, read.group, read.job_type) == (run_id, info().name, "base0", "ema")
    assert warnings == []
