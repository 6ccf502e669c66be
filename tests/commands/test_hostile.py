"""Folders of strangers, through the command: nothing outside changes or is fetched, all that is wrong is one line."""

import json
import socket
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from command import here
from hostile import SUITE, Hostile, bounded
from hypothesis import HealthCheck, given, settings

from harness import load_frame, load_model
from harness.config import ConfigError
from harness.results.load_model import base_from_record
from harness.storage.store import Store

REPORT = ("report", f"suite={SUITE}", "figures=none")
NO_NETWORK = {"WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def hostile(tmp_path):
    return Hostile(tmp_path)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whoever connects fails the test; sockets between processes of this machine are files."""
    connect = socket.socket.connect

    def refuse(self, address):
        if self.family != socket.AF_UNIX:
            pytest.fail(f"connected to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


def run(*words, hostile, code=(0, 1, 2)):
    """A command that ends within the bounds, with a code, and leaves what is outside as it is; what it printed."""
    with bounded():
        done = here(*words, results=hostile.results, code=code, variables=NO_NETWORK)
    assert hostile.unharmed()
    if done.returncode == 2:
        assert len(done.stderr.splitlines()) == 1
    assert "\x1b" not in done.stdout + done.stderr
    return done


def test_names_of_a_plan_lead_nowhere(hostile):
    for name, value in (
        ("model", str(hostile.outside / "a")),
        ("method", "../../../../outside/a"),
        ("cell_key", "../../outside"),
        ("optimizer", "sgd\x1b[2J"),
    ):
        plan = hostile.plan.read_bytes()
        hostile.change(hostile.plan, ("cells", 0, name), value)
        done = run(*REPORT, hostile=hostile, code=2)
        assert f"plan.json must be a plan: cells[0].{name} must be " in done.stderr
        hostile.plan.write_bytes(plan)


def test_names_of_records_and_of_the_store_lead_nowhere(hostile):
    hostile.change(hostile.cells[0] / "record.json", ("run_id",), "../../../outside/within")
    done = run("publish", f"suite={SUITE}", "tracker=csv", hostile=hostile)
    assert "run_id must be letters, digits" in done.stdout
    assert "4 sent, 1 not run yet" not in done.stderr
    (hostile.results / "store.json").write_text('{"id": "/../../../outside/x"}')
    assert (
        "store.json must hold the id" in run("publish", f"suite={SUITE}", "tracker=csv", hostile=hostile, code=2).stderr
    )


def test_no_key_is_sent_to_a_server_that_a_plan_names(hostile):
    for name in ("name", "mode", "base_url"):
        value = {"name": "wandb", "mode": "online", "base_url": "http://127.0.0.1:9"}[name]
        hostile.change(hostile.plan, ("config", "tracker", name), value)
    done = run("publish", f"suite={SUITE}", hostile=hostile, code=2)
    assert "tracker.base_url must be given" in done.stderr


def test_a_report_of_links_and_damage_serves_the_rest(hostile):
    """Two cells of five are left: one is a link, and the other's history is a table that expands a thousandfold."""
    import io

    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pa.table({"epoch": pa.nulls(60_000_000)}), buffer)
    methods = {json.loads((cell / "record.json").read_bytes())["method"]: cell for cell in hostile.cells}
    hostile.link(methods["ema"])
    hostile.history(methods["swa"], buffer.getvalue())
    figures = hostile.results / "suites" / SUITE / "figures"
    hostile.link(figures / "suite-curves.png", "a.csv")
    done = run(*REPORT, hostile=hostile, code=0)
    assert done.stdout.count("is a link, which is not followed") == 2
    assert done.stdout.count("its cell counts as left") == 1
    frame = load_frame(hostile.results, SUITE).set_index("method")
    assert dict(frame["status"].value_counts()) == {"done": 3, "left": 2}
    assert not list((hostile.results / "suites" / SUITE / "report").glob("figures/*.png"))


def test_no_model_is_built_that_a_command_would_refuse(hostile):
    path = hostile.cells[0] / "record.json"
    model = ("config", "base", "model")
    for place, value, line in (
        ((*model, "timm"), "hf-hub:a-stranger/model", "model.test_resnet.timm must be a timm model"),
        ((*model, "timm"), "local-dir:/tmp", "model.test_resnet.timm must be a timm model"),
        ((*model, "kwargs"), {"checkpoint_path": "/etc/passwd"}, "kwargs must not hold checkpoint_path"),
        ((*model, "kwargs"), {"pretrained_cfg": {"file": "x"}}, "kwargs must not hold pretrained_cfg"),
        (("config", "base"), {"model": {}}, "must hold the configuration of its base"),
    ):
        whole = path.read_bytes()
        hostile.change(path, place, value)
        record = Store(hostile.results).record(path.parent.name)
        with pytest.raises(ConfigError, match=line):
            base_from_record(record)
        path.write_bytes(whole)
    hostile.change(path, (*model, "pretrained"), True)
    (path.parent / "weights.safetensors").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"weights\.safetensors: "):
        load_model(hostile.results, path.parent.name)


