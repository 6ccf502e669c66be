"""What a tracker is: a few functions that are fed with what records hold.

A run is a cell's, a suite's, or any other (a trial of tuning, say): it is started, given rows and ended, and what has
been given before is skipped, so that all of it may be given again at any time, from a job or from its record.
Trackers never raise because a service is away: what is not as asked for is said in one line, once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

Say = Callable[[str], None]
Row = Mapping[str, Any]

STATUSES_THAT_SUCCEED = ("done", "diverged")
TAG_CHARACTERS = 64
"""of a tag or a kind of job, at most, as W&B takes them"""
NAME_CHARACTERS = 128
"""of a name or a group"""
ID_CHARACTERS = 64
"""of a run's id, which are letters, digits, _ and -"""


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters: one that is longer ends with a digest of the whole."""
    return text if len(text) <= most else f"{text[: most - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def fitting_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags each once and in order, without those that are empty, none longer than W&B takes."""
    return tuple(dict.fromkeys(shortened(tag.strip(), TAG_CHARACTERS) for tag in tags if tag.strip()))


def readable_id(*parts: str, digest: str, suffix: str = "") -> str:
    """A run's id that begins with its parts, as far as an id takes them, and ends with 8 digits of a digest, which tell
    it from all others, and a suffix."""
    plain = [re.sub(r"[^A-Za-z0-9_-]+", "-", part).strip("-") for part in parts]
    end = f"-{digest[:8]}{suffix}"
    while len("-".join(plain)) > ID_CHARACTERS - len(end):
        longest = max(range(len(plain)), key=lambda index: len(plain[index]))
        plain[longest] = plain[longest][:-1]
    return "-".join(filter(None, plain)) + end


def as_id(text: str) -> str:
    """A text as a part of an id, of a file's and an artifact's name: as it is where it can be, else with a digest."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", text):
        return text
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:30]
    return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}".lstrip("-")


@dataclass(frozen=True)
class RunInfo:
    """What a run is called and where it is put; what is too long for W&B is shortened when one is made."""

    run_id: str
    name: str
    group: str
    job_type: str
    tags: Sequence[str] = ()
    """beside those of the configuration"""
    config: dict[str, Any] = field(default_factory=dict)
    """plain values, resolved"""
    notes: str | None = None
    """beside those of the configuration"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", shortened(self.name, NAME_CHARACTERS))
        object.__setattr__(self, "group", shortened(self.group, NAME_CHARACTERS))
        object.__setattr__(self, "job_type", shortened(self.job_type, TAG_CHARACTERS))
        object.__setattr__(self, "tags", fitting_tags(self.tags))


@dataclass(frozen=True)
class ArtifactFiles:
    """Files that belong together under one name: `files` maps names to paths, or to their contents."""

    name: str
    type: str
    files: Mapping[str, Path | bytes]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunEnd:
    """How a run ended. None among the numbers of `summary` is left out."""

    summary: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    images: Mapping[str, Path] = field(default_factory=dict)
    artifacts: Sequence[ArtifactFiles] = ()
    status: str = "done"
    digest: str | None = None
    """of the record that all of this is of; a run that has it lacks nothing"""


class WholeRun(NamedTuple):
    """A run from its start to its end."""

    info: RunInfo
    rows: Sequence[Row]
    end: RunEnd


@dataclass(frozen=True)
class RunState:
    """What a tracker holds of a run."""

    rows: int
    last: Row | None
    """the last of them"""
    digest: str | None
    """of the record that the run was ended with"""
    tags: Sequence[str] = ()

    @property
    def epoch(self) -> int | None:
        return None if self.last is None else int(self.last["epoch"])


class Tracker:
    """The interface; this one tracks nothing. Runs may be given from several threads, one run from one at a time."""

    where: str | None = None
    """what its runs can be found under, for people; None where nothing is tracked"""

    def refuses(self, run_id: str) -> bool:
        """Whether it was given this run and does not take it, nor would if it were given it again."""
        return False

    def states(self, run_ids: Iterable[str]) -> dict[str, RunState]:
        """What it holds of these runs; those that it does not know are left out."""
        return {}

    def start(self, info: RunInfo) -> None:
        """Open a run, or go on with it; one that is open stays so."""

    def log(self, run_id: str, rows: Iterable[Row]) -> None:
        """Give rows (`epoch` and numbers) of an open run; epochs ascend, those that are there are skipped.

        None is left out; NaN and infinities are kept, since a loss that diverged is a result.
        """

    def end(self, run_id: str, end: RunEnd) -> None:
        """Close an open run with its summary, tables, images and artifacts."""

    def close(self) -> None:
        """No more runs: leave those that are open as interrupted, to be gone on with."""

    def record(self, info: RunInfo, rows: Iterable[Row], end: RunEnd) -> None:
        """A run as a whole."""
        self.start(info)
        self.log(info.run_id, rows)
        self.end(info.run_id, end)
