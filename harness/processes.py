"""Processes of this program's own: how they are started, from what, and with nothing of what this one is started by."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import multiprocessing.util
import os
import signal
import sys
import types
from collections.abc import Iterator, Sequence

from harness.storage.sockets import room_for_sockets

METHOD = "forkserver" if sys.platform != "win32" else "spawn"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_server(preload: Sequence[str]) -> None:
    """Start the server that processes are forked from; it imports modules in parallel with this process.

    A server that is there already stays as it is.
    """
    if METHOD == "forkserver":
        multiprocessing.set_forkserver_preload([*preload])
        # an interrupt is this process's to handle: the server would print a traceback where it is still importing. The
        # tracker of resources, which it starts where there is none, takes the signal off the mask for both
        multiprocessing.resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with on_its_own():
                multiprocessing.util.get_temp_dir()
                multiprocessing.forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def on_its_own() -> Iterator[None]:
    """A process that starts in the block has nothing of what this one happens to be started by.

    Neither does it run the script anew, which may have no main guard, nor does it import what lies in the folder that
    it runs in and is called like a library; its sockets find a folder whose path is short enough.
    """
    main, variable = sys.modules["__main__"], os.environ.get("PYTHONSAFEPATH")
    sys.modules["__main__"] = types.ModuleType("__main__")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        with room_for_sockets():
            yield
    finally:
        sys.modules["__main__"] = main
        if variable is None:
            del os.environ["PYTHONSAFEPATH"]
