"""An adopted run: its snapshots in somebody's files, its tensors with their roles, and its key.

The key follows from the tensors (names, shapes, roles, order), the digests of all snapshots with their places, and the
seed: the same run moved elsewhere, or in files of another kind, is the same base.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from harness.checkpoints.errors import SourceChanged
from harness.checkpoints.recognition import Checkpoint, recognise
from harness.checkpoints.roles import BUFFER, FIXED, TIED, WEIGHT, plain_names
from harness.method import Layout
from harness.validation import shown

KEY_VERSION = 1


@dataclass(frozen=True)
class SourceFile:
    """A file as it was when it was adopted; one that was kept in the results folder, which may be copied whole, has no
    time and no inode."""

    path: str
    size: int
    mtime_ns: int | None = None
    inode: int | None = None

    @classmethod
    def of(cls, path: Path) -> SourceFile:
        found = os.stat(path)
        return cls(str(path), found.st_size, found.st_mtime_ns, found.st_ino)

    @classmethod
    def kept(cls, path: Path) -> SourceFile:
        return cls(str(path), os.stat(path).st_size)

    def check(self) -> None:
        """SourceChanged where the file is not what it was."""
        try:
            now = SourceFile.of(Path(self.path))
        except OSError as error:
            raise SourceChanged(f"{self.path}: is gone since it was adopted ({error.strerror})") from error
        for name, what in (("size", "bytes"), ("mtime_ns", "time of change in ns"), ("inode", "inode")):
            then, found = getattr(self, name), getattr(now, name)
            if then is not None and then != found:
                raise SourceChanged(f"{self.path}: changed since it was adopted: {what} was {then}, is {found}")


@dataclass(frozen=True)
class Source:
    """Where one snapshot is read: a checkpoint by its path and entry, and the files that its tensors lie in.

    `original` is the path that was adopted, which is the same one unless the snapshot was copied or linked.
    """

    t: int
    step: int
    at: float
    path: str
    entry: str
    kind: str
    taken: str
    files: tuple[SourceFile, ...]
    original: str
    original_entry: str

    def open(self) -> Checkpoint:
        """The checkpoint; SourceChanged where one of its files is not what it was."""
        for file in self.files:
            file.check()
        return recognise(Path(self.path), self.entry)

    @property
    def label(self) -> str:
        return self.original


@dataclass(frozen=True)
class Tensor:
    """One tensor of every snapshot: `dtype` of the first, `digests` of each in order; `of`: what a tied one is."""

    name: str
    role: str
    of: str | None
    dtype: str
    shape: tuple[int, ...]
    digests: tuple[str, ...]


@dataclass(frozen=True)
class AdoptedRun:
    """All that is known of one adopted run, of one seed."""

    seed: int
    unit: str
    """what `at` of its snapshots counts: step, epoch or number"""
    sources: tuple[Source, ...]
    tensors: tuple[Tensor, ...]
    """weights first, in the order of theta_N"""

    @cached_property
    def weights(self) -> tuple[Tensor, ...]:
        return tuple(tensor for tensor in self.tensors if tensor.role == WEIGHT)

    @cached_property
    def buffers(self) -> tuple[Tensor, ...]:
        return tuple(tensor for tensor in self.tensors if tensor.role == BUFFER)

    @cached_property
    def layout(self) -> Layout:
        return Layout(tuple(own.name for own in self.weights), tuple(own.shape for own in self.weights))

    @property
    def N(self) -> int:
        return self.layout.N

    @property
    def buffer_floats(self) -> int:
        return sum(Layout((own.name,), (own.shape,)).N for own in self.buffers)

    @property
    def ts(self) -> tuple[int, ...]:
        return tuple(source.t for source in self.sources)

    @property
    def epochs(self) -> int:
        """Snapshots after w(0): the last t."""
        return self.ts[-1]

    @property
    def has_initial(self) -> bool:
        return self.ts[0] == 0

    @property
    def gaps(self) -> tuple[float, ...]:
        """Steps, epochs or numbers between snapshots that follow each other, w(0) aside."""
        ats = [source.at for source in self.sources if source.t > 0]
        return tuple(b - a for a, b in pairwise(ats))

    @property
    def is_even(self) -> bool:
        """Whether all gaps are the same."""
        return len(set(self.gaps)) <= 1

    @property
    def steps_per_epoch(self) -> int:
        """Steps between two snapshots, on average and at least 1; 1 where steps are not known."""
        return max(1, round(sum(self.gaps) / len(self.gaps))) if self.unit == "step" and self.gaps else 1

    @cached_property
    def snapshot_digests(self) -> list[str]:
        """One digest for every snapshot, of all its tensors but those that are others once more."""
        kept = [tensor for tensor in self.tensors if tensor.role != TIED]
        return [
            hashlib.sha256(json.dumps([tensor.digests[place] for tensor in kept]).encode()).hexdigest()
            for place in range(len(self.sources))
        ]

    @cached_property
    def key(self) -> str:
        """20 hex digits."""
        fields = {
            "adopted": KEY_VERSION,
            "tensors": [[own.name, [*own.shape], own.role] for own in self.tensors if own.role != TIED],
            "snapshots": [
                [source.t, source.step, digest]
                for source, digest in zip(self.sources, self.snapshot_digests, strict=True)
            ],
            "seed": self.seed,
        }
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:20]

    def by_name(self, found: Checkpoint) -> dict[str, str]:
        """The names of a checkpoint's tensors as they are in its file, by their names here."""
        return {plain: raw for raw, plain in plain_names(list(found.tensors)).items()}

    @property
    def counts(self) -> dict[str, int]:
        """How many tensors have each role."""
        return {kind: sum(own.role == kind for own in self.tensors) for kind in (WEIGHT, BUFFER, FIXED, TIED)}


def check_same(runs: Sequence[AdoptedRun]) -> str | None:
    """How runs of one name differ in their weights, in words; None where they do not."""
    first = runs[0]
    for run in runs[1:]:
        if run.layout != first.layout:
            pair = next(
                (
                    (a, b)
                    for a, b in zip(first.weights, run.weights, strict=False)
                    if (a.name, a.shape) != (b.name, b.shape)
                ),
                None,
            )
            what = f"{len(first.weights)} and {len(run.weights)} of them"
            if pair is not None:
                what = f"{pair[0].name} {shown(pair[0].shape)} and {pair[1].name} {shown(pair[1].shape)}"
            return f"seeds must have the same weights, got {what} (seeds {first.seed} and {run.seed})"
    return None
