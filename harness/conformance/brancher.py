"""Checks of a brancher: where it leaves its base, and that it trains the same from there however it got there."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from harness.conformance.clauses import (
    Clause,
    bits,
    breach,
    check_proposal,
    check_scalars,
    check_tables,
    now_bits,
    overwrite,
    proposal_bits,
    seeding_nothing,
    table_bits,
)
from harness.conformance.shown_again import Declared
from harness.conformance.tiny import DEVICE, Subject, recorded
from harness.method import Brancher, Proposal, Trajectory
from harness.snapshots import MemoryTrajectory
from harness.storage.paths import restart_path
from harness.storage.tensors import read_state
from harness.training.clock import Clock
from harness.training.session import BranchSession

MakeBrancher = Callable[[], Brancher]


class Branching:
    """A brancher on the tiny base, whose start state is read from its file, or reached by training in memory."""

    def __init__(self, subject: Subject, method: Brancher, from_file: bool = True) -> None:
        tiny, branch = recorded(), method.branch(subject.epochs)
        self.method = method
        self.trainer = tiny.trainer()
        trajectory: Trajectory = tiny.trajectory()
        if from_file:
            if branch.start > 0:
                self.trainer.load_state_dict(read_state(restart_path(tiny.folder, branch.start)))
        else:
            trajectory = MemoryTrajectory.of([tiny.snapshot(t) for t in range(subject.epochs + 1)])
            for _ in range(branch.start):
                self.trainer.train_epoch()
        self.last = branch.prefix + branch.epochs
        declared = Declared(trajectory.window(*subject.needs), subject.needs)
        self.session = BranchSession(self.trainer, branch, declared, Clock(DEVICE), method.gradient_space)

    def train(self, after: Callable[[], None]) -> None:
        """Begin and train to the end; `after` is called after every epoch."""
        self.begin()
        while self.trainer.t < self.last:
            self.train_epoch()
            after()

    def begin(self) -> None:
        self.method.begin(self.session)
        self.session.begun = True

    def train_epoch(self) -> None:
        t = self.trainer.t
        self.trainer.seed_epoch()
        self.method.train_epoch(self.session)
        self.trainer.t = t + 1

    def propose(self) -> Proposal | None:
        return self.method.propose(self.session)

    def now(self) -> str:
        """A digest of the state in training, the proposal and the scalars."""
        state = [self.session.theta_N, dict(self.session.buffers), self.method.state_dict()]
        return bits(state) + now_bits(self.method, self.propose())

    def trace(self) -> list[str]:
        """Digests after every epoch, and of the tables at the end."""
        trace: list[str] = []
        self.train(lambda: trace.append(self.now()))
        return [*trace, table_bits(self.method)]


class BrancherChecks:
    """Checks that a suite has where its method is a brancher."""

    @pytest.fixture
    def brancher(self, subject: Subject) -> MakeBrancher:
        """Makes fresh instances."""
        return cast(MakeBrancher, subject.make)

    def test_branch_lies_within_the_base(self, subject: Subject, brancher: MakeBrancher) -> None:
        branch = brancher().branch(subject.epochs)
        assert branch == brancher().branch(subject.epochs), breach(Clause.BRANCH, f"{branch} changes between calls")
        assert 0 <= branch.start <= branch.prefix <= subject.epochs, breach(
            Clause.BRANCH, f"{branch} does not lie within a base of {subject.epochs} epochs"
        )
        assert branch.epochs >= 1, breach(Clause.BRANCH, f"{branch} trains no epoch")
        assert subject.needs[1] <= branch.prefix, breach(
            Clause.NEEDS, f"needs ends at {subject.needs[1]}, after the prefix of {branch}"
        )

    def test_brancher_proposes_weights_and_reports(self, subject: Subject, brancher: MakeBrancher) -> None:
        branching = Branching(subject, brancher())

        def after() -> None:
            proposal = branching.propose()
            if proposal is not None:
                snapshot = branching.trainer.snapshot()
                check_proposal(proposal, branching.method, branching.session.layout, snapshot)
            check_scalars(branching.method)

        branching.train(after)
        check_tables(branching.method)

    def test_branch_from_a_restart_state_equals_one_without(self, subject: Subject, brancher: MakeBrancher) -> None:
        """To the last bit: the start state read from its file, or the base's training continued in memory."""
        stored, continued = (Branching(subject, brancher(), from_file).trace() for from_file in (True, False))
        differing = [n for n, (a, b) in enumerate(zip(stored, continued, strict=True), start=1) if a != b]
        assert not differing, breach(Clause.RESTART, f"from memory and from its file, own epochs {differing} differ")

    def test_brancher_proposing_changes_nothing(self, subject: Subject, brancher: MakeBrancher) -> None:
        """Asked never, once or ten times per epoch, and with its proposals written into, it trains the same."""
        ends: list[str] = []
        for times in (0, 1, 10):
            branching = Branching(subject, brancher())

            def after(times: int = times, branching: Branching = branching) -> None:
                given = [branching.propose() for _ in range(times)]
                if len({proposal_bits(proposal) for proposal in given}) > 1:
                    raise AssertionError(breach(Clause.PURE, f"{times} proposals of one epoch differ"))
                live = branching.session.theta_N.untyped_storage().data_ptr()
                for proposal in given:
                    assert proposal is None or proposal.theta_N.untyped_storage().data_ptr() != live, breach(
                        Clause.OWN_WEIGHTS, "a proposal is the live weights themselves, for which None stands"
                    )
                    overwrite(proposal)

            branching.train(after)
            ends.append(branching.now())
        assert len(set(ends)) == 1, breach(Clause.PURE, "the end depends on how often it was asked, and what for")

    def test_brancher_seeds_nothing(self, subject: Subject, brancher: MakeBrancher) -> None:
        """In `begin` and `propose`; an epoch's training is seeded by the harness."""
        branching = Branching(subject, brancher())
        with seeding_nothing("begin"):
            branching.begin()
        branching.train_epoch()
        with seeding_nothing("propose"):
            branching.propose()
