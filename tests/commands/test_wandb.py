"""The command with a W&B server, a stand-in for it on loopback: live, killed, without it, from records, from files."""

import json
import shutil
import signal

import pandas as pd
import pytest
from command import SECONDS, cell_folder, here, hold, state, traindyn
from offline import offline_runs
from PIL import Image
from wandb_server import KEY, WandbServer

from harness.publishing import tracking_process
from harness.tracking.wandb.transaction_log import read_offline

RUN = (
    "run",
    "suite=smoke",
    "name=smoke",
    "seeds=[0]",
    "epochs=5",
    "evaluate.test=every",
    "trajectory.bundle_seconds=0",
    "method=[base,base_recalibrated,time_mean,swa,cmd_posthoc,lookahead]",
)
PUBLISH = ("publish", "name=smoke")
CELLS = 6


@pytest.fixture(scope="module")
def server():
    with WandbServer() as server:
        yield server


@pytest.fixture
def own_server():
    """One that may fail."""
    with WandbServer() as server:
        yield server


def records(results):
    return [json.loads(path.read_text()) for path in sorted(results.glob("cells/*/record.json"))]


def assert_equals_records(server, results):
    """Every run holds its record's rows once each, its numbers, and no less."""
    found = records(results)
    assert len(found) >= CELLS
    for record in found:
        run = server.runs[record["run_id"]]
        history = pd.read_parquet(results / "cells" / record["cell_key"] / "history.parquet")
        assert run.rows == [{k: v for k, v in row.items() if v == v} for row in history.to_dict("records")]
        expected = {**record["summary"], **record["cost"], "status": record["status"]}
        assert {name: run.summary[name] for name in expected} == expected
        assert run.state == ("failed" if record["status"] in ("failed", "skipped") else "finished")


def sent(config):
    """A configuration as wandb sends it, by its values: without mappings that hold none."""
    inner = {k: sent(v) if isinstance(v, dict) else v for k, v in config.items()}
    return {k: v for k, v in inner.items() if v != {}}


def has_run(server, method):
    """Whether the server knows the run of a method's cell."""
    return any(run.display.endswith(f"-{method}") for run in server.runs.values())


@pytest.fixture(scope="module")
def killed(server, tmp_path_factory):
    """Interrupted, which sends what there is, killed, then finished; and what was printed.

    An epoch has 6 steps: the first run ends in the base's third epoch, the second in its fourth.
    """
    results = tmp_path_factory.mktemp("online") / "results"
    # however slow the machine is, tracking has the time to send what there is
    patient = {"CONSTANT": f"{tracking_process.__name__} LEAVE_SECONDS {SECONDS}"}
    held = hold(15, *RUN, results=results, variables=server.environment() | patient)
    server.until(lambda: has_run(server, "swa"))
    held.end(signal.SIGINT)
    interrupted = sum(len(run.lines) for run in server.runs.values())
    hold(9, *RUN, results=results, variables=server.environment()).end(signal.SIGKILL)
    done = traindyn(*RUN, results=results, variables=server.environment())
    return results, interrupted, done.stdout


def test_an_interrupted_run_has_sent_its_rows(killed):
    assert killed[1] > 0


def test_a_killed_run_that_goes_on_leaves_every_row_once(killed, server):
    results, _, stdout = killed
    assert f"W&B runs online at {server.url}" in stdout
    assert_equals_records(server, results)
    assert {run_id for run_id in server.runs if not run_id.startswith("suite-")} == {
        record["run_id"] for record in records(results)
    }


def test_publish_finds_all_there(killed, server):
    before = {run_id: (list(run.lines), dict(run.summary)) for run_id, run in server.runs.items()}
    done = here(*PUBLISH, results=killed[0], variables=server.environment())
    assert f"{CELLS + 1} there already" in done.stdout
    assert {run_id: (list(run.lines), dict(run.summary)) for run_id, run in server.runs.items()} == before


def test_publish_rebuilds_what_the_server_never_had(killed, own_server):
    """Without any file of W&B's, as on another machine."""
    results = killed[0].parent / "elsewhere"
    shutil.copytree(killed[0], results, ignore=shutil.ignore_patterns("wandb"))
    for expected in (f"{CELLS + 1} sent", f"{CELLS + 1} there already"):
        done = here(*PUBLISH, results=results, variables=own_server.environment())
        assert expected in done.stdout
        assert_equals_records(own_server, results)


def test_publish_does_not_repeat_what_is_refused(killed, own_server):
    """A run that was deleted there is none to be given again: the command says so each time."""
    results = killed[0].parent / "again"
    shutil.copytree(killed[0], results, ignore=shutil.ignore_patterns("wandb"))
    gone = records(results)[0]["run_id"]
    own_server.deleted.add(gone)
    for expected in (f"{CELLS} sent, 1 refused", f"{CELLS} there already, 1 refused"):
        done = here(*PUBLISH, results=results, code=1, variables=own_server.environment())
        assert expected in done.stdout
        assert gone in done.stdout
        assert "the same command again" not in done.stdout