HOSTILE_VALUES = st.sampled_from(
    [None, True, -1, 10**400, float("nan"), "", "../../../outside/a", "/etc/passwd", "x\x1b]0;y\x07", "\u202ex", "=1+1",
     "a|b\nc", [], {}, [[]] * 3, {"x": {"y": [1]}}, "x" * 5000, 1e308]
)  # fmt: skip
FILES = st.sampled_from(["plan.json", "record.json", "base.json", "store.json", "history.parquet", "frame.parquet"])
WAYS = st.sampled_from(["link", "fifo", "folder", "empty", "deep", "flip", "half", "giant"])
COMMANDS = st.sampled_from(
    [REPORT, ("publish", f"suite={SUITE}", "tracker=csv"), ("doctor", "repair=true", "free=true"), ("merge",)]
)


def files_of(hostile, *names):
    """The regular files of some names that are left in a folder, in order."""
    found = (path for name in names for path in hostile.results.rglob(name))
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def spoil_json(hostile, draw):
    """Another value somewhere in a record or a plan, whatever is left of them."""
    paths = files_of(hostile, "plan.json", "base.json", "record.json")
    if not paths:
        return
    path = draw(st.sampled_from(paths))
    try:
        inner = json.loads(path.read_bytes())
    except (ValueError, RecursionError):  # spoiled before
        return
    place = []
    while isinstance(inner, dict | list) and inner and (not place or draw(st.booleans())):
        place.append(draw(st.sampled_from(sorted(inner))) if isinstance(inner, dict) else 0)
        inner = inner[place[-1]]
    if place:
        hostile.change(path, tuple(place), draw(HOSTILE_VALUES))


def spoil_file(hostile, draw):
    """Another kind of thing in the place of a file or a folder."""
    paths = files_of(hostile, draw(FILES))
    if not paths:
        return
    path = draw(st.sampled_from(paths))
    if path.parent != hostile.results:  # which is what the command is given
        path = draw(st.sampled_from([path, path, path.parent]))
    way = draw(WAYS)
    if way in ("link", "fifo"):
        getattr(hostile, way)(path)
    elif way == "folder" or path.is_dir():
        hostile.clear(path)
        path.mkdir()
    elif way in ("flip", "half"):
        data = bytearray(path.read_bytes())
        if data:
            data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
        path.write_bytes(data if way == "flip" else data[: len(data) // 2])
    else:
        path.write_bytes(b"[" * 100_000 if way == "deep" else b"")
        if way == "giant":
            with open(path, "r+b") as file:
                file.truncate(50 << 30)


def any_mutation(data):
    """Spoil a folder once or twice, and run a command on it."""
    with tempfile.TemporaryDirectory() as folder:
        hostile = Hostile(folder)
        for _ in range(data.draw(st.integers(1, 2))):
            data.draw(st.sampled_from([spoil_json, spoil_file]))(hostile, data.draw)
        words = data.draw(COMMANDS)
        if words == ("merge",):
            words = ("merge", f"from={hostile.results}")
            other = Hostile(Path(folder) / "other")
            run(*words, hostile=other)
            assert hostile.unharmed()
        else:
            run(*words, hostile=hostile)


def test_the_bounds_stop_whoever_takes_more():
    """The net that the others hang over: a loop without end, and memory without end, within `bounded`."""
    with pytest.raises(TimeoutError, match="more than 0 seconds"), bounded(seconds=0):
        all(iter(lambda: True, False))
    with pytest.raises(MemoryError), bounded(memory=1 << 26):
        bytearray(1 << 28)


FIXED = HealthCheck.function_scoped_fixture


@settings(max_examples=10, derandomize=True, suppress_health_check=[FIXED, HealthCheck.too_slow])
@given(st.data())
def test_any_mutation_ends_with_a_code_and_leaves_what_is_outside(data):
    any_mutation(data)


@pytest.mark.long
@settings(max_examples=400, suppress_health_check=[FIXED, HealthCheck.too_slow])
@given(st.data())
def test_many_mutations_end_with_a_code_and_leave_what_is_outside(data):
    any_mutation(data)
