"""The wandb-cores that write a results folder's runs, so that none outlives its command unnoticed.

A run is written by two processes: the command's, which holds the run's lock, and its wandb-core, which writes what it
was given. A command that is killed releases its locks at once, while its wandb-core ends itself a little later and
writes rows until then. Whoever goes on with a run therefore first waits for the wandb-cores whose command is gone, and
ends those that do not: what they had not written is given anew.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from harness.storage.files import read_json, write_json
from harness.storage.inside import entries, remove
from harness.storage.leases import Owner, read_owner

PATIENCE = 10.0
"""seconds in which a wandb-core whose command is gone may end by itself"""
LOOK_SECONDS = 0.02


class Services:
    """This process's wandb-cores, and those that killed ones left, as files in `folder`.

    Only processes of this machine are seen; those of a killed command elsewhere have ended long before the leases of
    its jobs are taken over.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._own: dict[int, Path] = {}

    def add(self, pid: int) -> None:
        """Note a wandb-core of this process, before it is given any run."""
        if pid in self._own:
            return
        self._own[pid] = path = self.folder / f"{uuid.uuid4().hex[:12]}.json"
        write_json(path, {"command": asdict(Owner.of(os.getpid())), "service": asdict(Owner.of(pid))})

    def forget(self) -> None:
        """This process's wandb-cores have written all that they were given."""
        for path in self._own.values():
            remove(path)
        self._own.clear()

    def end_orphans(self) -> None:
        """Return when no wandb-core whose command is gone is left."""
        for path, service in list(self._orphans()):
            deadline = time.monotonic() + PATIENCE
            while not service.is_gone:
                if time.monotonic() > deadline:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(service.pid, signal.SIGKILL)
                pause()
            remove(path)

    def _orphans(self) -> Iterator[tuple[Path, Owner]]:
        for path in entries(self.folder, "*.json"):
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):  # another was faster
                known = read_json(path)
                if read_owner(known["command"]).is_gone:
                    yield path, read_owner(known["service"])


def pause() -> None:
    """Wait a moment for a process to end."""
    time.sleep(LOOK_SECONDS)
