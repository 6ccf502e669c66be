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
from harness.storage.cache import cache_folder

SOCKET_SECONDS = 15.0


def data_root(config: DatasetConfig) -> Path:
    """Where data is looked for first and put: `root`, else $TRAINDYN_DATA, else the user's cache."""
    return folder_of(config.root)


def folder_of(root: str | None) -> Path:
    """Where data lies for a value of `root`."""
    return Path(root or os.environ.get("TRAINDYN_DATA") or cache_folder() / "data").expanduser()


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
