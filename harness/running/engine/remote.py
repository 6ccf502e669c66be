"""What engines beyond this machine share: a cluster's scheduler starts jobs, and their files may be seen late."""

from __future__ import annotations

import time
from abc import abstractmethod
from pathlib import Path

from harness.running.engine.following import FollowingEngine, Gone, Handed

LAG_SECONDS = 10.0
"""how long a shared folder may take to show the last lines of a job that has ended"""


class RemoteEngine(FollowingEngine):
    """An engine whose jobs run elsewhere, `slots` of them at once, waiting ones included."""

    def __init__(self, folder: Path, slots: int) -> None:
        super().__init__(folder, slots)
        self._missed: dict[int, tuple[float, str]] = {}
        """by `id` of a job that its scheduler has ended: since when, on the monotonic clock, and why"""

    @abstractmethod
    def reasons(self, running: list[Handed]) -> dict[int, str]:
        """Of those that the scheduler has ended for good, by `id`, why as far as it knows."""

    def gone(self, running: list[Handed]) -> list[Gone]:
        """Jobs that said so, and those that their scheduler ended and that have said no more for a while."""
        reasons, now = self.reasons([handed for handed in running if not handed.ended]), time.monotonic()
        self._missed = {key: self._missed.get(key, (now, reason)) for key, reason in reasons.items()}
        lost = {key: reason for key, (since, reason) in self._missed.items() if now - since > LAG_SECONDS}
        found = [Gone(handed, None) for handed in running if handed.ended]
        return found + [Gone(handed, lost[id(handed)]) for handed in running if id(handed) in lost]
