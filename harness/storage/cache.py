"""What was found once and follows from its key alone, kept in the user's cache between commands."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from harness.storage.files import write_bytes

T = TypeVar("T")


def cache_folder() -> Path:
    """This program's folder in the user's cache: $XDG_CACHE_HOME or ~/.cache; who has no home has temporary files."""
    base, home = os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~")
    if not os.path.isabs(base):  # the XDG specification has relative paths ignored
        base = (
            os.path.join(home, ".cache") if home != "~" else os.path.join(tempfile.gettempdir(), f"user-{os.getuid()}")
        )
    return Path(base) / "traindyn"


def remembered(kind: str, key: str, find: Callable[[], T], plain: Callable[[T], Any], read: Callable[[Any], T]) -> T:
    """The value of a key from the cache, or found and put there.

    `plain` makes JSON of a value, `read` makes a value of JSON and raises ValueError, KeyError or TypeError where that
    is damaged: then it is found again. What `find` raises passes through, and is not remembered.
    """
    path = cache_folder() / kind / f"{key}.json"
    try:
        return read(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        value = find()
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
        write_bytes(path, json.dumps(plain(value)).encode())
    return value
