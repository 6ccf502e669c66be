"""The uniform mean of all snapshots so far: the control for Correlation Mode Decomposition.

CMD's model is the time average plus a motion shrunk by correlation; with every correlation at zero it is this mean.
What CMD gains over uniform averaging is its difference to this method, over the same snapshots.
"""

from __future__ import annotations

from dataclasses import dataclass

from baselines.averaging import RunningMean
from baselines.parameters import check_bool
from harness.method import Snapshot


@dataclass(eq=False)
class TimeMean(RunningMean):
    """The uniform mean of w(1..t), or of w(0..t) with `include_initial`."""

    include_initial: bool = False

    def __post_init__(self) -> None:
        check_bool("include_initial", self.include_initial)

    def counts(self, snapshot: Snapshot) -> bool:
        return self.include_initial or snapshot.t >= 1
