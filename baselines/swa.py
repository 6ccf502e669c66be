"""Stochastic weight averaging: the uniform mean of the tail of a run.

Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization (UAI 2018), algorithm 1 with cycle
length of one epoch. Deviation: the base keeps its own learning-rate schedule, since one base serves all methods.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from baselines.averaging import RunningMean
from baselines.parameters import check_between
from harness.method import Run, Snapshot


@dataclass(eq=False)
class SWA(RunningMean):
    """The uniform mean of w(t) over the epochs t >= start * epochs; before those the base's own weights.

    `start` is a fraction of the run; ValueError where it is not between 0 and 1.
    """

    start: float = 0.75

    def __post_init__(self) -> None:
        check_between("start", self.start, 0, 1)

    def begin(self, run: Run) -> None:
        super().begin(run)
        # 0.55 * 100 is 55.000000000000007 in floating point, which must not skip epoch 55.
        self.first = math.ceil(round(self.start * run.epochs, 9))

    def counts(self, snapshot: Snapshot) -> bool:
        return snapshot.t >= self.first
