"""Exponential moving average of epoch-end snapshots, with online CMD's forgetting: its control at equal memory of time.

A snapshot counts f^k after k later ones, as in online CMD with forgetting f, whose model is this average plus a motion
shrunk by correlation. At f = 1 it is `time_mean`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from baselines.averaging import RunningMean
from baselines.parameters import check_share
from harness.method import Snapshot


@dataclass(eq=False)
class EpochEMA(RunningMean):
    """The average sum_t f^(n-t) w(t) / sum_t f^(n-t) of w(1..n), f = `forgetting`.

    ValueError where forgetting is not above 0 and at most 1.
    """

    forgetting: float = 0.7

    def __post_init__(self) -> None:
        check_share("forgetting", self.forgetting)

    def counts(self, snapshot: Snapshot) -> bool:
        return snapshot.t >= 1

    def share(self, n: int) -> float:
        """(1 - f) / (1 - f^n), through expm1 since f may be close to 1."""
        if self.forgetting == 1:
            return 1 / n
        log_f = math.log(self.forgetting)
        return math.expm1(log_f) / math.expm1(n * log_f)
