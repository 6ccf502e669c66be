"""Files of events in the results folder: how jobs, on whatever machine, are heard by those who follow them.

    engine/<command>/000001.jsonl   what one job said; the engine adds how the job ended where the job could not
    engine/<command>/command.jsonl  what the command itself has to say to its tracking

Only their owner can read them. A file may be followed by several readers: the engine reads those of its jobs, the
tracking process all. When the engine has read a job's end it says so beside the file (000001.heard); only then does the
tracking process remove the two, once it has read them too. The rest goes with the folder when the command ends. A lease
on the folder tells whether its command is alive: what a killed one left is removed by the next command, or by `doctor`.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from harness.running.events import Event, event_line, read_event
from harness.storage import inside
from harness.storage.leases import lease_name
from harness.storage.store import Store

COMMAND = "command.jsonl"
SLURM = "slurm"
"""the folder among events of what Slurm starts jobs from"""


def heard_by_engine(path: Path) -> Path:
    """The mark that a job is gone and the engine has read its file of events to the end."""
    return path.with_suffix(".heard")


class EventWriter:
    """Appends events to a file, each with one write, so that several processes may append to it.

    A line that a killed process left torn is closed first. OSError names the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = inside.open_append(path)
        if self._file.seek(0, os.SEEK_END) > 0:
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                self._write(b"\n")

    def tell(self, event: Event) -> None:
        self._write(event_line(event))

    def _write(self, data: bytes) -> None:
        try:
            while data:  # a disk that fills up takes a part first
                data = data[self._file.write(data) :]
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EventReader:
    """Reads the events of a file, each once, as far as they are written: whole lines alone.

    A line that is no event was torn when its process was killed; what it said is told again by who goes on. A file
    that is gone holds nothing more.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position = 0

    def read(self) -> Iterator[Event]:
        """Events since the last call. The file is opened anew each time, as network folders ask for."""
        with contextlib.suppress(FileNotFoundError), inside.open_read(self.path) as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._position += len(line)
                try:
                    event = read_event(line)
                except ValueError:
                    continue
                yield event


class EventFolder:
    """One command's files of events, held until `close`; a context manager."""

    def __init__(self, store: Store) -> None:
        name = uuid.uuid4().hex[:12]
        self.path = store.root / "engine" / name
        self._lease = store.leases.wait(lease_name(store.root, self.path))
        inside.check_writable(self.path)
        self.path.mkdir(parents=True, mode=0o700)
        for folder in abandoned(store):
            # jobs of a killed command may still wait in Slurm's queue for what lies there
            if not (folder / SLURM).exists():
                inside.remove_folder(folder, ignore_errors=True)

    def tell(self, event: Event) -> None:
        """Say something to the tracking that is no job's."""
        with EventWriter(self.path / COMMAND) as file:
            file.tell(event)

    def close(self) -> None:
        inside.remove_folder(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):  # another command's files are there
            self.path.parent.rmdir()
        self._lease.release()

    def __enter__(self) -> EventFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def abandoned(store: Store) -> list[Path]:
    """Folders of events whose command is gone."""
    return [
        path
        for path in inside.folders(store.root / "engine")
        if store.leases.holder(lease_name(store.root, path)) is None
    ]
