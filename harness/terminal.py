"""What the command prints reaches a terminal, a pipe or a file as far as it can, and never ends the work.

A stream that was closed is as good as none, one whose reader has gone takes nothing more, and characters that its
encoding lacks are replaced. Files are UTF-8 whatever the terminal shows.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

NEAREST = str.maketrans({"±": "+-", "·": "-", "–": "-", "−": "-", "…": "...", "×": "x", "─": "-"})
"""what stands for characters of our own where an encoding lacks them"""
_ERRORS = "traindyn"


def _nearest(error: UnicodeError) -> tuple[str | bytes, int]:
    """Of an encoding error: what is written for the characters, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(NEAREST)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error(_ERRORS, _nearest)


class _Patient(io.FileIO):
    """A descriptor that stays another's, and whose reader may go away: what is written then is dropped."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            return memoryview(data).nbytes


def _patient(stream: TextIO | Any, original: TextIO | Any) -> TextIO | Any:
    """A process's own stream made patient; one that something else has put in its place, as it is."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if stream is not original:
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    try:
        raw = _Patient(stream.fileno(), "w", closefd=False)
    except (OSError, ValueError):
        return stream
    lines = stream.isatty() or stream is sys.__stderr__
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, _ERRORS, line_buffering=lines)


def _occupy_closed() -> None:
    """Descriptors of closed streams lead nowhere, so that no file that is opened gets one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)


@contextlib.contextmanager
def patient_streams() -> Iterator[None]:
    """In the block, stdout and stderr of this process are written as the module says."""
    before = sys.stdout, sys.stderr
    if None in before:
        _occupy_closed()
    sys.stdout, sys.stderr = _patient(sys.stdout, sys.__stdout__), _patient(sys.stderr, sys.__stderr__)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = before
