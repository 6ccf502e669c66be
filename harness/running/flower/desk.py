"""The folder over which a command hands jobs to a ServerApp: the results folder is all that they share."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

from harness.running.engine.following import Task
from harness.storage.files import write_bytes

LOOK_SECONDS = 0.1


class Desk:
    """A ServerApp's folder: it says that it is ready, or why not, takes one job after the other, and is told to end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ready, self._refused = folder / "ready", folder / "refused"
        self._end, self._stop = folder / "end", folder / "stop"
        self._count = 0

    def _task(self) -> Path:
        return self.folder / f"{self._count:06d}.task"

    def put(self, task: Task) -> None:
        """Hand a job over; of the command."""
        write_bytes(self._task(), pickle.dumps(task))
        self._count += 1

    def end(self) -> None:
        """No more jobs; of the command."""
        write_bytes(self._end, b"")

    def stop(self) -> None:
        """Leave the job that is being run; of the command."""
        write_bytes(self._stop, b"")

    @property
    def stopped(self) -> bool:
        return self._stop.exists()

    @property
    def ready(self) -> bool:
        return self._ready.exists()

    @property
    def refused(self) -> str | None:
        """Why the ServerApp takes no jobs."""
        return self._refused.read_text(encoding="utf-8") if self._refused.exists() else None

    def say_ready(self) -> None:
        """Of the ServerApp."""
        write_bytes(self._ready, b"")

    def refuse(self, text: str) -> None:
        """Of the ServerApp."""
        write_bytes(self._refused, text.encode())

    def take(self) -> Task | None:
        """The next job, waited for; None where there are no more; of the ServerApp."""
        while not (path := self._task()).exists():
            if self._end.exists():
                return None
            time.sleep(LOOK_SECONDS)
        self._count += 1
        task: Task = pickle.loads(path.read_bytes())
        return task
