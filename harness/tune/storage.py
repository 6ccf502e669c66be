"""Where a study's trials are kept: a journal file with one coordinator, or a database that many machines reach.

A journal is one JSON line per operation, appended and flushed. What a killed process left behind (half a line, a lock)
is cleared when the next coordinator takes the study's folder, which only one process at a time may hold.
"""

from __future__ import annotations

import contextlib
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend, JournalStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from harness.config import ConfigError
from harness.storage import inside
from harness.storage.files import read_bytes
from harness.storage.masking import masked_text
from harness.validation import reason_of_kind

JOURNAL = "journal.log"
MOST_BYTES = 1 << 28
"""of a journal"""
CONNECTS = 10
"""attempts at a database whose tables somebody else is making"""
BUSY_SECONDS = 20
"""how long to wait for a database file that another process writes to"""
HEARTBEAT_SECONDS = 30
"""how often a coordinator tells a database that its trials are alive; without for four times as long, they are lost"""


@contextlib.contextmanager
def held(folder: Path, shared: bool) -> Iterator[None]:
    """Hold a study's folder, this machine's part of it where its storage is `shared`; ConfigError where it is held."""
    inside.check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = inside.lock(folder / (f".lock-{socket.gethostname()}" if shared else ".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ConfigError(
            f"tune.name must be of a study that no other process works on, got one that is locked: {lock.lock_file}"
        ) from None
    try:
        yield
    finally:
        lock.release()


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """The storage of the study in `folder`, which is held; ConfigError where it cannot be reached."""
    if url is None:
        path = folder / JOURNAL
        _clear(path)
        try:
            storage = JournalStorage(JournalFileBackend(str(path)))
            for study in storage.get_all_studies():
                storage.get_all_trials(study._study_id)
        except Exception as error:  # whatever a line that Optuna did not write leads it to
            raise ConfigError(
                f"{path} must be a journal of Optuna's, got one that it cannot read ({reason_of_kind(error)}); "
                "tune.name=... makes a study beside it"
            ) from error
        return storage
    return _database(url)


def _clear(path: Path) -> None:
    """Cut half a line off a journal's end, which its last writer was killed at, and release its lock."""
    inside.remove(path.with_name(path.name + ".lock"))
    inside.check_writable(path)
    if not path.exists():
        return
    data = read_bytes(path, MOST_BYTES)
    whole = data.rfind(b"\n") + 1
    with inside.open_append(path) as file:
        file.truncate(whole)


def _database(url: str) -> BaseStorage:
    shown = masked_text(url)
    try:
        parsed = make_url(url)
        shown = masked_text(parsed.render_as_string(hide_password=True))
        if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise ConfigError(f"tune.storage must be a database that outlives the command, got {shown!r}")
        options: dict[str, Any] = (
            {"connect_args": {"timeout": BUSY_SECONDS}}
            if parsed.get_backend_name() == "sqlite"
            else {"pool_pre_ping": True}
        )
        return _connect(url, options)
    except ArgumentError:
        raise ConfigError(f"tune.storage must be a database URL such as sqlite:///tune.db, got {shown!r}") from None
    except (SQLAlchemyError, StorageInternalError, ImportError, RuntimeError) as error:
        raise ConfigError(f"tune.storage must be reachable, got {shown!r}: {masked_text(first_line(error))}") from None


def _connect(url: str, options: dict[str, Any]) -> BaseStorage:
    """Tables are made where there are none; where another machine is making them just now, it is tried again."""
    for _ in range(CONNECTS - 1):
        try:
            return _storage(url, options)
        except (SQLAlchemyError, StorageInternalError) as error:
            if "exist" not in first_line(error) and "unique" not in first_line(error).lower():
                raise
            time.sleep(0.1)
    return _storage(url, options)


def _storage(url: str, options: dict[str, Any]) -> RDBStorage:
    with quiet():
        return RDBStorage(
            url,
            engine_kwargs=options,
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=4 * HEARTBEAT_SECONDS,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=1),
        )


def first_line(error: BaseException) -> str:
    """What an error's cause says first, without the statement that a database refused."""
    cause = error.__cause__ or error
    lines = str(getattr(cause, "orig", None) or cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's warnings on asking and telling with heartbeats, and on what it calls experimental."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.filterwarnings("ignore", message="Heartbeat of storage")
            warnings.filterwarnings("ignore", module="optuna")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
