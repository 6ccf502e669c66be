"""Where data lies on this machine, and how it is fetched."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from harness.config import DatasetConfig

SOCKET_SECONDS = 15.0


def cache_folder() -> Path:
    """This program's folder in the user's cache: $XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # the XDG specification has relative paths ignored
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "cmdbench"


def data_root(config: DatasetConfig) -> Path:
    """Where data is looked for first and put: `root`, else $CMDBENCH_DATA, else the user's cache."""
    root = config.root or os.environ.get("CMDBENCH_DATA") or cache_folder() / "data"
    return Path(root).expanduser()


@contextlib.contextmanager
def quiet_download() -> Iterator[None]:
    """A library's download in the block is silent, and every wait of it on the network has an end."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SOCKET_SECONDS)
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        hub.setLevel(level)
        socket.setdefaulttimeout(before)
