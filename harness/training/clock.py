"""What a run costs: seconds by phase, passes over data, memory.

Phases are exclusive: entering one pauses the one around it. On a GPU the clock waits for the device at the
borders of a phase, except for `in_step` phases (step-cadence observers), which are measured by events and
moved out of the phase around them at its end, so that watching does not slow the training it watches.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import torch


@dataclass
class Counts:
    """Passes over data, in images: a gradient is one forward and one backward pass of an image."""

    gradients_full: int = 0
    """gradients of all N weights"""
    gradients_subspace: int = 0
    """gradients used in a subspace or for a part of the weights"""
    forward_passes: int = 0
    """forward passes in training mode, those of gradients included"""

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass
class Clock:
    """Seconds by phase name."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    _stack: list[str] = field(default_factory=list)
    _since: float = 0.0
    _events: list[tuple[str, str, torch.cuda.Event, torch.cuda.Event]] = field(default_factory=list)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def _switch(self, now: float) -> None:
        if self._stack:
            self._add(self._stack[-1], now - self._since)
        self._since = now

    @contextlib.contextmanager
    def phase(self, name: str, in_step: bool = False) -> Iterator[None]:
        """Charge the seconds of the block to `name`."""
        if in_step and self.device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            begin.record()
            yield
            end.record()
            self._events.append((name, self._stack[-1], begin, end))
            return
        self._switch(time.perf_counter() if in_step else self._now())
        self._stack.append(name)
        try:
            yield
        finally:
            self._switch(time.perf_counter() if in_step else self._now())
            self._stack.pop()
            if not in_step:
                self._settle()

    def _settle(self) -> None:
        for name, around, begin, end in self._events:
            seconds = begin.elapsed_time(end) / 1e3
            self._add(name, seconds)
            self._add(around, -seconds)
        self._events.clear()

    def get(self, name: str) -> float:
        return self.seconds.get(name, 0.0)


class Load:
    """How much of the machine other processes had since this was made, where /proc says so (Linux)."""

    def __init__(self) -> None:
        self._start = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        """CPU seconds of all cores together, of those that were at work, and of this process with its children."""
        try:
            with open("/proc/stat") as file:
                ticks = [int(part) for part in file.readline().split()[1:9]]
        except (OSError, ValueError):
            return None
        idle = ticks[3] + ticks[4]  # waiting for a disk is idle
        per_second = os.sysconf("SC_CLK_TCK")
        return sum(ticks) / per_second, (sum(ticks) - idle) / per_second, sum(os.times()[:4])

    def busy(self) -> float | None:
        """The mean share of the cores that other processes had; None where that is not known."""
        now = self._now()
        if self._start is None or now is None or now[0] <= self._start[0]:
            return None
        whole, busy, own = (after - before for after, before in zip(now, self._start, strict=True))
        return min(max((busy - own) / whole, 0.0), 1.0)


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory of this process: allocated on the GPU, or resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