def test_arrangement(killed, server):
    results = killed[0]
    record = json.loads((cell_folder(results, "smoke", "swa") / "record.json").read_text())
    run = server.runs[record["run_id"]]
    config = {name: entry["value"] for name, entry in run.config.items()}
    assert run.display == "test_resnet-digits-sgd_momentum-s0-swa"
    assert run.group == f"test_resnet-digits-sgd_momentum-s0-{record['base_key'][:8]}"
    assert run.job_type == "swa"
    assert run.tags == ["smoke", "test_resnet", "digits", "swa"]
    assert config["base"] == sent(record["config"]["base"])
    assert config["method_config"] == sent(record["config"]["method"])
    assert config["evaluate"]["test"] == "every"
    assert config["environment"]["versions"] == record["versions"]
    curves = {"train_loss", "val_loss", "val_accuracy", "test_accuracy", "lr", "train_seconds", "method_seconds"}
    assert all(curves <= set(row) for row in run.rows)
    assert run.summary["val_accuracy_max"] == max(row["val_accuracy"] for row in run.rows)
    assert run.summary["train_loss_min"] == min(row["train_loss"] for row in run.rows)
    assert len({server.runs[r["run_id"]].group for r in records(results)}) == 1


def test_the_suites_own_run(killed, server):
    """The comparison table, and the frame as an artifact."""
    results = killed[0]
    (run,) = [run for run_id, run in server.runs.items() if run_id.startswith("suite-smoke-")]
    frame = pd.read_parquet(results / "suites/smoke/frame.parquet")
    table = json.loads(run.files[run.summary["tables/comparison"]["path"]])
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    means = {row["method"]: row["mean"] for row in rows if row["metric"] == "test_accuracy"}
    assert means == pytest.approx(dict(zip(frame["method"], frame["test_accuracy"], strict=True)))
    (artifact,) = [a for a in server.artifacts if a["type"] == "frame"]
    stored = server.storage[f"artifacts/{artifact['id']}/frame.parquet"]
    assert stored == (results / "suites/smoke/frame.parquet").read_bytes()
    bits = server.storage[f"artifacts/{artifact['id']}/correct.parquet"]
    assert bits == (results / "suites/smoke/correct.parquet").read_bytes()
    assert run.config["plan"]["value"]["epochs"] == 5
    assert (run.job_type, run.summary["cells_done"]) == ("suite", CELLS)


@pytest.mark.long
def test_figures_and_all_artifacts_by_choice(smoke_copy, own_server):
    """Of the whole smoke suite with its weights: fitted models, manifests of trajectories, figures."""
    here("report", "suite=smoke", "figures=none", results=smoke_copy)
    for name in ("one-curves", "one-layers"):
        figure = smoke_copy / "suites/smoke/figures" / name
        figure.parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2)).save(figure.with_suffix(".png"))
        figure.with_suffix(".pdf").write_bytes(b"%PDF-")
    done = here(*PUBLISH, "tracker.artifacts=all", results=smoke_copy, variables=own_server.environment())
    assert "19 sent" in done.stdout
    kinds = [artifact["type"] for artifact in own_server.artifacts if artifact["committed"]]
    assert (kinds.count("model"), kinds.count("trajectory"), kinds.count("frame")) == (18, 2, 1)
    names = {path.rpartition("/")[2] for path in own_server.storage}
    assert {"weights.safetensors", "fitted.safetensors", "manifest.json", "main.tex"} <= names
    for path, data in own_server.storage.items():
        if path.endswith("manifest.json") and path.startswith("artifacts/"):
            found = json.loads(data)
            base = json.loads((smoke_copy / "bases" / found["base_key"] / "base.json").read_text())
            assert found["weights"] == base["digests"]
            assert [entry["epoch"] for entry in found["snapshots"]] == list(range(7))
    (run,) = [run for run_id, run in own_server.runs.items() if run_id.startswith("suite-")]
    figures = sorted(path.stem for path in (smoke_copy / "suites/smoke/figures").glob("*.png"))
    assert figures == ["one-curves", "one-layers"]
    (row,) = run.rows
    assert sorted(name.removeprefix("figures/") for name in row if name.startswith("figures/")) == figures
    (artifact,) = [artifact for artifact in own_server.artifacts if artifact["type"] == "report"]
    begins, report = f"artifacts/{artifact['id']}/", smoke_copy / "suites/smoke/report"
    sent = {path.removeprefix(begins) for path in own_server.storage if path.startswith(begins)}
    assert sent == {str(path.relative_to(report)) for path in report.rglob("*") if path.is_file()}
    assert {"index.html", "plotly.min.js", "curves.js"} <= sent
    again = here(*PUBLISH, "tracker.artifacts=all", results=smoke_copy, variables=own_server.environment())
    assert "19 there already" in again.stdout


