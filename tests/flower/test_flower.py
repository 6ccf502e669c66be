"""`engine=flower` on its simulation and on a SuperLink of this machine: `make test-flower`."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import SECONDS, assert_same, curves, numbers, start, traindyn, wait_until

pytest.importorskip("flwr")
from harness.running.flower.link import LOOPBACK, answers, environment, free_port

pytestmark = pytest.mark.flower
STUMBLES = """
import os, signal
from dataclasses import dataclass
from pathlib import Path

from harness.method import Exchange


@dataclass(eq=False)
class Stumbles(Exchange):
    '''Whose client 0 fails in round 2, and whose client 1 loses its process in round 3, the first time each.'''

    marks: str

    def start(self, client, payload):
        mark = Path(self.marks) / f"{client.k}-{client.t}"
        if (client.k, client.t) in ((0, 1), (1, 2)) and not mark.exists():
            mark.touch()
            if client.k == 0:
                raise ValueError("it stumbled")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().start(client, payload)
"""
RUN = (
    *("run", "dataset=digits", "model=test_resnet", "optimizer=sgd", "batch_size=32", "tracker=none", "name=fed"),
    *("dataset.digits.train_size=300", "dataset.digits.val_size=100", "dataset.digits.test_size=100", "seeds=[0]"),
    *("evaluate.recalibrate_images=64", "trajectory.bundle_seconds=0", "federation=iid_10"),
    *("federation.iid_10.clients=2", "federation.iid_10.optimizer_state=keep"),
)


def bases(results):
    return {path.parent.name: json.loads(path.read_text())["digests"] for path in results.glob("bases/*/base.json")}


def assert_as_in_process(expected, results):
    assert bases(expected) == bases(results)
    assert_same(numbers(expected, "fed"), numbers(results, "fed"))
    assert_same(curves(expected, "fed"), curves(results, "fed"))


def words_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def processes(results, name=""):
    """Those whose files of Flower's lie below a results folder, and that run a program of this name."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            its = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ours = any(one.startswith(f"FLWR_HOME={results}/".encode()) for one in its)
        if ours and any(word.endswith(name.encode()) for word in words_of(path.name)):
            found.append(int(path.name))
    return found


def assert_nothing_is_left(results):
    deadline = time.monotonic() + SECONDS
    while processes(results):
        assert time.monotonic() < deadline, [words_of(pid) for pid in processes(results)]
        time.sleep(0.1)
    assert not (results / "engine").exists()


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder of presets with an exchange of the user's own, whose clients fail as long as no marks are there."""
    folder = tmp_path_factory.mktemp("own")
    for name in ("method", "marks"):
        (folder / name).mkdir()
    (folder / "stumbles.py").write_text(STUMBLES)
    (folder / "method" / "stumbles.yaml").write_text(
        f"stumbles:\n  _target_: stumbles.Stumbles\n  marks: {folder / 'marks'}\n  batchnorm: as_is\n"
    )
    return folder


def test_simulation_has_the_bits_of_one_process_though_clients_fail(own, tmp_path):
    command = (*RUN, "epochs=3", "method=[base,base_recalibrated,fedpaq,stumbles]", f"--config-dir={own}")
    done = traindyn(*command, "engine=flower", results=tmp_path / "results")
    assert sorted(path.name for path in (own / "marks").iterdir()) == ["0-1", "1-2"]
    assert "client 0 failed in round 2 and is asked again: it stumbled" in done.stdout
    assert "client 1 failed in round 3 and is asked again: " in done.stdout
    assert_nothing_is_left(tmp_path / "results")
    traindyn(*command, results=tmp_path / "expected")
    assert_as_in_process(tmp_path / "expected", tmp_path / "results")


