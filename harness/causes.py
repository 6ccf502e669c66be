"""Why something ended badly: what an exception says, and the line of a person's own code that it comes from."""

from __future__ import annotations

import linecache
import os
import re
import sysconfig
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.packages import HOME, METHODS
from harness.validation import reason_of_kind

LIBRARIES = {"site-packages", "dist-packages"}
"""folders of installed packages"""
LONGEST_LINE = 160
"""characters of a line of code that are shown at most"""
_DUMPED = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<name>.+)$', re.M)
"""a frame as `faulthandler` writes it when a signal ends a process, the innermost first"""


class Interrupted(SystemExit):
    """A job's process was asked to end, which is nobody's failure: it goes on from its last epoch."""


@dataclass(frozen=True)
class Cause:
    """Why a cell or a base did not end well."""

    reason: str
    """one line"""
    where: str | None = None
    """`file:line in function: code`, see `line_of`"""
    traceback: str | None = None
    """all there is to read, of any number of lines"""

    @classmethod
    def of(cls, error: BaseException) -> Cause:
        return cls(reason_of_kind(error), line_of(error), "".join(traceback.format_exception(error)))

    @classmethod
    def of_signal(cls, reason: str, dump: str) -> Cause:
        """Of a process that a signal ended; `dump` is what `faulthandler` wrote then, empty where it wrote nothing."""
        frames = [(found["file"], int(found["line"]), found["name"]) for found in _DUMPED.finditer(dump)]
        where = next((_said(*frame) for frame in frames if _is_own(frame[0])), None)
        return cls(reason, where, dump or None)


def line_of(error: BaseException) -> str | None:
    """Where an exception comes from, as `file:line in function: code`: see `own_line`; where no own code was passed the
    innermost line of the harness, but None for an error that the harness itself words."""
    own = own_line(error)
    if own is not None or type(error).__module__.split(".")[0] == "harness":
        return own
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_below(frame.filename, "harness")]
    return _said(frames[-1].filename, frames[-1].lineno, frames[-1].name) if frames else None


def own_line(error: BaseException) -> str | None:
    """The innermost line of a person's own code that an exception passed, None where it passed none.

    Own code is what lies neither in `harness`, nor among installed packages, nor in Python's library; of an exception
    without any, the one that it was raised from is asked. Files below the working folder are named from there.
    """
    for one in _chain(error):
        if isinstance(one, SyntaxError) and one.filename and _is_own(one.filename):
            return _said(one.filename, one.lineno, None)
        own = [frame for frame in traceback.extract_tb(one.__traceback__) if _is_own(frame.filename)]
        if own:
            return _said(own[-1].filename, own[-1].lineno, own[-1].name)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, and after it what it was raised from."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        context = None if following.__suppress_context__ else following.__context__
        following = following.__cause__ or context


@cache
def _is_own(file: str) -> bool:
    """Whether a file is a person's own code; this project's methods are."""
    if file.startswith("<"):
        return False
    if _is_below(file, METHODS):
        return True
    path = Path(os.path.abspath(file))
    library = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    installed = LIBRARIES & set(path.parts) or any(path.is_relative_to(folder) for folder in library)
    return not installed and not _is_below(file, "harness")


def _is_below(file: str, package: str) -> bool:
    return Path(os.path.abspath(file)).is_relative_to(HOME / package)


def _said(file: str, line: int | None, name: str | None) -> str:
    line = line or 1
    code = linecache.getline(file, line).strip()
    code = code if len(code) <= LONGEST_LINE else f"{code[:LONGEST_LINE]}..."
    place = f"{short_path(file)}:{line}" + (f" in {name}" if name else "")
    return f"{place}: {code}" if code else place


def short_path(path: str | Path) -> str:
    """A path as it is typed in the working folder: from there where it lies below, else from the root."""
    path = os.path.abspath(path)
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here)
