"""Where data lies on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from harness.config import DatasetConfig


def cache_folder() -> Path:
    """This program's folder in the user's cache: $XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # the XDG specification has relative paths ignored
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "cmdbench"


def data_root(config: DatasetConfig) -> Path:
    """Where data is looked for first and put: `root`, else $CMDBENCH_DATA, else the user's cache."""
    root = config.root or os.environ.get("CMDBENCH_DATA") or cache_folder() / "data"
    return Path(root).expanduser()
