"""Jobs on this machine: a bounded number at once, each in a process of its own.

Processes are forked from a server that has imported the libraries once, so a job starts in milliseconds and a
crash or an out-of-memory kill takes nobody along. A job ends itself when its parent is gone.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from harness.config import EngineConfig
from harness.planning.slots import gpus, local_slots
from harness.running.engine import Event
from harness.storage.leases import LOST

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from harness.running.jobs import Job

METHOD = "forkserver" if sys.platform != "win32" else "spawn"


def warm_up() -> None:
    """Start the server that jobs are forked from; it imports in parallel with this process."""
    if METHOD == "forkserver":
        preload = ["harness.running.jobs", "baselines.cmd", "scipy.cluster.hierarchy", "wandb"]
        multiprocessing.set_forkserver_preload(preload)
        multiprocessing.forkserver.ensure_running()


def _leave(*_: object) -> None:
    raise SystemExit(143)


def _end_with_parent(connection: Connection) -> None:
    """The parent never sends: the pipe becomes readable when it is gone."""
    try:
        connection.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _job_main(job: Job, connection: Connection, gpu: int | None) -> None:
    """A job's process: events go to the parent, an interrupt is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = _visible(gpu)
    from harness.running.jobs import run_job

    run_job(job, connection.send)


def _visible(gpu: int) -> str:
    """The name of the `gpu`-th of the GPUs that this process was given."""
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return given[gpu] if given else str(gpu)


def _alone_main(task: Callable[[], None], connection: Connection, variables: dict[str, str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
    os.environ.update(variables)
    task()


def run_alone(task: Callable[[], None]) -> None:
    """Run a task in a process of its own, with this one's environment; RuntimeError where that process is lost."""
    warm_up()
    context = multiprocessing.get_context(METHOD)
    here, there = context.Pipe()
    process = context.Process(target=_alone_main, args=(task, there, dict(os.environ)))  # type: ignore[attr-defined]
    process.start()
    there.close()
    process.join()
    here.close()
    if process.exitcode != 0:
        raise RuntimeError(f"process ended with {_name(process.exitcode)}")


@dataclass
class _Running:
    job: Job
    process: BaseProcess
    connection: Connection
    gpu: int | None


class LocalEngine:
    """Runs up to `slots` jobs at once; `events` tells what they say and when they end."""

    def __init__(self, config: EngineConfig, device: str) -> None:
        self._context = multiprocessing.get_context(METHOD)
        self._running: dict[Connection, _Running] = {}
        self.slots = local_slots(config, device)
        self._gpus = gpus(device)

    @property
    def free(self) -> int:
        return self.slots - len(self._running)

    def submit(self, job: Job) -> None:
        """Start a job; call only while `free` is positive."""
        gpu = None
        if self._gpus > 0:
            taken = [r.gpu for r in self._running.values()]
            gpu = min(range(self._gpus), key=taken.count)
        here, there = self._context.Pipe()
        process = self._context.Process(target=_job_main, args=(job, there, gpu), name=job.label)  # type: ignore[attr-defined]
        process.start()
        there.close()
        self._running[here] = _Running(job, process, here, gpu)

    def events(self, timeout: float) -> Iterator[tuple[Job, Event]]:
        """What jobs have said, at the latest after `timeout` seconds; `end` comes last, with what killed it."""
        for ready in wait(list(self._running), timeout):
            running = self._running[ready]  # type: ignore[index]
            try:
                yield running.job, running.connection.recv()
            except (EOFError, OSError):
                del self._running[running.connection]
                running.process.join()
                code = running.process.exitcode
                died = None if code in (0, LOST) else f"process ended with {_name(code)}"
                if code == LOST:
                    yield running.job, {"kind": "elsewhere"}
                yield running.job, {"kind": "end", "died": died}

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def stop(self, patience: float = 5.0) -> None:
        """End every job: asked first, killed after `patience` seconds."""
        for running in self._running.values():
            running.process.terminate()
        for running in self._running.values():
            running.process.join(patience)
            if running.process.is_alive():
                running.process.kill()
                running.process.join()
        self._running.clear()

    def close(self) -> None:
        """Nothing stays behind."""


def _name(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"
