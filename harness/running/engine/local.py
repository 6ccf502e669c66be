"""Jobs on this machine: a bounded number at once, each in a process of its own.

Processes are forked from a server that has imported the libraries once, so a job starts in milliseconds and a
crash or an out-of-memory kill takes nobody along. A job ends itself when its parent is gone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

from harness.causes import Interrupted
from harness.config import EngineConfig
from harness.planning.slots import gpus, local_slots
from harness.processes import METHOD, on_its_own, start_server
from harness.running.engine.following import FollowingEngine, Gone, Handed
from harness.running.events import DiskFailed, Event, WorkedElsewhere, event_line, read_event
from harness.storage.files import is_disk_trouble
from harness.storage.leases import LOST

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

PRELOAD = (
    "harness.running.jobs",
    "harness.problem.models",
    "baselines.cmd",
    "scipy.cluster.hierarchy",
    "wandb",
)
"""what every job imports"""


def warm_up() -> None:
    """Start the server that jobs are forked from; it imports in parallel with this process."""
    start_server(PRELOAD)


def _leave(*_: object) -> None:
    raise Interrupted(128 + signal.SIGTERM)


def _leave_at_once(unraisable: sys.UnraisableHookArgs) -> None:
    """An interrupt that fell into a callback of the garbage collector's, which would swallow it and print it."""
    if isinstance(unraisable.exc_value, Interrupted):
        os._exit(128 + signal.SIGTERM)
    sys.__unraisablehook__(unraisable)


def _end_with_parent(connection: Connection) -> None:
    """The parent never sends: the pipe becomes readable when it is gone."""
    try:
        connection.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _main(task: Callable[[], None], connection: Connection, variables: Mapping[str, str]) -> None:
    """A task's process: an interrupt is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # which the server has had on its mask
    signal.signal(signal.SIGTERM, _leave)
    sys.unraisablehook = _leave_at_once
    threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
    os.environ.update(variables)
    try:
        task()
    except OSError as error:
        if not is_disk_trouble(error):
            raise
        # the disk does not even take an event
        failed = DiskFailed(error.errno or 0, error.strerror or "", str(error.filename))
        connection.send_bytes(event_line(failed))


@dataclass
class _Process:
    """A task's process, and the pipe that ends it when this process is gone."""

    process: BaseProcess
    connection: Connection
    gpu: int | None = None

    @classmethod
    def start(cls, task: Callable[[], None], variables: Mapping[str, str], gpu: int | None = None) -> _Process:
        context = multiprocessing.get_context(METHOD)
        here, there = context.Pipe()
        process = context.Process(target=_main, args=(task, there, variables))  # type: ignore[attr-defined]
        with on_its_own():
            process.start()
        there.close()
        return cls(process, here, gpu)

    def join(self) -> tuple[str | None, Event | None]:
        """Wait for its end: what ended it, None where nothing did, and what it said through the pipe."""
        self.process.join()
        code, unsaid = self.process.exitcode, None
        with self.connection as pipe, contextlib.suppress(EOFError, OSError):
            unsaid = read_event(pipe.recv_bytes()) if pipe.poll() else None
        if code == LOST:
            return None, WorkedElsewhere()
        return None if code == 0 else f"process ended with {_name(code)}", unsaid


def run_alone(task: Callable[[], None]) -> None:
    """Run a task in a process of its own, with this one's environment; RuntimeError where that process is lost."""
    warm_up()
    died, unsaid = _Process.start(task, dict(os.environ)).join()
    if died is None and isinstance(unsaid, DiskFailed):
        died = f"{unsaid.text}: {unsaid.path}"
    if died is not None:
        raise RuntimeError(died)


def _visible(gpu: int) -> str:
    """The name of the `gpu`-th of the GPUs that this process was given."""
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return given[gpu] if given else str(gpu)


class LocalEngine(FollowingEngine):
    """Runs jobs on this machine, as many at once as the configuration or the machine allows."""

    def __init__(self, config: EngineConfig, device: str, folder: Path) -> None:
        super().__init__(folder, local_slots(config, device))
        self._gpus = gpus(device)

    def launch(self, waiting: list[Handed]) -> None:
        for handed in waiting:
            gpu, variables = None, {}
            if self._gpus > 0:
                taken = [other.handle.gpu for other in self._handed if other.handle is not None]
                gpu = min(range(self._gpus), key=taken.count)
                variables = {"CUDA_VISIBLE_DEVICES": _visible(gpu)}
            handed.handle = _Process.start(handed.task, variables, gpu)

    def gone(self, running: list[Handed]) -> list[Gone]:
        return [Gone(handed, *handed.handle.join()) for handed in running if not handed.handle.process.is_alive()]

    def pause(self, seconds: float) -> None:
        wait([handed.handle.process.sentinel for handed in self._handed], seconds)

    def cancel(self, running: list[Handed], patience: float = 5.0) -> None:
        """End jobs: asked first, killed after `patience` seconds."""
        processes = [handed.handle.process for handed in running]
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(patience)
            if process.is_alive():
                process.kill()
                process.join()


def _name(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "SIGKILL, as Linux does where memory runs out"
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"
