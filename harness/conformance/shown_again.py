"""The tiny base shown again to observers, live or from its snapshots."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from harness.conformance.clauses import Clause, breach
from harness.conformance.tiny import Subject, recorded
from harness.method import Observer, Run, Snapshot, State, Trajectory
from harness.storage.paths import snapshot_path
from harness.storage.trajectory import StoredTrajectory


class Declared:
    """A trajectory that refuses a window beyond what the method declared in `needs`."""

    def __init__(self, trajectory: Trajectory, needs: tuple[int, int]) -> None:
        self._trajectory = trajectory
        self._needs = needs

    def __len__(self) -> int:
        return len(self._trajectory)

    @property
    def ts(self) -> tuple[int, ...]:
        return self._trajectory.ts

    def __getitem__(self, index: int) -> Snapshot:
        return self._trajectory[index]

    def window(self, first: int, last: int) -> Declared:
        low, high = self._needs
        assert low <= first, breach(Clause.NEEDS, f"needs says {low}..{high}, and {first}..{last} is read")
        assert last <= high, breach(Clause.NEEDS, f"needs says {low}..{high}, and {first}..{last} is read")
        return Declared(self._trajectory.window(first, last), self._needs)

    def blocks(self, max_bytes: int) -> Iterator[tuple[int, int, Tensor]]:
        return self._trajectory.blocks(max_bytes)


class Recorder(Observer):
    """Keeps all that it is shown, for what is asked of another observer of its cadence."""

    def __init__(self, cadence: Literal["epoch"] | int) -> None:
        self.cadence = cadence
        self.by_step: dict[int, Tensor] = {}
        """copies of the weights"""

    def begin(self, run: Run) -> None:
        pass

    def observe(self, snapshot: Snapshot) -> None:
        self.by_step[snapshot.step] = snapshot.theta_N.clone()

    def propose(self) -> None:
        return None

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        pass


class Showing:
    """The tiny base shown from w(0) to its end to observers side by side, each at its cadence.

    Live it is trained again, otherwise read from its snapshots. `trajectory` is what observers may look back
    on, and `around` a context for every call of theirs. Snapshots after epoch `last` are shown as zeros.
    """

    def __init__(
        self,
        subject: Subject,
        live: bool,
        trajectory: StoredTrajectory | None = None,
        strict: bool = False,
        around: Callable[[str], contextlib.AbstractContextManager[None]] = lambda call: contextlib.nullcontext(),
        last: int | None = None,
    ) -> None:
        self.subject = subject
        self.live = live
        self.strict = strict
        self.around = around
        self.last = subject.epochs if last is None else last
        self.trajectory = recorded().trajectory() if trajectory is None else trajectory
        self.trajectory.rewind(-1)
        self._present: list[tuple[Observer, bool]] = []

    def join(self, observer: Observer, fleeting: bool = False) -> Observer:
        """Begin, now; an observer that joins later has its state loaded by the caller.

        Where `fleeting`, each snapshot is a copy for this observer, spoilt as soon as the call is over.
        """
        run = self.subject.run(self.trajectory)
        if self.strict:
            run = replace(run, trajectory=Declared(run.trajectory, self.subject.needs))
        with self.around("begin"):
            observer.begin(run)
        self._present.append((observer, fleeting))
        return observer

    def show(self, after: Callable[[Snapshot], None]) -> None:
        """Play the whole base; `after` is called when an epoch has ended and everyone has seen it."""
        if not self.live:
            for t in range(self.subject.epochs + 1):
                self._epoch(recorded().snapshot(t), after)
            return
        trainer = recorded().trainer()
        self._epoch(trainer.snapshot(), after)
        for _ in range(self.subject.epochs):
            trainer.train_epoch(after_step=lambda: self._step(trainer.snapshot()))
            self._epoch(trainer.snapshot(), after)

    def _step(self, snapshot: Snapshot) -> None:
        for observer, fleeting in self._present:
            if observer.cadence != "epoch" and snapshot.step % observer.cadence == 0:
                self._observe(observer, snapshot, fleeting)

    def _epoch(self, snapshot: Snapshot, after: Callable[[Snapshot], None]) -> None:
        if snapshot_path(self.trajectory.folder, snapshot.t).exists():
            self.trajectory.extend(snapshot.t)
        for observer, fleeting in self._present:
            if observer.cadence == "epoch" or snapshot.t == 0:
                self._observe(observer, snapshot, fleeting)
        if snapshot.t > 0:
            after(snapshot)

    def _observe(self, observer: Observer, snapshot: Snapshot, fleeting: bool) -> None:
        if snapshot.t > self.last:
            snapshot = replace(snapshot, theta_N=torch.zeros_like(snapshot.theta_N))
        if fleeting:
            buffers = {name: buffer.clone() for name, buffer in snapshot.buffers.items()}
            snapshot = replace(snapshot, theta_N=snapshot.theta_N.clone(), buffers=buffers)
        with self.around("observe"):
            observer.observe(snapshot)
        if fleeting:
            snapshot.theta_N.fill_(math.nan)
            for buffer in snapshot.buffers.values():
                buffer.zero_()