def test_a_killed_server_goes_on_with_the_same_numbers(tmp_path):
    command = (*RUN, "epochs=6", "method=[base,base_recalibrated]")
    results = tmp_path / "results"
    process = start(*command, "engine=flower", results=results)
    wait_until(lambda: list(results.glob("bases/*/restart/latest.safetensors")), process)
    for pid in processes(results, "flwr-simulation"):
        os.kill(pid, signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, (stdout, stderr)
    assert "its ServerApp of Flower's is gone; it goes on from its last epoch" in stdout
    assert_nothing_is_left(results)
    traindyn(*command, results=tmp_path / "expected")
    assert_as_in_process(tmp_path / "expected", results)


def test_ctrl_c_ends_all_of_it(tmp_path):
    results = tmp_path / "results"
    process = start(*RUN, "epochs=200", "method=base", "engine=flower", results=results)
    wait_until(lambda: list(results.glob("bases/*/restart/latest.safetensors")), process)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert stderr.splitlines()[-1].startswith("interrupted: run the same command again")
    assert_nothing_is_left(results)


def started(words, home):
    with open(home / f"{words[0]}-{time.monotonic_ns()}.log", "wb") as log:
        program = str(Path(sys.executable).parent / words[0])
        return subprocess.Popen([program, *words[1:]], env=environment(home), stdout=log, stderr=log)


@contextlib.contextmanager
def linked(home):
    """host:port of a SuperLink on loopback with two SuperNodes, and what starts the SuperNode of a client anew."""
    port = free_port()
    address = f"{LOOPBACK}:{port}"
    words = ("--insecure", "--host", LOOPBACK, "--port", str(port), "--disable-runtime-dependency-installation")
    running = [started(("flower-superlink", *words), home)]
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            answers(address)
            break
        except OSError:
            assert running[0].poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def node(k):
        words = ("--insecure", "--superlink", address, "--port", str(free_port()))
        config = ("--node-config", f"partition-id={k} num-partitions=2")
        running.append(started(("flower-supernode", *words, *config), home))
        return running[-1]

    try:
        yield address, node
    finally:
        for process in reversed(running):
            process.terminate()
        for process in reversed(running):
            process.wait(SECONDS)


@pytest.fixture(scope="module")
def superlink(tmp_path_factory):
    with linked(tmp_path_factory.mktemp("link")) as (address, node):
        node(0), node(1)
        yield address


def test_superlink_has_the_bits_of_one_process(superlink, tmp_path):
    command = (*RUN, "epochs=2", "method=[base,base_recalibrated]")
    traindyn(*command, "engine=flower", f"engine.superlink={superlink}", results=tmp_path / "results")
    assert_nothing_is_left(tmp_path / "results")
    traindyn(*command, results=tmp_path / "expected")
    assert_as_in_process(tmp_path / "expected", tmp_path / "results")


def test_nodes_that_are_not_the_clients_are_refused(superlink, tmp_path):
    given = ("engine=flower", f"engine.superlink={superlink}", "engine.nodes_seconds=0")
    more = ("method=base", "federation.iid_10.clients=3", *given)
    done = traindyn(*RUN, *more, results=tmp_path / "results", code=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: engine.superlink={superlink}: nodes must be clients 0 to 2 by their partition-id")
    assert not list(tmp_path.glob("results/bases/*/base.json"))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:0", "127.0.0.1:70000"])
def test_no_such_superlink(address, tmp_path):
    given = ("method=base", "engine=flower", f"engine.superlink={address}")
    done = traindyn(*RUN, *given, results=tmp_path / "results", code=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: engine.superlink must be host:port of a SuperLink that answers, got '{address}': ")


def test_a_client_whose_supernode_is_lost_is_named_and_asked_again_of_the_next(tmp_path):
    command = (*RUN, "epochs=3", "method=[base,base_recalibrated]")
    results = tmp_path / "results"
    with linked(tmp_path) as (address, node):
        _, lost = node(0), node(1)
        process = start(*command, "engine=flower", f"engine.superlink={address}", results=results)
        wait_until(lambda: list(results.glob("bases/*/restart/latest.safetensors")), process)
        lost.kill()
        node(1)
        stdout, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, (stdout, stderr)
    assert re.search(r"client 1 failed in round [23] and is asked again: ", stdout)
    traindyn(*command, results=tmp_path / "expected")
    assert_as_in_process(tmp_path / "expected", results)
