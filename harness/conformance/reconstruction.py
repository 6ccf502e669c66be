"""Checks of a reconstruction: what it gives for every epoch, from memory and from files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from harness.conformance.clauses import (
    Clause,
    breach,
    check_kernel,
    check_proposal,
    check_scalars,
    check_tables,
    now_bits,
    overwrite,
    proposal_bits,
    seeding_nothing,
    snapshot_bits,
    table_bits,
)
from harness.conformance.shown_again import Declared
from harness.conformance.tiny import Subject, file_digests, recorded
from harness.method import Reconstruction, Trajectory
from harness.snapshots import MemoryTrajectory
from harness.storage.trajectory import write_snapshot

MakeReconstruction = Callable[[], Reconstruction]


def _in_memory(subject: Subject) -> MemoryTrajectory:
    return MemoryTrajectory.of([recorded().snapshot(t) for t in range(subject.epochs + 1)])


def _fitted(subject: Subject, method: Reconstruction, trajectory: Trajectory) -> Reconstruction:
    method.fit(subject.run(trajectory))
    return method


def _trace(subject: Subject, method: Reconstruction) -> list[str]:
    """Digests of every epoch's reconstruction, and of the tables."""
    epochs = range(1, subject.epochs + 1)
    return [*(now_bits(method, method.reconstruct(t)) for t in epochs), table_bits(method)]


class ReconstructionChecks:
    """Checks that a suite has where its method is a reconstruction."""

    @pytest.fixture
    def reconstruction(self, subject: Subject) -> MakeReconstruction:
        """Makes fresh instances."""
        return cast(MakeReconstruction, subject.make)

    def test_reconstruction_gives_weights_and_reports(
        self, subject: Subject, reconstruction: MakeReconstruction
    ) -> None:
        method = _fitted(subject, reconstruction(), recorded().trajectory())
        for t in range(1, subject.epochs + 1):
            check_proposal(method.reconstruct(t), method, recorded().layout, recorded().snapshot(t))
            check_scalars(method)
        check_tables(method)

    def test_reconstruction_repeats_to_the_last_bit(self, subject: Subject, reconstruction: MakeReconstruction) -> None:
        """Two fits agree, and so do trajectories in memory and in files."""
        stored, again = (_trace(subject, _fitted(subject, reconstruction(), recorded().trajectory())) for _ in range(2))
        assert stored == again, breach(Clause.REPLAYED, "a second fit on the same snapshots differs")
        memory = _trace(subject, _fitted(subject, reconstruction(), _in_memory(subject)))
        assert memory == stored, breach(Clause.REPLAYED, "fits on snapshots in memory and in files differ")

    def test_reconstruction_changes_nothing(self, subject: Subject, reconstruction: MakeReconstruction) -> None:
        """Whatever the order, how often, and whether earlier results were written into."""
        method = _fitted(subject, reconstruction(), recorded().trajectory())
        forwards = {t: proposal_bits(method.reconstruct(t)) for t in range(1, subject.epochs + 1)}
        for t in reversed(forwards):
            proposal = method.reconstruct(t)
            assert proposal_bits(proposal) == forwards[t], breach(
                Clause.ANY_EPOCH, f"epoch {t} differs with what was asked or written into before"
            )
            overwrite(proposal)

    def test_reconstruction_leaves_snapshots_alone(self, subject: Subject, reconstruction: MakeReconstruction) -> None:
        memory, folder = _in_memory(subject), recorded().folder
        before = file_digests(folder)
        for trajectory in (memory, recorded().trajectory()):
            for t in range(1, subject.epochs + 1):
                overwrite(_fitted(subject, reconstruction(), trajectory).reconstruct(t))
        assert file_digests(folder) == before, breach(Clause.READ_ONLY, "files of the base have changed")
        for t in memory.ts:
            assert snapshot_bits(memory[t]) == snapshot_bits(recorded().snapshot(t)), breach(
                Clause.READ_ONLY, f"the snapshot of epoch {t} has changed"
            )

    def test_reconstruction_kernel_is_what_it_gives(self, subject: Subject, reconstruction: MakeReconstruction) -> None:
        """Of a method that gives its kernel: at the last epoch, over the run's snapshots."""
        method, steps = _fitted(subject, reconstruction(), recorded().trajectory()), recorded().steps_per_epoch
        last_N = method.reconstruct(subject.epochs).theta_N
        states = {t * steps: recorded().snapshot(t).theta_N for t in range(subject.epochs + 1)}
        check_kernel(method, states, steps, last_N)

    def test_reconstruction_seeds_nothing(self, subject: Subject, reconstruction: MakeReconstruction) -> None:
        method = reconstruction()
        with seeding_nothing("fit"):
            _fitted(subject, method, recorded().trajectory())
        with seeding_nothing("reconstruct"):
            method.reconstruct(subject.epochs)

    def test_reconstruction_reads_what_it_needs(
        self, subject: Subject, reconstruction: MakeReconstruction, tmp_path: Path
    ) -> None:
        """With the declared snapshots alone it gives the same, and it asks for no others."""
        first, last = subject.needs
        for t in range(first, last + 1):
            write_snapshot(tmp_path, recorded().snapshot(t))
        run, method = subject.run(recorded().trajectory(tmp_path)), reconstruction()
        method.fit(replace(run, trajectory=Declared(run.trajectory, subject.needs)))
        everything = _fitted(subject, reconstruction(), recorded().trajectory())
        assert _trace(subject, method) == _trace(subject, everything), breach(
            Clause.DECLARED, "with no other snapshots stored, reconstructions differ"
        )
