"""The files of a results folder, which may come from a stranger: nothing in it leads out of it.

A folder is made known by `known`, as every `Store` does for its process. Of all that lies below one, no link is
followed and only regular files and folders are opened: for who reads, anything else is as if it were not there, which
is said in one line, once; who would write there is refused. `bases` and `cells` as wholes may be links, to another
disk say, and so may the folder itself and what leads to it. Paths elsewhere, such as those of a cache, are taken as
they are. A folder that somebody changes while a command looks at it is not guarded against.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

import filelock

from harness.validation import ConfigError, printable, shown

WHOLE_LINKS = ("bases", "cells")
"""the folders that may lie on another disk as wholes"""
JOURNAL_LOCK = "journal.log.lock"
"""what the name of a link begins with by which Optuna locks a journal: it is made, renamed and removed, never opened"""
_known: dict[str, Callable[[str], None]] = {}
_said: set[str] = set()


class NotFollowed(FileNotFoundError):
    """A link or a special file below a results folder, which is for readers as if it were not there."""


def known(root: Path, say: Callable[[str], None] | None = None) -> None:
    """Guard all that lies below `root` in this process from now on; `say` hears of what is not followed."""
    for name in (os.path.join(os.getcwd(), root), os.path.abspath(root)):
        if say is not None or name not in _known:
            _known[name] = say or print


def refusal(path: Path) -> str | None:
    """What keeps a path from being opened: the first part of it below its results folder that is a link, or that is
    neither a folder nor a regular file, in one line; None where nothing does."""
    whole, root = _place(path)
    return None if root is None else _refusal(whole, root)


def _place(path: Path) -> tuple[str, str | None]:
    """An absolute path, and the innermost results folder that it lies in, None where it lies in none."""
    whole = os.fspath(path)
    whole = whole if whole.startswith(os.sep) else os.path.join(os.getcwd(), whole)
    return whole, max((root for root in _known if whole.startswith(root + os.sep)), key=len, default=None)


def _refusal(whole: str, root: str, but_last: bool = False) -> str | None:
    """As `refusal`, the last part of the path aside where it is looked at when it is opened."""
    parts = whole[len(root) + 1 :].split(os.sep)
    if ".." in parts:
        return f"{printable(whole)} leads out of its folder"
    here = root
    for place, part in enumerate(parts[:-1] if but_last else parts):
        here = f"{here}{os.sep}{part}"
        if place == 0 and part in WHOLE_LINKS:
            continue
        try:
            mode = os.lstat(here).st_mode
        except OSError:  # it is not there, which whoever opens it finds out
            break
        if stat.S_ISLNK(mode):
            return f"{printable(here)} is a link, which is not followed"
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            return f"{printable(here)} is no regular file, and is not opened"
    return None


def check_readable(path: Path) -> None:
    """NotFollowed where a link leads to a path or it is a special file, which is said once."""
    whole, root = _place(path)
    if root is not None and (text := _refusal(whole, root)) is not None:
        raise _not_followed(path, text, root)


def _not_followed(path: Path, text: str, root: str) -> NotFollowed:
    if text not in _said:
        _said.add(text)
        _known[root](text)
    return NotFollowed(errno.ENOENT, text, str(path))


def check_writable(path: Path) -> None:
    """ConfigError where a link leads to a path or it is one, or a special file."""
    text = refusal(path)
    if text is not None:
        raise ConfigError(f"results_dir must hold files and folders alone where something is written: {text}")


def _opened(path: Path) -> int:
    """The descriptor of a regular file, open for reading."""
    whole, root = _place(path)
    if root is not None and (text := _refusal(whole, root, but_last=True)) is not None:
        raise _not_followed(path, text, root)
    try:
        descriptor = os.open(whole, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if root else 0))
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, or a socket
            check_readable(path)
        error.filename = str(path)
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        check_readable(path)
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, os.strerror(code), str(path))
    return descriptor


def open_read(path: Path) -> BinaryIO:
    """A regular file opened for reading; NotFollowed where a link leads to it or it is none."""
    return open(_opened(path), "rb")


def read_most(path: Path, most: int) -> bytes | None:
    """A regular file's content, None where it is longer than `most` bytes; NotFollowed as in `open_read`."""
    descriptor = _opened(path)
    try:
        left, parts = os.fstat(descriptor).st_size, []
        if left > most:
            return None
        while left > 0 and (part := os.read(descriptor, left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def open_append(path: Path) -> BinaryIO:
    """A file opened for appending, and made where there is none; ConfigError where a link leads to it.

    Where the file has another name elsewhere, that keeps what it has.
    """
    check_writable(path)
    with contextlib.suppress(FileNotFoundError):
        if os.lstat(path).st_nlink > 1:
            copy = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
            copy_file(path, copy)
            os.replace(copy, path)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return open(os.open(path, flags, 0o666), "a+b", buffering=0)


def is_file(path: Path) -> bool:
    """Whether a regular file lies there that would be opened."""
    return _is(path, stat.S_ISREG)


def is_folder(path: Path) -> bool:
    """Whether a folder lies there that would be entered."""
    return _is(path, stat.S_ISDIR)


def _is(path: Path, kind: Callable[[int], bool]) -> bool:
    try:
        os.lstat(path)  # most often it is not there
        check_readable(path)
        return kind(os.stat(path).st_mode)
    except OSError:
        return False


def entries(folder: Path, pattern: str = "*") -> list[Path]:
    """The files and folders in a folder whose names match, in order; none where there is no folder.

    Links and special files are left out, which is said once.
    """
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        check_readable(folder)
        with os.scandir(folder) as listed:
            for entry in listed:
                if not fnmatchcase(entry.name, pattern):
                    continue
                path = folder / entry.name
                with contextlib.suppress(NotFollowed):
                    if not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)):
                        check_readable(path)
                    found.append(path)
    return sorted(found)


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, in order."""
    return [path for path in entries(folder) if is_folder(path)]


def files_in(folder: Path, pattern: str = "*") -> list[Path]:
    """The files in a folder whose names match, in order."""
    return [path for path in entries(folder, pattern) if is_file(path)]


def below(folder: Path, name: str) -> Path:
    """The path of `name`, which a file gave, in a folder; ConfigError where it leads out of it."""
    if not name or "\0" in name or os.path.isabs(name) or ".." in Path(name).parts:
        raise ConfigError(f"{printable(folder)} must be where its files lie, got {shown(name)}")
    return folder / name


def files_below(folder: Path, pattern: str = "*") -> Iterator[Path]:
    """The files in a folder, and in all folders within it, whose names match."""
    for path in entries(folder):
        if path.is_dir():
            yield from files_below(path, pattern)
        elif fnmatchcase(path.name, pattern):
            yield path


def strangers(root: Path) -> Iterator[str]:
    """What is not followed below a results folder, one line each; W&B's own folder aside, in which nothing is written
    but by W&B."""
    yield from _strangers(root, passed=("wandb", *WHOLE_LINKS))
    for name in WHOLE_LINKS:
        if os.path.isdir(root / name):
            yield from _strangers(root / name)


def strangers_in(folder: Path) -> Iterator[str]:
    """What is not followed in one folder and those within it, one line each."""
    if (text := refusal(folder)) is not None:
        yield text
    else:
        yield from _strangers(folder)


def _strangers(folder: Path, passed: Collection[str] = ()) -> Iterator[str]:
    try:
        with os.scandir(folder) as listed:
            found = sorted(listed, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        if entry.name in passed or entry.is_file(follow_symlinks=False):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _strangers(folder / entry.name)
        elif not entry.name.startswith(JOURNAL_LOCK) and (text := refusal(folder / entry.name)) is not None:
            yield text


def check_whole(root: Path) -> None:
    """ConfigError where anything below a results folder is not followed: nothing is to be changed there then."""
    found = next(strangers(root), None)
    if found is not None:
        raise ConfigError(f"results_dir must hold files and folders alone where something is written: {found}")


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    check_writable(path.parent)
    path.unlink(missing_ok=True)


def remove_folder(path: Path, ignore_errors: bool = False) -> None:
    """Remove a folder and all in it; links in it are removed and what they lead to stays."""
    check_writable(path)
    shutil.rmtree(path, ignore_errors=ignore_errors)


def rename(path: Path, to: Path) -> None:
    """Give a file or a folder another name."""
    check_writable(path)
    check_writable(to)
    path.rename(to)


def copy_file(source: Path, target: Path) -> None:
    """Copy a regular file; NotFollowed where a link leads to it, ConfigError where one leads to the target."""
    check_writable(target)
    with open_read(source) as file, open(target, "wb") as copy:
        shutil.copyfileobj(file, copy)


def lock(path: Path) -> filelock.FileLock:
    """A lock on a file, which is made where there is none."""
    check_writable(path)
    return filelock.FileLock(path, thread_local=False)
