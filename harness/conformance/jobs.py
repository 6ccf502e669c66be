"""Checks of a method inside the harness's own jobs: repeated, stopped after every epoch, and charged."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.conformance.clauses import Clause, breach
from harness.conformance.pretended_gpu import pretended_gpu
from harness.conformance.tiny import DEVICE, Subject, file_digests, quiet, temporary_folder
from harness.running.events import EpochEnded, Event
from harness.running.jobs import run_job
from harness.storage.store import Record, Store

TOLERANCE = {"cpu": 1e-3, "cuda": 2e-2}
"""What a validation loss may differ by, as a share, by the device that the suite runs on: from a GPU that is only
pretended, where sums may be taken in other blocks, or from the CPU, since a GPU rounds every step otherwise"""


class Stopped(BaseException):
    """Someone stopped the job, as Ctrl-C does."""


def _stop(event: Event) -> None:
    if isinstance(event, EpochEnded):
        raise Stopped


@dataclass(frozen=True)
class Outcome:
    """What a cell's job left."""

    record: Record
    rows: pd.DataFrame
    """its history but for the clocks"""
    files: dict[str, str]
    """digests of final weights and tables"""

    def differences(self, other: Outcome) -> str:
        """What differs by a bit, by name."""
        columns = sorted({*self.rows.columns, *other.rows.columns})
        ours, theirs = (rows.reindex(columns=columns) for rows in (self.rows, other.rows))
        found = [name for name in columns if not ours[name].equals(theirs[name])]
        found += [name for name in sorted({*self.files, *other.files}) if self.files.get(name) != other.files.get(name)]
        return ", ".join(found)


def _again(subject: Subject) -> str:
    """The job that adds the cell to a base that is trained already."""
    if subject.cell.kind == "brancher":
        return "branch"
    return "shadow" if subject.cell.kind == "observer" and subject.cell.cadence != "epoch" else "replay"


def _run(subject: Subject, kind: str, root: Path, stops: int = 0) -> Outcome:
    """Run the cell's job, stopped after each of so many epochs; fails with the method's traceback where it raises."""
    job = subject.job(kind, root)
    for _ in range(stops):
        with pytest.raises(Stopped):
            run_job(job, _stop)
    run_job(job, quiet)
    store, key = Store(root), subject.cell.key
    record, rows = store.record(key), store.history(key)
    assert record is not None, f"the {kind} job left no record"
    assert rows is not None, f"the {kind} job left no history"
    assert record["status"] == "done", record["traceback"] or record["reason"]
    clocks = [name for name in rows.columns if name.endswith("_seconds")]
    files = file_digests(store.cell_folder(key))
    kept = {name: digest for name, digest in files.items() if name.startswith(("tables", "weights"))}
    return Outcome(record, rows.drop(columns=clocks), kept)


def _run_first(subject: Subject, stops: int = 0) -> Outcome:
    """Of the job that the cell has in a new results folder: training with the method, or branching."""
    if subject.cell.kind == "brancher":
        return _run(subject, "branch", subject.recorded.root, stops)
    with tempfile.TemporaryDirectory(dir=temporary_folder()) as root:
        return _run(subject, "train", Path(root), stops)


@cache
def _finished(subject: Subject) -> Outcome:
    """What the first job leaves when nothing happens to it."""
    return _run_first(subject)


class JobChecks:
    """Checks for every kind."""

    def test_job_on_a_trained_base_equals_the_first(self, subject: Subject) -> None:
        """A replay or shadow run gives what training with the method gave, a branch what it gave before."""
        kind, first = _again(subject), _finished(subject)
        tiny = subject.recorded
        before = file_digests(tiny.folder)
        differing = first.differences(_run(subject, kind, tiny.root))
        assert not differing, breach(Clause.REPLAYED, f"a {kind} job differs in {differing}")
        after = file_digests(tiny.folder)
        changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        assert not changed, breach(Clause.READ_ONLY, f"files of the base have changed: {', '.join(changed)}")

    def test_job_stopped_after_every_epoch_ends_alike(self, subject: Subject) -> None:
        branch = subject.cell.branch
        stopped = _run_first(subject, stops=subject.epochs if branch is None else branch.epochs)
        differing = _finished(subject).differences(stopped)
        assert not differing, breach(Clause.RESUMED, f"stopped and started again, it differs in {differing}")

    def test_job_runs_on_a_device_that_is_not_the_cpu(self, subject: Subject) -> None:
        """On a GPU that is not there, stopped after an epoch: tensors stay together, and the numbers are the CPU's.

        Where the suite runs on a GPU, that is compared with the CPU. Numbers agree within `TOLERANCE`.
        """
        on_cpu, config = DEVICE.type == "cpu", subject.base.config
        other = replace(config, device="cuda") if on_cpu else replace(config, device="cpu")
        with pretended_gpu() if on_cpu else contextlib.nullcontext():
            there = _run_first(replace(subject, base=replace(subject.base, config=other)), stops=1)
        ours, theirs = (outcome.rows["val_loss"] for outcome in (_finished(subject), there))
        assert np.allclose(ours, theirs, rtol=TOLERANCE[DEVICE.type], equal_nan=True), breach(
            Clause.REPLAYED, f"val_loss is {theirs.tolist()} on {other.device}, {ours.tolist()} on {DEVICE}"
        )

    def test_job_is_charged(self, subject: Subject) -> None:
        """Gradients and forward passes are counted: a brancher's beside its prefix, or the base's that is read."""
        cost, branch = _finished(subject).record["cost"], subject.cell.branch
        epoch = subject.recorded.images_per_epoch
        least = subject.cell.epochs_read * epoch if branch is None else branch.prefix * epoch + 1
        gradients = cost["gradients_full"] + cost["gradients_subspace"]
        assert gradients >= least, breach(Clause.COUNTED, f"{gradients} gradients, at least {least} were needed")
        assert cost["forward_passes"] >= gradients, breach(
            Clause.COUNTED, f"{cost['forward_passes']} forward passes for {gradients} gradients"
        )
        method = subject.make()
        if method.needs_probe and method.kind != "brancher":
            assert cost["forward_passes"] > gradients, breach(
                Clause.PROBED, f"{cost['forward_passes']} forward passes for {gradients} gradients and the probe"
            )
        assert 0 < cost["trainable_fraction"] <= 1, breach(
            Clause.COUNTED, f"trainable_fraction is {cost['trainable_fraction']}"
        )
