"""Results folders as a stranger would send them: one that is sound, changed and sealed again, with links out of it."""

import contextlib
import hashlib
import json
import os
import resource
import shutil
import signal
from pathlib import Path

from harness.storage.store import _seal

EARLIER = Path(__file__).parent / "earlier" / "results"
"""a finished suite of five cells on one base"""
SUITE = "smoke"
SECONDS = 20
"""of the processor that any reading command may take, whatever the folder holds"""
BYTES = 3 << 29
"""of memory that it may take, in which the libraries' half GiB is not: 2 GiB in all"""


def contents(folder):
    """All that lies in a folder: names, kinds, what files hold and links lead to, and when each was last changed."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        status = path.lstat()
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns, what)
    return found


def _taken():
    """The bytes of this process's data, as the limit on them counts."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:"))


@contextlib.contextmanager
def bounded(seconds=SECONDS, memory=BYTES):
    """Whoever takes more of the processor's seconds or of memory is stopped by an exception."""

    def too_long(*_):
        raise TimeoutError(f"took more than {seconds} seconds of the processor")

    used = resource.getrusage(resource.RUSAGE_SELF)
    bounds = {
        resource.RLIMIT_CPU: int(used.ru_utime + used.ru_stime) + seconds,
        resource.RLIMIT_DATA: _taken() + memory,
    }
    before = {kind: resource.getrlimit(kind) for kind in bounds}
    handler = signal.signal(signal.SIGXCPU, too_long)
    try:
        for kind, bound in bounds.items():
            resource.setrlimit(kind, (bound, before[kind][1]))
        yield
    finally:
        for kind, limits in before.items():
            resource.setrlimit(kind, limits)
        signal.signal(signal.SIGXCPU, handler)


class Hostile:
    """A copy of a sound folder, to be spoiled, beside an `outside` that must stay as it is."""

    def __init__(self, folder, sound=EARLIER):
        self.results = Path(shutil.copytree(sound, Path(folder) / "results"))
        self.outside = Path(folder) / "outside"
        (self.outside / "within").mkdir(parents=True)
        for name in ("a.csv", "00001.safetensors", "record.json", "log.txt", "within/plan.json", "within/.half.tmp"):
            (self.outside / name).write_text(f"a stranger's {name}")
        self.before = contents(self.outside)

    def unharmed(self):
        """Whether all outside is as it was, down to the times of change."""
        return contents(self.outside) == self.before

    @property
    def cells(self):
        """The folders of all cells, in order."""
        return sorted(path for path in (self.results / "cells").iterdir() if path.is_dir())

    @property
    def base(self):
        """The folder of the first base."""
        return min((self.results / "bases").iterdir())

    @property
    def plan(self):
        """The suite's plan."""
        return self.results / "suites" / SUITE / "plan.json"

    def change(self, path, place, value):
        """Set what a JSON file holds at a place, a tuple of keys; records are sealed again."""
        content = json.loads(path.read_bytes())
        inner = content
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        self.seal(path, content)

    def seal(self, path, content):
        """Write a JSON file, under a seal of its own where it is a record; it vouches for what history there is."""
        if path.name in ("record.json", "base.json") and isinstance(content, dict):
            history = path.parent / "history.parquet"
            if history.is_file() and not history.is_symlink() and history.stat().st_size < 1 << 30:
                content = {**content, "history_sha256": hashlib.sha256(history.read_bytes()).hexdigest()}
            content["sha256"] = _seal(content)
        path.write_text(json.dumps(content))

    def history(self, cell, data):
        """Give a cell another history, that its record vouches for."""
        (cell / "history.parquet").write_bytes(data)
        self.seal(cell / "record.json", json.loads((cell / "record.json").read_bytes()))

    def link(self, path, to=None):
        """Put a link to outside in a path's place."""
        self.clear(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(self.outside if to is None else self.outside / to)

    def fifo(self, path):
        """Put a pipe that nobody writes to in a path's place."""
        self.clear(path)
        os.mkfifo(path)

    @staticmethod
    def clear(path):
        """Remove whatever lies there."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
