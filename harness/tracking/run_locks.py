"""One writer per run: a lock on each run that a tracker writes, since histories only append.

A lock belongs to a process, and the system releases it when that process ends, however it ends. Processes that write
on a tracker's behalf, such as wandb-core, are seen to by the tracker (`harness.tracking.wandb.services`).
"""

from __future__ import annotations

from pathlib import Path

import filelock

from harness.storage import inside

WAIT_SECONDS = 10
"""how long to wait for another command that writes the same run"""


class RunLocks:
    """The locks of the runs that this process writes, as files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, filelock.BaseFileLock] = {}

    def take(self, run_id: str) -> None:
        """Hold a run; TimeoutError where another process goes on writing it, OSError where it cannot be locked."""
        lock = inside.lock(self.folder / f"{run_id}.lock")
        self.folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=WAIT_SECONDS)
        self._held[run_id] = lock

    def release(self, run_id: str) -> None:
        """Let go of a run; nothing where it is not held."""
        lock = self._held.pop(run_id, None)
        if lock is not None:
            lock.release()
