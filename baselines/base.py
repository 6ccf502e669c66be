"""The base itself: stochastic gradient descent, or whatever trained it, without anything on top."""

from __future__ import annotations

from dataclasses import dataclass

from harness.method import Observer, Proposal, Run, Snapshot, State


@dataclass(eq=False)
class Base(Observer):
    """Proposes nothing, hence stands for the base's own weights."""

    def memory_floats(self, N: int) -> int:
        return 0

    def begin(self, run: Run) -> None:
        pass

    def observe(self, snapshot: Snapshot) -> None:
        pass

    def propose(self) -> Proposal | None:
        return None

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        pass
