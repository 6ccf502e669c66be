"""Who works where: leases on bases and cells, so that any number of runs share one results folder.

A lease is a small file below `leases/` that names its owner, who touches it every few seconds. It is up for taking when
there is none, when its owner was a process of this machine that is gone, or when it was not touched for `STALE` seconds
as the one who looks counts them: the clocks of two machines are never compared. Leases change hands under one short
lock, which the system releases when its holder dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from harness.storage import inside
from harness.storage.checked import read_as
from harness.storage.files import read_json

BEAT = 5.0
"""seconds between two touches by an owner"""
STALE = 60.0
"""seconds without one after which a lease is taken over"""
POLL = 0.2
MOST_BYTES = 10_000
"""of a lease's file"""
LOST = 76
"""exit code of a process whose lease was taken from it, such as one that was suspended for long"""


@cache
def _space() -> str:
    """Names where a process id means something: this boot of this machine, and its process namespace."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process started, in the system's own ticks; empty where that is not known, None where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    else:
        return None if fields[0] in "ZX" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


@dataclass(frozen=True)
class Owner:
    """Who holds a lease: a process, wherever it runs."""

    token: str
    host: str
    pid: int
    space: str
    started: str

    @classmethod
    def of(cls, pid: int) -> Owner:
        """A process of this machine that is running."""
        return cls(uuid.uuid4().hex, socket.gethostname(), pid, _space(), _started(pid) or "")

    @property
    def is_gone(self) -> bool:
        """Whether it was a process of this machine that has ended."""
        return self.space == _space() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def read_owner(value: Any) -> Owner:
    """An owner from a file; CorruptFile where it is none."""
    found = read_as("OwnerRecord", value)
    return Owner(**{field.name: found[field.name] for field in fields(Owner)})


class Leases:
    """The leases of one results folder, as one process sees them."""

    def __init__(self, root: Path, stale: float | None = None) -> None:
        self.folder = root / "leases"
        self._stale = STALE if stale is None else stale
        self._seen: dict[str, tuple[str, int, float]] = {}
        """of foreign leases: token, last touch, and when that was first seen here, on the monotonic clock"""

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        inside.check_writable(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        with inside.lock(self.folder / ".guard"):
            yield

    def _read(self, name: str) -> Owner | None:
        """Whose it is, whatever became of them; a file that is no lease is nobody's. OSError where a disk fails."""
        try:
            return read_owner(read_json(self.path(name), MOST_BYTES))
        except (FileNotFoundError, ValueError):
            return None

    def _is_over(self, name: str, owner: Owner) -> bool:
        if owner.is_gone:
            return True
        try:
            touched = self.path(name).stat().st_mtime_ns
        except FileNotFoundError:
            return True
        now = time.monotonic()
        token, before, since = self._seen.get(name, ("", 0, now))
        if (token, before) != (owner.token, touched):
            self._seen[name] = owner.token, touched, now
            return False
        return now - since > self._stale

    def holder(self, name: str) -> Owner | None:
        """Who works there; None where nobody does, or whoever did is gone."""
        owner = self._read(name)
        return None if owner is None or self._is_over(name, owner) else owner

    def take(self, name: str, on_lost: Callable[[], None] | None = None) -> Lease | None:
        """The lease, or None while another holds it. `on_lost` is called, from a thread, when it was taken over."""
        with self._guard():
            owner = self._read(name)
            if owner is not None and not self._is_over(name, owner):
                return None
            self._seen.pop(name, None)
            me = Owner.of(os.getpid())
            inside.check_writable(self.path(name))
            temporary = self.folder / f".{name}.{me.token}.tmp"
            try:
                temporary.write_text(json.dumps(asdict(me)), encoding="utf-8")
                os.replace(temporary, self.path(name))
            finally:
                temporary.unlink(missing_ok=True)
        return Lease(self, name, me, on_lost)

    def wait(self, name: str, on_lost: Callable[[], None] | None = None) -> Lease:
        """The lease, as soon as nobody else holds it."""
        while (lease := self.take(name, on_lost)) is None:
            time.sleep(POLL)
        return lease

    def give(self, name: str, owner: Owner) -> None:
        """Let go of what `owner` holds."""
        with self._guard():
            if self._read(name) == owner:
                inside.remove(self.path(name))

    def all(self) -> dict[str, Owner | None]:
        """Every lease's file by name, with its owner where one is alive."""
        names = [path.stem for path in inside.entries(self.folder, "*.json")]
        return {name: self.holder(name) for name in names}


class Lease:
    """Held while its block runs, and touched meanwhile."""

    def __init__(self, leases: Leases, name: str, owner: Owner, on_lost: Callable[[], None] | None) -> None:
        self._leases, self._name, self._owner, self._on_lost = leases, name, owner, on_lost
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease on {name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        self._over.set()
        self._thread.join()
        self._leases.give(self._name, self._owner)

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with contextlib.suppress(OSError):  # a disk that fails for a moment takes no lease away
                if self._leases._read(self._name) != self._owner:
                    if self._on_lost is not None:
                        self._on_lost()
                    return
                os.utime(self._leases.path(self._name))


def lease_name(root: Path, folder: Path) -> str:
    """Of the lease on a folder of a results folder."""
    return os.path.relpath(folder, root).replace(os.sep, "-")


def leave() -> None:
    """End this process at once: whoever took its lease does its work now."""
    os._exit(LOST)
