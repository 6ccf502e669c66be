"""What a job goes on from when it is started again: the state after an epoch, and beside it the rows up to there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.method import State
from harness.storage.files import CorruptFile, set_aside
from harness.storage.growing import GrowingLists
from harness.storage.inside import is_file, remove
from harness.storage.tensors import read_state, write_state


def read_bundle(path: Path, say: Callable[[str], None]) -> State | None:
    """A stored state, or None where there is none; a corrupt one is set aside with one line."""
    if not is_file(path):
        return None
    try:
        return read_state(path)
    except CorruptFile as error:
        say(f"corrupt, set aside, to be redone: {error} ({set_aside(path).name})")
        return None


class Bundle:
    """The state at `path`, written at most once in `seconds`, since storing it may take longer than an epoch."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self._lists = GrowingLists(path.with_suffix(".jsonl"))
        self._seconds = seconds
        self._written = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether so many seconds have gone since the last one, or since the job began."""
        return time.monotonic() - self._written >= self._seconds

    def write(self, state: State, lists: Mapping[str, Sequence[Any]]) -> None:
        """Store a state and what the lists have more than in the one before."""
        write_state(self.path, {**state, "lists": self._lists.append(lists)})
        self._written = time.monotonic()

    def read(self, say: Callable[[str], None]) -> State | None:
        """The stored state with its `lists`, None where there is none; what is corrupt is set aside with one line."""
        bundle = read_bundle(self.path, say)
        if bundle is None or "lists" not in bundle:  # one of an earlier version holds them itself
            return bundle
        try:
            return {**bundle, "lists": self._lists.read(bundle["lists"])}
        except CorruptFile as error:
            aside = set_aside(self._lists.path).name if is_file(self._lists.path) else "gone"
            say(f"corrupt, set aside, to be redone: {error} ({aside})")
            return None

    def remove(self) -> None:
        """Nothing goes on from here any more."""
        remove(self.path)
        self._lists.remove()
