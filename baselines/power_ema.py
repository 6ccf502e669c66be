"""Power-function averaging of the weights over optimizer steps: an average whose width is a share of the run so far.

Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models (CVPR 2024), section 3.1: the state
after step t counts t^g, so that the average never remembers a fixed time but a fixed part of the past. The initial
weights never count.
"""

from __future__ import annotations

from dataclasses import dataclass

from baselines.averaging import RunningMean
from baselines.power_profile import check_sigma, exponent, share
from harness.method import Snapshot


@dataclass(eq=False)
class PowerEMA(RunningMean):
    """The average with coefficients in proportion to t^g, nearly, over the states after every step t.

    `sigma` is the standard deviation of that profile as a share of the run, which gives g; ValueError where it is not
    above 0 and below that of the uniform mean, 1 / sqrt(12).
    """

    sigma: float = 0.075

    cadence = 1

    def __post_init__(self) -> None:
        check_sigma("sigma", self.sigma)
        self.g = exponent(self.sigma)

    def counts(self, snapshot: Snapshot) -> bool:
        return snapshot.step >= 1

    def share(self, n: int) -> float:
        return share(n, self.g)
