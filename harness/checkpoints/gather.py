"""Which checkpoints are meant by a folder, a pattern, a list or a table of them, and in which order they were written.

What a checkpoint says of its step or epoch counts first, then what its name says; times of files never do.
"""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.checkpoints.errors import NoWeights, Unreadable
from harness.checkpoints.recognition import Checkpoint, is_checkpoint_folder, looks_like_checkpoint, recognise
from harness.validation import ConfigError, shown

ENDINGS = (".pt", ".pth", ".ckpt", ".safetensors", ".tar")
"""of files that are meant as checkpoints, whatever they hold"""
DEPTH = 4
"""folders within each other that are looked through"""
STEP_IN_NAME = re.compile(r"(?:global_?step|step|iter(?:ation)?s?|updates?)[=_-]?(\d+)", re.IGNORECASE)
EPOCH_IN_NAME = re.compile(r"(?:epoch|ep)[=_-]?(\d+)", re.IGNORECASE)
NUMBER_IN_NAME = re.compile(r"\d+")


@dataclass
class Candidate:
    """A path that may hold a snapshot, with what a table says of it."""

    path: Path
    step: int | None = None
    epoch: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Placed:
    """A checkpoint with its place in the run; `at` counts `unit`s: steps, epochs or plain numbers."""

    checkpoint: Checkpoint
    at: float
    unit: str
    metrics: dict[str, float] = field(default_factory=dict)


def candidates(sources: Sequence[str]) -> list[Candidate]:
    """The paths that texts stand for, each a folder, a pattern, a file or a CSV; ConfigError for one that is none."""
    found: dict[Path, Candidate] = {}
    for text in sources:
        for one in _candidates(os.path.expanduser(text)):
            found.setdefault(one.path.absolute(), one)
    return list(found.values())


def _candidates(text: str) -> Iterator[Candidate]:
    path = Path(text)
    if path.suffix.lower() == ".csv" and path.is_file():
        yield from _of_table(path)
        return
    matches = [path] if path.exists() else [Path(one) for one in sorted(glob.glob(text, recursive=True))]
    if not matches:
        raise ConfigError(f"from must name files or folders that are there: no such file: {shown(text)}")
    for match in matches:
        yield from map(Candidate, _within(match, DEPTH))


def _within(path: Path, depth: int) -> Iterator[Path]:
    """A checkpoint itself, or of a folder that is none all that lie in it."""
    if not path.is_dir() or is_checkpoint_folder(path):
        yield path
    elif depth > 0:
        for inner in sorted(path.iterdir()):
            if inner.is_dir() or inner.suffix.lower() in ENDINGS or looks_like_checkpoint(inner):
                yield from _within(inner, depth - 1)


def _of_table(path: Path) -> Iterator[Candidate]:
    """A CSV with the column path, maybe step and epoch, and metrics as its other columns."""
    import pandas as pd  # slow to import, and most runs have no table

    try:
        table = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path} must be a CSV with the column path, got {str(error).splitlines()[0]}") from error
    if "path" not in table.columns:
        raise ConfigError(f"{path} must have the column path, got {', '.join(map(str, table.columns))}")
    for index, row in enumerate(table.to_dict("records"), 2):
        own = path.parent / os.path.expanduser(str(row.pop("path")))
        if not own.exists():
            raise ConfigError(f"{path}, line {index}: no such file: {own}")
        numbers = {str(name): float(v) for name, v in row.items() if isinstance(v, int | float) and math.isfinite(v)}
        step, epoch = numbers.pop("step", None), numbers.pop("epoch", None)
        if step is not None and (step < 0 or step != int(step)):
            raise ConfigError(f"{path}, line {index}: step must be a whole number from 0 on, got {step:g}")
        yield Candidate(own, None if step is None else int(step), epoch, numbers)


def read_all(found: Iterable[Candidate], entry: str, note: list[str]) -> list[tuple[Candidate, Checkpoint]]:
    """The checkpoints of candidates; those without weights are left out, which is noted in a line.

    Unreadable where one is damaged, and where all that was found has no weights.
    """
    read, without = [], list[NoWeights]()
    for one in found:
        try:
            read.append((one, recognise(one.path, entry)))
        except NoWeights as error:
            without.append(error)
    if not read and without:
        raise Unreadable(*(str(error) for error in without[:1]))
    if without:
        names = ", ".join(str(error).split(": ")[0] for error in without[:3])
        more = f" and {len(without) - 3} more" if len(without) > 3 else ""
        note.append(f"left out, without weights of a model: {names}{more}")
    return read


def place(read: Sequence[tuple[Candidate, Checkpoint]]) -> list[Placed]:
    """The checkpoints in the order in which they were written: by step where all have one, else by epoch, else by the
    numbers in their names; Unreadable, naming the first that has none, where there is no order to be had."""
    steps = [_first(one.step, found.facts.step, _in_name(STEP_IN_NAME, found.path)) for one, found in read]
    epochs = [
        _first(one.epoch, found.facts.epoch, _counted(_in_name(EPOCH_IN_NAME, found.path))) for one, found in read
    ]
    numbers = [_last_number(found.path) for _, found in read]
    for unit, values in (("step", steps), ("epoch", epochs), ("number", numbers)):
        if all(value is not None for value in values):
            known = [float(value) for value in values if value is not None]
            # a number from 0 on counts what was saved, the first of which is not w(0)
            shift = 1.0 if unit == "number" and min(known, default=1.0) == 0 else 0.0
            placed = [
                Placed(found, at + shift, unit, one.metrics) for (one, found), at in zip(read, known, strict=True)
            ]
            return sorted(placed, key=lambda one: (one.at, str(one.checkpoint.path)))
    lacking = next(found for (_, found), number in zip(read, numbers, strict=True) if number is None)
    raise Unreadable(
        f"{lacking.path}: neither its content nor its name says at which step it was written; a CSV with the columns "
        "path and step does"
    )


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _counted(epoch: int | None) -> float | None:
    """A name counts epochs from 0 as its content does."""
    return None if epoch is None else float(epoch + 1)


def _in_name(pattern: re.Pattern[str], path: Path) -> int | None:
    found = pattern.search(path.name)
    return None if found is None else int(found[1])


def _last_number(path: Path) -> int | None:
    """The last number in a name, or in that of the nearest folder above that has one."""
    for name in (path.stem, path.parent.name):
        numbers = NUMBER_IN_NAME.findall(name)
        if numbers:
            return int(numbers[-1])
    return None


def chosen(placed: Sequence[Placed], steps: str | None) -> list[Placed]:
    """Those that `first:last:every` keeps, all three in the unit of the order; ConfigError where it is none."""
    if steps is None:
        return list(placed)
    parts = steps.split(":")
    try:
        first, last, every = (float(part) if part else None for part in [*parts, *[""] * (3 - len(parts))])
    except ValueError:
        raise ConfigError(f"steps must be first:last:every, such as 0:10000:500, got {shown(steps)}") from None
    if every is not None and every <= 0:
        raise ConfigError(f"steps must have a number above 0 as every, got {shown(steps)}")
    begin = placed[0].at if first is None and placed else first or 0.0
    kept = [
        one
        for one in placed
        if one.at >= begin and (last is None or one.at <= last) and (every is None or (one.at - begin) % every == 0)
    ]
    if not kept:
        span = f"{placed[0].at:g} to {placed[-1].at:g}" if placed else "none"
        raise ConfigError(f"steps must leave snapshots of those there are ({span}), got {shown(steps)}")
    return kept
