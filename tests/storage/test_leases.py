"""Leases: one holder at a time, taken over from the dead and the silent, never from the living."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from command import SECONDS

from harness.storage import leases
from harness.storage.leases import Leases, Owner, lease_name

HOLD = """
import sys
from pathlib import Path
from harness.storage.leases import Leases
lease = Leases(Path(sys.argv[1])).take("bases-a")
print("held", flush=True)
sys.stdin.read()
"""


def holder_process(root):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def foreign(root, name="bases-a", **changes):
    """A lease as a process of another machine would have left it."""
    owner = dataclasses.replace(Owner.of(os.getpid()), space="another machine", host="elsewhere", pid=1, **changes)
    path = Leases(root).path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(owner)))
    return owner


def test_one_holder_at_a_time(tmp_path):
    first, second = Leases(tmp_path), Leases(tmp_path)
    lease = first.take("bases-a")
    assert lease is not None
    assert second.take("bases-a") is None
    assert second.holder("bases-a").pid == os.getpid()
    other = second.take("bases-b")
    assert other is not None
    lease.release()
    assert second.holder("bases-a") is None
    with second.take("bases-a"):
        assert first.take("bases-a") is None
    other.release()
    assert first.all() == {}


def test_only_one_of_many_that_try_at_once(tmp_path):
    barrier, taken = threading.Barrier(8), []

    def attempt():
        barrier.wait()
        taken.append(Leases(tmp_path).take("cells-a"))

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (lease,) = [lease for lease in taken if lease is not None]
    lease.release()


def test_taken_over_at_once_from_a_killed_process(tmp_path):
    process = holder_process(tmp_path)
    own = Leases(tmp_path)
    assert own.take("bases-a") is None
    assert str(own.holder("bases-a")).startswith(f"process {process.pid} on ")
    process.kill()
    process.wait()
    assert own.holder("bases-a") is None
    with own.take("bases-a"):
        assert own.holder("bases-a").pid == os.getpid()


def test_a_process_id_that_is_used_again_is_another_process(tmp_path):
    """The lease of an earlier process with the id of one that lives."""
    owner = dataclasses.replace(Owner.of(os.getpid()), started="1")
    path = Leases(tmp_path).path("bases-a")
    path.parent.mkdir()
    path.write_text(json.dumps(dataclasses.asdict(owner)))
    assert Leases(tmp_path).holder("bases-a") is None


def test_another_machines_lease_is_over_when_nobody_touches_it(tmp_path, monkeypatch):
    """As the one who looks counts the seconds; the file's own time may be of any clock."""
    now = [100.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])
    owner = foreign(tmp_path)
    path = Leases(tmp_path).path("bases-a")
    os.utime(path, (1, 1))
    own = Leases(tmp_path)
    assert own.holder("bases-a") == owner
    now[0] += leases.STALE - 1
    os.utime(path, (2, 2))
    assert own.take("bases-a") is None
    now[0] += leases.STALE - 1
    assert own.holder("bases-a") == owner
    now[0] += 2
    assert own.holder("bases-a") is None
    lease = own.take("bases-a")
    assert lease is not None
    lease.release()


def test_an_owner_hears_that_it_lost_its_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.01)
    lost = threading.Event()
    lease = Leases(tmp_path).take("bases-a", lost.set)
    successor = foreign(tmp_path)
    assert lost.wait(SECONDS)
    lease.release()
    assert Leases(tmp_path).holder("bases-a") == successor


def test_the_holder_touches_its_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.01)
    touched = threading.Event()
    utime = os.utime
    monkeypatch.setattr(leases.os, "utime", lambda path: (utime(path), touched.set()))
    with Leases(tmp_path).take("bases-a"):
        assert touched.wait(SECONDS)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"token": 1}'])
def test_a_file_that_is_no_lease_is_nobodys(tmp_path, content):
    path = Leases(tmp_path).path("bases-a")
    path.parent.mkdir()
    path.write_bytes(content)
    with Leases(tmp_path).take("bases-a"):
        assert Leases(tmp_path).take("bases-a") is None


def test_names_follow_folders():
    assert lease_name(Path("results"), Path("results/bases/0f")) == "bases-0f"


def test_a_disk_that_fails_for_a_moment_takes_no_lease_away(tmp_path, monkeypatch):
    """The holder looks again, and holds what it held."""
    monkeypatch.setattr(leases, "BEAT", 0.01)
    failures, touched, lost = [], threading.Event(), []
    utime = os.utime

    def failing(path):
        if len(failures) < 3:
            failures.append(path)
            raise OSError(errno.EIO, "Input/output error")
        utime(path)
        touched.set()

    monkeypatch.setattr(leases.os, "utime", failing)
    with Leases(tmp_path).take("bases-a", lambda: lost.append(1)):
        assert touched.wait(SECONDS)
        assert Leases(tmp_path).take("bases-a") is None
    assert lost == []