def test_a_server_that_goes_away_in_mid_run(own_server, tmp_path):
    """The run ends as it would have, says it once, and publish gives what is missing once the server is back."""
    results = tmp_path / "results"
    held = hold(15, *RUN, results=results, variables=own_server.environment())
    own_server.until(lambda: has_run(own_server, "swa"))
    own_server.stop()
    held.go_on()
    stdout, stderr = held.process.communicate(timeout=SECONDS)
    assert held.process.returncode == 0, stdout + stderr
    assert stderr == ""
    (line,) = [line for line in stdout.splitlines() if "cannot be used" in line]
    assert own_server.url in line
    assert len(records(results)) == CELLS
    own_server.start()
    done = here(*PUBLISH, results=results, variables=own_server.environment())
    assert "there" in done.stdout or "sent" in done.stdout
    assert_equals_records(own_server, results)


def test_sync_sends_what_was_kept_offline(smoke_copy, own_server):
    """Empty fragments are skipped; a second time there is nothing to do; publish agrees."""
    fragment = next((smoke_copy / "wandb").glob("offline-run-*/run-*.wandb"))
    empty = smoke_copy / "wandb/offline-run-20200101_000000-never/run-never.wandb"
    empty.parent.mkdir()
    empty.write_bytes(fragment.read_bytes()[:7])
    trial = here("sync", results=smoke_copy, variables=own_server.environment())
    assert f"19 sent: {own_server.url}" in trial.stdout
    assert "20 fragments" in trial.stdout
    assert "1 of them empty" in trial.stdout
    assert_equals_records(own_server, smoke_copy)
    assert "never" not in own_server.runs
    again = here("sync", results=smoke_copy, variables=own_server.environment())
    assert "19 there already" in again.stdout
    done = here(*PUBLISH, results=smoke_copy, variables=own_server.environment())
    assert "19 there already" in done.stdout
    assert_equals_records(own_server, smoke_copy)


@pytest.mark.long
def test_sync_of_runs_that_no_record_is_of(smoke_copy, own_server):
    """Such as trials: from their fragments alone."""
    shutil.rmtree(smoke_copy / "cells")
    shutil.rmtree(smoke_copy / "suites")
    logs = {path.stem.removeprefix("run-"): path for path in (smoke_copy / "wandb").glob("offline-run-*/run-*.wandb")}
    here("sync", results=smoke_copy, variables=own_server.environment())
    assert set(own_server.runs) == set(logs)
    for run_id, path in logs.items():
        read, run = read_offline(path), own_server.runs[run_id]
        assert (run.display, run.group, tuple(run.tags)) == (read.name, read.group, read.tags)
        assert run.rows == read.history
        assert {k: v["value"] for k, v in run.config.items() if k != "_wandb"} == sent(read.config)
        kept = {k for k in read.summary if not k.startswith("tables/")}
        assert {k: run.summary[k] for k in kept} == {k: read.summary[k] for k in kept}
        assert {k for k in run.summary if k.startswith("tables/")} == set(read.summary) - kept
    again = here("sync", results=smoke_copy, variables=own_server.environment())
    assert "19 there already" in again.stdout


