"""Work on blocks of weights, side by side on the CPU.

A block that stays in cache is too small to be shared between cores, so that every thread works on blocks of its own
with one torch thread. What a block gives then depends on no number of threads either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import torch

Result = TypeVar("Result")


class Submit(Protocol):
    """Takes work, gives its future."""

    def __call__(self, work: Callable[[], Result], /) -> Future[Result]: ...


@contextlib.contextmanager
def workers(device: torch.device, parts: int) -> Iterator[Submit]:
    """Submits work to as many threads as torch may use here; does it at once on other devices, or if it is one part."""
    if device.type != "cpu":
        yield _at_once
        return
    threads = torch.get_num_threads()
    try:
        if min(threads, parts) == 1:
            torch.set_num_threads(1)
            yield _at_once
            return
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.submit
    finally:
        # A worker's setting reaches the matrix products of this thread too
        torch.set_num_threads(threads)


def _at_once(work: Callable[[], Result]) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_result(work())
    return future


def results(futures: Iterable[Future[Result]]) -> list[Result]:
    """Wait for all; the first error is raised."""
    return [future.result() for future in futures]


def spans(start: int, stop: int, width: int) -> Iterator[tuple[int, int]]:
    """Consecutive (start, stop) of at most `width`."""
    return ((first, min(first + width, stop)) for first in range(start, stop, width))
