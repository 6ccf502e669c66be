"""Every weight a straight line in time: the control for CMD's references, each of which may be no more than a clock.

CMD regresses a weight on a reference weight of its mode. Here the reference is the epoch itself, or its square root or
logarithm, the same for all weights; snapshots count f^(T-t), which with f = 1 is plain least squares. The fit is linear
in the snapshots, w^ = sum_t c(t) w(t), so that one pass over them is all it takes.

Shape suffix: T snapshots.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd
import torch
from torch import Tensor

from baselines.gram import combine
from baselines.kernel import kernel_scalars, kernel_table, row_of
from baselines.parameters import check_choice, check_share
from harness.method import Proposal, Reconstruction, Run

Basis = Literal["t", "sqrt", "log"]
CLOCKS: dict[Basis, Callable[[float], float]] = {"t": float, "sqrt": math.sqrt, "log": math.log}
"""x as a function of the epoch, from 1 on"""


def check_clock(basis: str, forgetting: float) -> None:
    """ValueError where the basis is not known or forgetting is not above 0 and at most 1."""
    check_choice("basis", basis, get_args(Basis))
    check_share("forgetting", forgetting)


def clock_kernel(ts: tuple[int, ...], t: int, basis: Basis, forgetting: float) -> Tensor:
    """Coefficients (T,) of the snapshots `ts` in the weighted regression on x, evaluated at the epoch t: float64.

    c(s) = p_s (1 / sum p + (x_s - mu) (x_t - mu) / S) with p_s = f^(T - s), mu the weighted mean of x and S the
    weighted sum of squares about it; where x has no spread, the weighted mean. ValueError unless t is one of them.
    """
    x_T = torch.tensor([CLOCKS[basis](s) for s in ts], dtype=torch.float64)
    # Counted from the last, which may have nearly all of the weight
    x_T -= x_T[-1].clone()
    p_T = forgetting ** (ts[-1] - torch.tensor(ts, dtype=torch.float64))
    mu = p_T @ x_T / p_T.sum()
    S = p_T @ (x_T - mu).square()
    slope_T = (x_T - mu) * ((x_T[row_of(ts, t)] - mu) / S) if S > 0 else torch.zeros_like(x_T)
    return p_T * (1 / p_T.sum() + slope_T)


@dataclass(eq=False)
class Clock(Reconstruction):
    """The weighted regression of every weight of w(1..T) on the epoch t, its root or its logarithm, as `basis` says.

    A snapshot counts `forgetting` ** k after k later ones. ValueError where the basis is not known or forgetting is not
    above 0 and at most 1.
    """

    basis: Basis = "t"
    forgetting: float = 1.0

    def __post_init__(self) -> None:
        check_clock(self.basis, self.forgetting)

    def needs(self, epochs: int) -> tuple[int, int]:
        return 1, epochs

    def fit(self, run: Run) -> None:
        """Everything follows from the epochs: the snapshots are combined when an epoch is asked for."""
        self.window = run.trajectory.window(1, run.epochs)

    def _kernel(self, t: int) -> Tensor:
        return clock_kernel(self.window.ts, t, self.basis, self.forgetting)[None]

    def reconstruct(self, t: int) -> Proposal:
        return Proposal(combine(self.window, self._kernel(t), shift=False)[0])

    def scalars(self) -> dict[str, float]:
        """Age and effective number of snapshots at the last epoch."""
        ts = self.window.ts
        return kernel_scalars(self._kernel(ts[-1]), ts)

    def tables(self) -> dict[str, pd.DataFrame]:
        """The kernel of the last epoch."""
        ts = self.window.ts
        return {"kernel": kernel_table(self._kernel(ts[-1]), ts)}