def test_sync_without_a_server_or_a_key(smoke):
    before = state(smoke.results)
    for variables in ({}, {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": KEY}):
        done = here("sync", results=smoke.results, variables=variables, code=2)
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: W&B at ")
        assert KEY not in line
    assert state(smoke.results) == before


def test_publish_offline_fills_what_is_lacking(smoke_copy):
    """Fragments of one cell are gone, those of another were cut short by a kill."""
    here(*PUBLISH, "tracker.mode=offline", results=smoke_copy)  # figures may have been drawn since the run
    gone, torn = (json.loads((cell_folder(smoke_copy, "smoke", m) / "record.json").read_text()) for m in ("swa", "ema"))
    shutil.rmtree(offline_runs(smoke_copy, gone["run_id"])[0].parent)
    (log,) = offline_runs(smoke_copy, torn["run_id"])
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
    first = read_offline(log).history
    done = here(*PUBLISH, "tracker.mode=offline", results=smoke_copy)
    assert "2 sent, 17 there already" in done.stdout
    for record in (gone, torn):
        logs = offline_runs(smoke_copy, record["run_id"])
        rows = [row for path in logs for row in read_offline(path).history]
        history = pd.read_parquet(smoke_copy / "cells" / record["cell_key"] / "history.parquet")
        assert rows == [{k: v for k, v in row.items() if v == v} for row in history.to_dict("records")]
        assert read_offline(logs[-1]).finished
    assert len(first) < 6


@pytest.mark.long
def test_a_redone_cell_is_another_run(killed, own_server, tmp_path):
    """W&B's history only appends; the earlier run stays as it was."""
    results = shutil.copytree(killed[0], tmp_path / "results", ignore=shutil.ignore_patterns("wandb"))
    here(*PUBLISH, results=results, variables=own_server.environment())
    first = json.loads((cell_folder(results, "smoke", "swa") / "record.json").read_text())["run_id"]
    before = list(own_server.runs[first].lines)
    here(*RUN, "redo=swa", results=results, variables=own_server.environment())
    assert own_server.runs[first].lines == before
    assert f"{first}-1" in own_server.runs
    assert_equals_records(own_server, results)


@pytest.mark.long
def test_a_base_that_starts_over_is_another_run(own_server, tmp_path):
    """Rows that were sent are void when the bundle they came from is damaged: the new ones have other seconds."""
    results = tmp_path / "results"
    held = hold(15, *RUN, results=results, variables=own_server.environment())
    own_server.until(lambda: has_run(own_server, "swa"))
    held.end(signal.SIGINT)
    (bundle,) = results.glob("bases/*/restart/latest.safetensors")
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    traindyn(*RUN, results=results, variables=own_server.environment())
    assert_equals_records(own_server, results)
    swa = json.loads((cell_folder(results, "smoke", "swa") / "record.json").read_text())
    assert swa["run_id"].endswith("-1")


def test_a_run_that_is_not_as_its_record_is_left_alone(killed, own_server, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.publishing.publish.PAUSES", (0.0,))
    results = shutil.copytree(killed[0], tmp_path / "results", ignore=shutil.ignore_patterns("wandb"))
    here(*PUBLISH, results=results, variables=own_server.environment())
    record = json.loads((cell_folder(results, "smoke", "swa") / "record.json").read_text())
    run = own_server.runs[record["run_id"]]
    run.lines[-1] = json.dumps({**json.loads(run.lines[-1]), "val_loss": 123.0})
    run.summary["record"] = "another"
    before = list(run.lines)
    done = here(*PUBLISH, results=results, variables=own_server.environment(), code=1)
    assert f"{record['run_id']} holds rows that are not its record's" in done.stdout
    assert run.lines == before


def test_csv_tracker_and_none(killed, tmp_path):
    """Other trackers are fed with the same: rows, numbers, tables."""
    results = shutil.copytree(killed[0], tmp_path / "results", ignore=shutil.ignore_patterns("wandb"))
    for expected in (f"{CELLS + 1} sent", f"{CELLS + 1} there already"):
        assert expected in here(*PUBLISH, "tracker=csv", results=results).stdout
    for record in records(results):
        folder = results / "csv" / record["run_id"]
        history = pd.read_parquet(results / "cells" / record["cell_key"] / "history.parquet")
        given = pd.read_csv(folder / "history.csv")
        pd.testing.assert_frame_equal(given[list(history.columns)], history)
        run = json.loads((folder / "run.json").read_text())
        assert run["summary"].items() >= record["summary"].items()
        assert run["status"] == "done"
    assert not (results / "wandb").exists()
    here(*PUBLISH, "tracker=none", results=results, code=2)


def test_csv_tracker_while_running(tmp_path):
    results = tmp_path / "results"
    here(*RUN[:-1], "method=[base,swa]", "tracker=csv", results=results)
    for record in records(results):
        given = pd.read_csv(results / "csv" / record["run_id"] / "history.csv")
        assert list(given["epoch"]) == [1, 2, 3, 4, 5]
    assert not (results / "wandb").exists()


def test_no_secret_in_any_file(tmp_path, own_server):
    """The key stands in the environment, another secret in an override; neither in a record, a log, a plan, a run."""
    results = tmp_path / "results"
    secret = "hf_0123456789abcdefghij"
    variables = own_server.environment() | {"HF_TOKEN": secret}
    override = f"tracker.notes='see https://me:{secret}@host/x'"
    here(*RUN[:-1], "method=[base]", override, results=results, variables=variables)
    files = [path for path in results.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if KEY.encode() in path.read_bytes() or secret.encode() in path.read_bytes()] == []
    held = json.dumps([[run.notes, run.config, run.summary] for run in own_server.runs.values()])
    assert KEY not in held
    assert secret not in held


def test_bad_requests(smoke):
    for words in (["publish", "epochs=3"], ["sync", "suite=smoke"], ["publish", "suite=smoek"]):
        done = here(*words, results=smoke.results, code=2)
        assert len(done.stderr.splitlines()) == 1
    for given in ("tracker.mode=loud", "tracker.artifacts=some", "tracker.base_url=here", "tracker=mlflow"):
        done = here(*PUBLISH, given, results=smoke.results, code=2)
        assert given.partition("=")[0] in done.stderr
