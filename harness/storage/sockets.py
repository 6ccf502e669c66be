"""Where sockets lie: the path of one may have about a hundred characters, and a temporary folder of its own as many."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
"""tried in this order where the temporary folder's path is too long"""
MOST_BYTES = 60
"""of a temporary folder's path: what multiprocessing and wandb-core add to it stays below the system's 104"""


@contextlib.contextmanager
def room_for_sockets(most_bytes: int = MOST_BYTES) -> Iterator[None]:
    """In the block temporary files are made where a socket's path is short enough, if there is such a place."""
    before, chosen = tempfile.gettempdir(), _short_folder(most_bytes)
    variable = os.environ.get("TMPDIR")
    if chosen == before:
        yield
        return
    tempfile.tempdir = os.environ["TMPDIR"] = chosen
    try:
        yield
    finally:
        tempfile.tempdir = before
        if variable is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = variable


def _short_folder(most_bytes: int) -> str:
    """The temporary folder, or the first of FOLDERS that can be written where its path is too long."""
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) <= most_bytes:
        return usual
    return next((folder for folder in FOLDERS if os.access(folder, os.W_OK | os.X_OK)), usual)
