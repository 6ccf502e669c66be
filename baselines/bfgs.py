"""BFGS on a few coordinates, where every step sees a function of its own: the loss of one mini-batch.

The method behind P-BFGS of Li et al., Low Dimensional Trajectory Hypothesis is True: DNNs Can Be Trained in Tiny
Subspaces (TPAMI 2022); the update is Nocedal and Wright, Numerical Optimization (2006), eq. 6.17. Deviations: y is the
difference of gradients of one mini-batch at both ends of the step, not of two mini-batches at two points, which holds
the noise between them; an exhausted search takes no step and forgets H; curvature that is negative or lost in rounding
is skipped.

Shape suffix: D coordinates. Vectors and H are float64 on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from baselines.parameters import check_between, check_whole
from harness.method import State

LEAST_CURVATURE = 1e-20
"""y's below or at which H is not updated: the published bound"""
LEAST_COSINE = 1e-8
"""the same bound relative to |y| |s|, so that it holds at any scale: H would grow by its inverse"""


@dataclass(frozen=True, eq=False)
class Step:
    """What one mini-batch led to; z is the very tensor from before where no step was taken."""

    z_D: Tensor
    loss: float
    """before the step"""
    tries: int
    """points that the line search has tried"""
    accepted: bool
    updated: bool
    """whether H has taken the curvature in"""


@dataclass(eq=False)
class BFGS:
    """Steps z <- z + s, where s is -H g times the first of 1, rho, rho^2, ... with f(z + s) < f(z) + sigma g's.

    After `tries` failures no step is taken and H is the identity again; so also where -H g does not descend, as where
    something is not finite. H persists from one mini-batch to the next. ValueError where rho or sigma are not between 0
    and 1, or tries is below 1.
    """

    dimensions: int
    rho: float = 0.4
    sigma: float = 0.4
    tries: int = 20
    H_DD: Tensor = field(init=False)
    """the inverse Hessian's estimate, symmetric and positive definite"""

    def __post_init__(self) -> None:
        check_whole("dimensions", self.dimensions, 1)
        check_search(self.rho, self.sigma, self.tries)
        self.reset()

    def reset(self) -> None:
        """Forget all curvature."""
        self.H_DD = torch.eye(self.dimensions, dtype=torch.float64)

    def step(
        self,
        z_D: Tensor,
        loss: Callable[[Tensor], float],
        gradient: Callable[[Tensor], tuple[float, Tensor]],
    ) -> Step:
        """One step on the mini-batch that `loss` and `gradient` (loss, g_D) evaluate at any point.

        Costs a gradient at z, one loss per try, and where a step is taken the gradient at its end: the last point that
        `loss` was asked for, and the same tensor.
        """
        before, g_D = gradient(z_D)
        s_D = -(self.H_DD @ g_D)
        slope = float(g_D @ s_D)
        tried = 0
        if slope < 0 and math.isfinite(before):
            while tried < self.tries:
                tried += 1
                there_D = z_D + s_D
                if loss(there_D) < before + self.sigma * slope:
                    _, after_D = gradient(there_D)
                    return Step(there_D, before, tried, True, self.update(s_D, after_D - g_D))
                s_D, slope = self.rho * s_D, self.rho * slope
        self.reset()
        return Step(z_D, before, tried, False, False)

    def update(self, s_D: Tensor, y_D: Tensor) -> bool:
        """H <- (I - s y'/y's) H (I - y s'/y's) + s s'/y's; whether y's was large enough for it."""
        curvature = float(y_D @ s_D)
        least = max(LEAST_CURVATURE, LEAST_COSINE * float(y_D.norm() * s_D.norm()))
        if not (math.isfinite(curvature) and curvature > least):
            return False
        Hy_D = self.H_DD @ y_D
        factor = (1 + float(y_D @ Hy_D) / curvature) / curvature
        cross_DD = torch.outer(Hy_D, s_D) / curvature
        # the product written out: symmetric to the last bit, and O(D^2)
        self.H_DD = self.H_DD + factor * torch.outer(s_D, s_D) - (cross_DD + cross_DD.T)
        return True

    def state_dict(self) -> State:
        return {"H_DD": self.H_DD.clone()}

    def load_state_dict(self, state: State) -> None:
        self.H_DD = state["H_DD"].to("cpu", copy=True)


def check_search(rho: float, sigma: float, tries: int) -> None:
    """What the line search asks of its parameters; ValueError."""
    check_between("rho", rho, 0, 1)
    check_between("sigma", sigma, 0, 1)
    check_whole("tries", tries, 1, most=1000)
