"""Files that are either whole or absent: written beside their place, flushed to disk and renamed into it.

They are read with bounds on what they may hold, since a results folder may be anyone's (`storage.inside`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from harness.storage.inside import check_writable, read_most
from harness.validation import reason

if TYPE_CHECKING:
    import pandas as pd

MOST_JSON_BYTES = 80 << 20
"""of a record or a plan: a base of a million epochs has 67 MiB"""
MOST_NESTED = 100
"""mappings and lists within each other"""
MOST_MAPPINGS = 3_000_000
"""and lists of one file, 10 for every cell of a plan"""


class CorruptFile(ValueError):
    """A stored file that is not what was written."""


def is_disk_trouble(error: BaseException) -> TypeGuard[OSError]:
    """Whether a disk that is full, failing or read-only is to blame, and no one's code or numbers."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place, durably, when the block succeeds."""
    check_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV in full precision. Texts that a spreadsheet would compute have an apostrophe before them."""
    from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

    plain = table.rename(columns=no_formula)
    for place, kind in enumerate(table.dtypes):
        if not (is_numeric_dtype(kind) or is_datetime64_any_dtype(kind)):
            plain.isetitem(place, table.iloc[:, place].map(no_formula).astype("object").to_numpy())
    return str(plain.to_csv(index=False))


def no_formula(value: Any) -> Any:
    """A field of a CSV, with an apostrophe before a text that a spreadsheet would compute; a number stays one."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def read_bytes(path: Path, most: int = MOST_JSON_BYTES) -> bytes:
    """A regular file's content; CorruptFile where it is longer than `most`, NotFollowed where a link leads to it."""
    found = read_most(path, most)
    if found is None:
        raise CorruptFile(f"{path}: more than the {most} bytes that such a file may have")
    return found


def read_json(path: Path, most: int = MOST_JSON_BYTES) -> Any:
    """The value of a JSON file; CorruptFile, one line, where it is none or nested too deep."""
    try:
        return parsed_json(read_bytes(path, most))
    except CorruptFile as error:
        text = str(error)
        raise CorruptFile(text if text.startswith(str(path)) else f"{path}: {text}") from None


def parsed_json(data: bytes, most_mappings: int = MOST_MAPPINGS) -> Any:
    """The value of a JSON text; CorruptFile, one line, where it is none, nested too deep or of too many parts."""
    count = data.count(b"{") + data.count(b"[")
    if count > most_mappings:
        raise CorruptFile(f"more than {most_mappings} mappings and lists")
    try:
        value = json.loads(data)
    except RecursionError:
        raise CorruptFile(f"more than {MOST_NESTED} mappings and lists within each other") from None
    except ValueError as error:
        raise CorruptFile(reason(error)) from None
    if count > MOST_NESTED:
        depth, level = 0, [value]
        while level:
            depth += 1
            level = [one for part in level for one in _parts(part) if isinstance(one, dict | list)]
        if depth > MOST_NESTED:
            raise CorruptFile(f"more than {MOST_NESTED} mappings and lists within each other")
    return value


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def set_aside(path: Path) -> Path:
    """Rename a corrupt file so that nothing takes it for good, and nothing is lost."""
    check_writable(path)
    aside = path.with_name(f"{path.name}.corrupt-{uuid.uuid4().hex[:8]}")
    os.replace(path, aside)
    return aside
