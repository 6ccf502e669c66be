"""Ctrl-C, and SIGTERM with it, at any instant of the installed command: one line, exit code 130, never a traceback.

While libraries are imported and a plan is made there is nothing to clean up, and the process ends at once. Within
`gently` an interrupt is a KeyboardInterrupt, so that jobs are ended and files closed; a second one ends the process.
Nothing heavy is imported here: the command arms itself before its own imports.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

INTERRUPTED = 130
"""the exit code"""
RETRY_SECONDS = 0.02
"""between two looks at whether an import has ended"""
GOES_ON = {"run": "stored epoch", "tune": "finished trial"}
"""verbs that go on where they were, and after what"""


class _State:
    armed = False
    gentle = False
    said = False
    unit: str | None = None
    """what the verb under way goes on from, where that is not what GOES_ON has"""


def goes_on_from(unit: str | None) -> None:
    """Have an interrupt say that the verb under way goes on from the last such unit; None: as GOES_ON has it."""
    _State.unit = unit


def arm() -> None:
    """From now on this process, whose main thread this must be, hears signals as the module says."""
    _State.armed = True
    sys.unraisablehook = _unraisable
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _hear)


def _unraisable(unraisable: Any) -> None:
    """An interrupt that fell into a callback of the garbage collector's, which would swallow it and print it: the
    process ends, and jobs with it."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        _end()
    sys.__unraisablehook__(unraisable)


def disarm(code: int) -> None:
    """The work is done and its exit code is known: an interrupt ends what is left of the process with that code."""
    if _State.armed:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: os._exit(code))


@contextmanager
def gently() -> Iterator[None]:
    """In the block an interrupt is a KeyboardInterrupt, but for one in the midst of an import, which waits for its end:
    a library that is half imported swallows it or makes another error of it."""
    before, _State.gentle = _State.gentle, True
    try:
        yield
    finally:
        _State.gentle = before


@contextmanager
def sigterm_too() -> Iterator[None]:
    """SIGTERM is as Ctrl-C in the block where the process is not armed, but for a command that is called in a thread,
    which hears no signal."""
    if _State.armed or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def said(verb: str) -> int:
    """Say in one line that a verb was interrupted; the exit code."""
    if not (_State.armed and _State.said):
        _State.said = True
        _write(f"{_line(verb)}\n")
    return INTERRUPTED


def _line(verb: str) -> str:
    unit = _State.unit or GOES_ON.get(verb)
    return "interrupted" + (f": run the same command again to go on from the last {unit}" if unit else "")


def _write(text: str) -> None:
    """To stderr, past whatever holds it: on a terminal over what stands on the line, and with its cursor shown."""
    with suppress(OSError, ValueError, AttributeError):
        # rich's live view, while it is shown, prints above itself what is written to the stream in this one's place
        stream = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
        if stream.isatty():
            text = f"\r\x1b[2K\x1b[?25h{text}"
        stream.write(text)
        stream.flush()


def _raise(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _hear(number: int, frame: FrameType | None) -> None:
    """An interrupt, or the look at one that waits for the end of an import."""
    if not _State.gentle:
        _end()
    if hasattr(signal, "SIGALRM") and _imports(frame):
        signal.signal(signal.SIGALRM, _hear)
        signal.setitimer(signal.ITIMER_REAL, RETRY_SECONDS)
        return
    _State.gentle = False
    raise KeyboardInterrupt


def _end() -> NoReturn:
    with suppress(RuntimeError):  # the stream was being written to
        said(next((word for word in sys.argv[1:] if not word.startswith("-")), ""))
    os._exit(INTERRUPTED)


def _imports(frame: Any) -> bool:
    """Whether a module is being imported."""
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None
