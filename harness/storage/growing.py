"""Lists that only grow, beside a state that says how much of them is its own: only what is new is written, so that a
run's state costs as much to store after 100,000 epochs as after one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.storage.files import CorruptFile
from harness.storage.inside import open_append, open_read, remove
from harness.validation import reason

MOST_BYTES = 1 << 32
Mark = dict[str, Any]
"""How far a state's own part of the file goes, `bytes`, and its `sha256`."""


class GrowingLists:
    """Named lists of JSON values in one file, a line for each `append`.

    What a killed process wrote behind the last mark that was kept is cut off when that mark is read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digest = hashlib.sha256()
        self._bytes = 0
        self._lengths: dict[str, int] = {}

    def append(self, lists: Mapping[str, Sequence[Any]]) -> Mark:
        """Store what the lists have more than at the last call, on the disk when it comes back; the new mark."""
        new = {name: items[self._lengths.get(name, 0) :] for name, items in lists.items()}
        line = json.dumps({name: items for name, items in new.items() if items}, default=_plain).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self._bytes:
            remove(self.path)
        with open_append(self.path) as file:
            rest = memoryview(line)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        self._digest.update(line)
        self._bytes += len(line)
        self._lengths |= {name: len(items) for name, items in lists.items()}
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}

    def read(self, mark: Mark) -> dict[str, list[Any]]:
        """The lists as they were at a mark, to be appended to from there; CorruptFile where the file is another."""
        try:
            length = int(mark["bytes"])
            if not 0 <= length <= MOST_BYTES:
                raise CorruptFile(f"{self.path}: must have at most {MOST_BYTES} bytes, got {length}")
            with open_read(self.path) as file:
                data = file.read(length)
            digest = hashlib.sha256(data)
            if digest.hexdigest() != mark["sha256"]:
                raise CorruptFile(f"{self.path}: checksum differs")
            lists: dict[str, list[Any]] = {}
            for line in data.splitlines():
                for name, items in json.loads(line).items():
                    lists.setdefault(name, []).extend(items)
        except FileNotFoundError:
            raise CorruptFile(f"{self.path}: is gone") from None
        except CorruptFile:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CorruptFile(f"{self.path}: {reason(error)}") from None
        with open_append(self.path) as file:
            file.truncate(length)
        self._digest, self._bytes = digest, length
        self._lengths = {name: len(items) for name, items in lists.items()}
        return lists

    def remove(self) -> None:
        """Remove the file, if there is one."""
        remove(self.path)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a row may hold numbers and texts, got {type(value)}")
