"""Exponential moving average of the weights over optimizer steps.

Polyak and Juditsky (1992) average iterates uniformly; the exponential form with the bias correction is that of
Adam's moments (Kingma and Ba, ICLR 2015, section 3). Deviation from common code: the decay follows from a half-life
in epochs, so that it means the same at every batch size, and w(0) weighs no more than its place in time gives it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from baselines.averaging import RunningMean
from baselines.parameters import check_between
from harness.method import Run, Snapshot


@dataclass(eq=False)
class EMA(RunningMean):
    """The average sum_j beta^(n-j) w_j / sum_j beta^(n-j) over w(0) and the states after every step.

    `half_life` is in epochs: beta = 2^(-1 / (half_life * steps per epoch)). ValueError where it is not positive.
    """

    half_life: float = 1.5

    cadence = 1

    def __post_init__(self) -> None:
        check_between("half_life", self.half_life, 0)

    def begin(self, run: Run) -> None:
        super().begin(run)
        self.log_beta = -math.log(2) / (self.half_life * run.steps_per_epoch)

    def counts(self, snapshot: Snapshot) -> bool:
        return True

    def share(self, n: int) -> float:
        """(1 - beta) / (1 - beta^n), through expm1 since beta is close to 1."""
        return math.expm1(self.log_beta) / math.expm1(n * self.log_beta)
