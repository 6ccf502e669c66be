"""Checks of an observer: what it proposes, what it leaves alone, and that it goes on from its state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from harness.conformance.clauses import (
    Clause,
    bits,
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
from harness.conformance.shown_again import Recorder, Showing
from harness.conformance.tiny import Subject, recorded
from harness.method import Observer, Proposal, Snapshot
from harness.storage.tensors import read_state, write_state
from harness.storage.trajectory import write_snapshot
from harness.validation import reason

MakeObserver = Callable[[], Observer]


def _now(method: Observer) -> str:
    return now_bits(method, method.propose())


def _watches_steps(method: Observer) -> bool:
    """Whether stored snapshots are not enough for it."""
    return method.cadence != "epoch"


def _trace(showing: Showing, method: Observer) -> list[str]:
    """Digests of proposal and scalars after every epoch, and of the tables at the end."""
    showing.join(method)
    trace: list[str] = []
    showing.show(lambda snapshot: trace.append(_now(method)))
    return [*trace, table_bits(method)]


def _assert_alike(first: list[str], second: list[str], clause: Clause, how: str) -> None:
    differing = [t for t, (a, b) in enumerate(zip(first, second, strict=True), start=1) if a != b]
    assert not differing, breach(clause, f"{how}, proposals or reports differ after epochs {differing}")


class ObserverChecks:
    """Checks that a suite has where its method is an observer."""

    @pytest.fixture
    def observer(self, subject: Subject) -> MakeObserver:
        """Makes fresh instances."""
        return cast(MakeObserver, subject.make)

    def test_observer_proposes_weights_and_reports(self, subject: Subject, observer: MakeObserver) -> None:
        method = observer()
        showing = Showing(subject, live=_watches_steps(method))
        showing.join(method)

        def after(snapshot: Snapshot) -> None:
            proposal = method.propose()
            if proposal is not None:
                check_proposal(proposal, method, recorded().layout, snapshot)
            check_scalars(method)

        showing.show(after)
        check_tables(method)

    def test_observer_repeats_to_the_last_bit(self, subject: Subject, observer: MakeObserver) -> None:
        """Live equals replayed from stored snapshots; where steps are watched, a second run of the base."""
        second_run = _watches_steps(observer())
        live = _trace(Showing(subject, live=True), observer())
        again = _trace(Showing(subject, live=second_run), observer())
        _assert_alike(live, again, Clause.REPLAYED, "in a second run" if second_run else "replayed")

    def test_observer_goes_on_from_its_state(self, subject: Subject, observer: MakeObserver, tmp_path: Path) -> None:
        """After every epoch a fresh instance takes up the stored state, and all go on side by side."""
        showing = Showing(subject, live=_watches_steps(observer()))
        original = showing.join(observer())
        resumed: dict[int, Observer] = {}

        def after(snapshot: Snapshot) -> None:
            expected, path = _now(original), tmp_path / "state.safetensors"
            try:
                write_state(path, original.state_dict())
            except TypeError as error:
                raise AssertionError(breach(Clause.PLAIN_STATE, reason(error))) from error
            resumed[snapshot.t] = showing.join(observer())
            resumed[snapshot.t].load_state_dict(read_state(path))
            for t, method in resumed.items():
                assert _now(method) == expected, breach(
                    Clause.STATE, f"resumed after epoch {t}, proposal or scalars differ after epoch {snapshot.t}"
                )

        showing.show(after)
        for t, method in resumed.items():
            assert table_bits(method) == table_bits(original), breach(
                Clause.STATE, f"resumed after epoch {t}, tables differ"
            )

    def test_observer_proposing_changes_nothing(self, subject: Subject, observer: MakeObserver) -> None:
        """An instance asked never, one asked once per epoch and one asked ten times end alike."""
        showing = Showing(subject, live=_watches_steps(observer()))
        never, once, often = (showing.join(observer()) for _ in range(3))

        def after(snapshot: Snapshot) -> None:
            first = proposal_bits(once.propose())
            for n in range(1, 11):
                assert proposal_bits(often.propose()) == first, breach(
                    Clause.PURE, f"proposal {n} of epoch {snapshot.t} differs from the first"
                )

        showing.show(after)
        for asked, method in (("never", never), ("ten times per epoch", often)):
            same = bits(method.state_dict()) == bits(once.state_dict()) and _now(method) == _now(once)
            assert same, breach(Clause.PURE, f"asked {asked}, it ends otherwise than asked once per epoch")

    def test_observer_gives_proposals_away(self, subject: Subject, observer: MakeObserver) -> None:
        """An earlier proposal stays what it was, and spoiling one changes neither training nor method."""
        showing = Showing(subject, live=True)
        keeping, spoilt = showing.join(observer()), showing.join(observer())
        kept: list[tuple[int, Proposal | None, str]] = []

        def after(snapshot: Snapshot) -> None:
            proposal, given = keeping.propose(), spoilt.propose()
            kept.append((snapshot.t, proposal, proposal_bits(proposal)))
            live = snapshot.theta_N.untyped_storage().data_ptr()
            assert given is None or given.theta_N.untyped_storage().data_ptr() != live, breach(
                Clause.COPY, f"the proposal after epoch {snapshot.t} is the live weights themselves"
            )
            overwrite(given)
            assert proposal_bits(spoilt.propose()) == kept[-1][2], breach(
                Clause.OWN_WEIGHTS, f"whoever writes into the proposal of epoch {snapshot.t} writes into the method"
            )

        showing.show(after)
        for t, proposal, digest in kept:
            assert proposal_bits(proposal) == digest, breach(
                Clause.OWN_WEIGHTS, f"what it proposed after epoch {t} has changed since"
            )
        assert _now(spoilt) == _now(keeping), breach(
            Clause.OWN_WEIGHTS, "it goes on otherwise where its proposals were written into"
        )

    def test_observer_copies_what_it_keeps(self, subject: Subject, observer: MakeObserver) -> None:
        """Snapshots that are spoilt as soon as the call is over give the same proposals."""
        showing = Showing(subject, live=_watches_steps(observer()))
        method, hurried = showing.join(observer()), showing.join(observer(), fleeting=True)

        def after(snapshot: Snapshot) -> None:
            assert _now(hurried) == _now(method), breach(
                Clause.COPY, f"after epoch {snapshot.t} it depends on what became of a snapshot after the call"
            )

        showing.show(after)

    def test_observer_leaves_the_base_alone(self, subject: Subject, observer: MakeObserver) -> None:
        """The base is the one that was trained alone, in weights and buffers."""
        showing = Showing(subject, live=True)
        method = showing.join(observer())

        def after(snapshot: Snapshot) -> None:
            method.propose()
            assert snapshot_bits(snapshot) == snapshot_bits(recorded().snapshot(snapshot.t)), breach(
                Clause.WATCHES, f"weights or buffers after epoch {snapshot.t} differ from the base trained alone"
            )

        showing.show(after)

    def test_observer_seeds_nothing(self, subject: Subject, observer: MakeObserver) -> None:
        method = observer()
        showing = Showing(subject, live=_watches_steps(method), around=seeding_nothing)
        showing.join(method)

        def after(snapshot: Snapshot) -> None:
            with seeding_nothing("propose"):
                method.propose()

        showing.show(after)

    def test_observer_kernel_is_what_it_proposes(self, subject: Subject, observer: MakeObserver) -> None:
        """Of a method that gives its kernel: over the snapshots that it was shown."""
        method = observer()
        showing = Showing(subject, live=_watches_steps(method))
        showing.join(method)
        states = showing.join(Recorder(method.cadence))
        assert isinstance(states, Recorder)
        showing.show(lambda snapshot: None)
        proposal = method.propose()
        last_N = recorded().snapshot(subject.epochs).theta_N if proposal is None else proposal.theta_N
        check_kernel(method, states.by_step, recorded().steps_per_epoch, last_N)

    def test_observer_reads_as_far_as_it_says(self, subject: Subject, observer: MakeObserver) -> None:
        """Whatever the snapshots after `epochs_read` are, it proposes the same: it is charged no later epoch."""
        read = subject.cell.epochs_read
        if read == subject.epochs:
            return
        live = _watches_steps(observer())
        whole, less = (_trace(Showing(subject, live, last=last), observer()) for last in (None, read))
        _assert_alike(whole, less, Clause.READ, f"with other snapshots after epoch {read}")

    def test_observer_reads_what_it_needs(self, subject: Subject, observer: MakeObserver, tmp_path: Path) -> None:
        """With the declared snapshots alone it proposes the same, and it asks for no others."""
        first, last = subject.needs
        for t in range(first, last + 1):
            write_snapshot(tmp_path, recorded().snapshot(t))
        live = _watches_steps(observer())
        all_kept = _trace(Showing(subject, live), observer())
        declared = _trace(Showing(subject, live, recorded().trajectory(tmp_path), strict=True), observer())
        _assert_alike(all_kept, declared, Clause.DECLARED, "with no other snapshots stored")
