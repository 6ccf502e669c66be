"""A federated run through the command: keys, records, kills, processes, and what is refused before it."""

import json
import random
import shutil
import signal

import pandas as pd
import pytest
from command import SECONDS, SHIM, assert_same, curves, here, numbers, start, traindyn, view_folder

from harness.config import ENGINES, EngineConfig
from harness.planning.compose import Request
from harness.planning.plan import make_plan
from harness.planning.resolve import resolve
from harness.planning.slots import client_processes
from harness.storage.store import Store

RUN = (
    *("run", "dataset=digits", "model=test_resnet", "epochs=4", "batch_size=32", "tracker=none", "name=fed"),
    *("dataset.digits.train_size=300", "dataset.digits.val_size=100", "dataset.digits.test_size=100"),
    *("evaluate.recalibrate_images=64", "trajectory.bundle_seconds=0", "save=final"),
    *("federation=iid_10", "federation.iid_10.clients=4", "federation.iid_10.per_round=3"),
    *("federation.iid_10.optimizer_state=keep", "method=[base,base_recalibrated,ema,cmd_posthoc]"),
    *("method.cmd_posthoc.modes=2", "method.cmd_posthoc.samples=20"),
)
KEYS_OF_SMOKE = ["c8797f906e8af2db4939", "4a9e83a01e7edf0b35ee"]
"""of suite=smoke, before there were federations"""
LAST = 30
"""about as many writes as an undisturbed run has"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    results = tmp_path_factory.mktemp("federated") / "results"
    traindyn(*RUN, results=results)
    return results


def bases(results):
    return {path.parent.name: json.loads(path.read_text()) for path in results.glob("bases/*/base.json")}


def same(expected, results):
    assert_same(numbers(expected, "fed"), numbers(results, "fed"))
    assert_same(curves(expected, "fed"), curves(results, "fed"))
    assert {k: b["digests"] for k, b in bases(expected).items()} == {k: b["digests"] for k, b in bases(results).items()}


def test_everything_that_watches_ran_on_the_servers_weights(finished):
    history = pd.read_parquet(view_folder(finished, "fed") / "history.parquet")
    assert {"base", "base_recalibrated", "cmd_posthoc", "ema"} <= {*history["method"]}
    own = history[history["method"] == "base"].sort_values("epoch")
    assert own["epoch"].tolist() == [1, 2, 3, 4]
    assert (own["upload_bytes"].diff().dropna() == own["upload_bytes"].iloc[0]).all()
    assert (own["upload_bytes"] == own["download_bytes"]).all()
    assert (own["clients"] == 3).all()
    assert (own[["update_norm", "client_drift", "longest_client_seconds"]] > 0).all(axis=None)
    (base,) = bases(finished).values()
    # 75 images each: two full batches of 32 per client and round
    assert base["counts"]["gradients_full"] == 4 * 3 * 64
    assert base["federation"] == "iid_10"
    assert len(base["partition"]) == 20


def test_two_processes_beside_have_the_same_numbers(finished, tmp_path):
    traindyn(*RUN, "engine.clients=2", results=tmp_path / "results")
    same(finished, tmp_path / "results")


def kills(seed, count):
    draws = random.Random(seed)
    return [draws.randint(2, LAST) for _ in range(count)]


@pytest.mark.parametrize(
    "writes",
    [kills("federated", 2), *(pytest.param([write], marks=pytest.mark.long) for write in range(1, LAST + 1))],
    ids=str,
)
def test_killed_at_a_write_it_goes_on_to_the_same_numbers(finished, tmp_path, writes):
    results, counter, killed = tmp_path / "results", tmp_path / "counter", 0
    for write in writes:
        counter.unlink(missing_ok=True)
        fault = {"PYTHONPATH": str(SHIM), "FAULT": f"kill write {write} {counter}"}
        process = start(*RUN, results=results, variables=fault)
        process.communicate(timeout=SECONDS)
        assert process.returncode in (0, -signal.SIGKILL)
        killed += process.returncode != 0
    assert killed > 0
    traindyn(*RUN, results=results)
    same(finished, results)
    assert not list(results.rglob("*.corrupt-*"))
    assert not list(results.rglob("latest.safetensors"))


def test_a_base_without_clients_keeps_its_key(tmp_path):
    """That of a run before there were federations."""
    plan = make_plan(resolve(Request(("suite=smoke", f"results_dir={tmp_path}")), "test"), Store(tmp_path))
    assert [base.key for base in plan.bases] == KEYS_OF_SMOKE
    keyed = set()
    for more in (
        (),
        ("clients=5",),
        ("per_round=3",),
        ("local_epochs=2",),
        ("partition=shards",),
        ("partition=shards", "shards=3"),
        ("partition=dirichlet",),
        ("partition=dirichlet", "alpha=1"),
        ("partition=dirichlet", "least=5"),
        ("partition_seed=1",),
        ("weighting=equal",),
        ("optimizer_state=keep",),
    ):
        own = [f"federation.iid_10.{text}" for text in more]
        request = Request(("suite=smoke", f"results_dir={tmp_path}", "federation=iid_10", "method=base", *own))
        keyed.add(make_plan(resolve(request, "test"), Store(tmp_path)).bases[0].key)
    assert len(keyed) == 12
    same_key = ("alpha=3", "least=7", "shards=5", "per_round=10")  # of other partitions; all clients of a round
    for text in same_key:
        request = ("suite=smoke", f"results_dir={tmp_path}", "federation=iid_10", "method=base")
        plan = make_plan(resolve(Request((*request, f"federation.iid_10.{text}")), "test"), Store(tmp_path))
        assert plan.bases[0].key in keyed


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["federation.iid_10.clients=-1"], "federation.iid_10.clients must be at least 0, got -1"),
        (
            ["federation.iid_10.clients=1201"],
            "federation.iid_10.clients must be at most 1200, the training images of digits, got 1201",
        ),
        (["federation.iid_10.per_round=0"], "federation.iid_10.per_round must be at least 1, got 0"),
        (["federation.iid_10.per_round=11"], "federation.iid_10.per_round must be at most 10, the clients, got 11"),
        (["federation.iid_10.alpha=0"], "federation.iid_10.alpha must be above 0, got 0"),
        (["federation.iid_10.alpha=-1"], "federation.iid_10.alpha must be above 0, got -1"),
        (["federation.iid_10.local_epochs=0"], "federation.iid_10.local_epochs must be at least 1, got 0"),
        (
            ["federation.iid_10.partition=shards", "federation.iid_10.shards=121"],
            "federation.iid_10.shards must be at most 120, so that 10 clients have a shard each of the 1200 training "
            "images of digits, got 121",
        ),
        (
            ["federation.iid_10.partition=dirichlet", "federation.iid_10.least=121"],
            "federation.iid_10.least must be at most 120, what 10 clients can have of the 1200 training images of "
            "digits, got 121",
        ),
        (["federation.iid_10.weighting=none"], "federation.iid_10.weighting must be one of images, equal, got 'none'"),
        (
            ["method=[base,lookahead]"],
            "method.lookahead must run where all images are in one place, since it trains on its own and is no "
            "exchange between clients, got federation=iid_10",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(tmp_path, given, line):
    common = ("run", "dataset=digits", "model=test_resnet", "method=base", "federation=iid_10", "tracker=none")
    ended = here(*common, *given, results=tmp_path / "results", code=2)
    assert ended.stderr == f"error: {line}\n"
    assert not (tmp_path / "results").exists()


def test_a_draw_that_is_not_there_names_its_client(tmp_path):
    alpha = ("federation=dirichlet_10", "federation.dirichlet_10.alpha=1e-6")
    ended = here("run", "dataset=digits", "model=test_resnet", *alpha, results=tmp_path / "results", code=2)
    assert len(ended.stderr.splitlines()) == 1
    assert (
        "least must be reached by every client in one of 100 draws with alpha = 1e-06, got 10: client" in ended.stderr
    )


def test_streamed_images_are_not_dealt(tmp_path):
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / "pictures" / name / f"{number}.png")
    folder = ("dataset=image_folder", f"dataset.image_folder.root={tmp_path / 'pictures'}", "fast=true")
    ended = here("plan", *folder, "federation=iid_10", "method=base", results=tmp_path / "results", code=2)
    assert "federation.iid_10.clients must be 0 for image_folder, whose images are streamed, got 10" in ended.stderr


def test_a_base_that_is_dealt_otherwise_when_it_is_repeated_is_refused(finished, tmp_path, monkeypatch):
    """As where another NumPy draws other shares: its record has another digest than what is dealt now."""
    results = shutil.copytree(finished, tmp_path / "results")
    store = Store(results)
    (key,) = bases(results)
    record = store.base(key)
    assert record is not None
    store.write_base({**record, "partition": "0" * 20}, store.base_history(key), store.base_folder(key))
    again = [word for word in RUN if not word.startswith(("method", "name"))]
    ended = here(*again, "method=[base,fed_half]", results=results, code=1)
    said = "differs from the recorded one (00000000000000000000): redo=base trains it anew"
    assert said in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("jobs", "given", "expected"),
    [
        (1, {}, 8),
        (2, {}, 4),
        (3, {}, 2),
        (8, {}, 1),
        (99, {}, 1),
        (1, {"threads": 2}, 4),
        (5, {"workers": 2}, 4),
        (9, {"clients": 3}, 3),
    ],
)
def test_clients_have_the_cores_that_other_jobs_leave(monkeypatch, jobs, given, expected):
    monkeypatch.setattr("harness.planning.slots.cores", lambda: 8)
    assert client_processes(EngineConfig("local", **given), "cpu", jobs) == expected


def test_elsewhere_a_job_has_its_own_core_alone():
    assert client_processes(ENGINES["ray"]("ray"), "cpu", 1) == 1
    assert client_processes(EngineConfig("local"), "cuda", 1) == 1
