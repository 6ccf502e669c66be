"""Post-hoc EMA: averages of two widths are stored now and then, and give the average of any width afterwards.

Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models (CVPR 2024), section 3.2.
Power-function averages of two widths are kept during training; the one asked for is the combination of stored ones
whose profile comes closest to its own, see `power_profile`. So its width can be chosen when training is over, here by
the probe's loss.

Shape suffixes: N trainable weights, K stored averages, T optimizer steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from baselines.kernel import kernel_table
from baselines.parameters import check_choice, check_whole
from baselines.power_profile import check_sigma, combination, exponent, share
from harness.method import Observer, Proposal, Run, Snapshot, State

Choose = Literal["sigma", "probe"]
STORED = (0.05, 0.10)
"""widths of the averages that are kept, as the paper has them"""
GRID = tuple(float(sigma) for sigma in np.geomspace(0.03, 0.25, 8))
"""widths that are tried on the probe"""


@dataclass(eq=False)
class PostHocEMA(Observer):
    """The power-function average of width `sigma`, or of the width with the least probe loss, from stored averages.

    Two averages are stored at the ends of at most `stored` epochs, evenly spaced, and of the present one. ValueError
    where sigma is not above 0 and below 1 / sqrt(12), choose is not known, or stored is below 1.
    """

    sigma: float = 0.075
    choose: Choose = "sigma"
    stored: int = 20

    cadence = 1

    def __post_init__(self) -> None:
        check_sigma("sigma", self.sigma)
        check_choice("choose", self.choose, get_args(Choose))
        check_whole("stored", self.stored, 1, most=1000)
        self.g = tuple(map(exponent, STORED))

    @property
    def needs_probe(self) -> bool:  # type: ignore[override]
        return self.choose == "probe"

    def memory_floats(self, N: int) -> int:
        return 2 * (1 + self.stored) * N

    def begin(self, run: Run) -> None:
        self.run = run
        count = min(self.stored, run.epochs)
        self.due = {round(run.epochs * (place + 1) / count) for place in range(count)}
        """epochs at whose end the averages are stored"""
        self.n = 0
        """steps so far"""
        self.means: list[Tensor] = []
        """the averages of STORED at present"""
        self.kept: list[tuple[int, list[Tensor]]] = []
        """those of earlier steps, with these"""
        self._chosen: tuple[int, float] | None = None

    @torch.no_grad()
    def observe(self, snapshot: Snapshot) -> None:
        if snapshot.step < 1:
            return
        self._store()
        self.n += 1
        if not self.means:
            self.means = [snapshot.theta_N.detach().clone() for _ in STORED]
            return
        for mean_N, g in zip(self.means, self.g, strict=True):
            mean_N.lerp_(snapshot.theta_N, share(self.n, g))

    def _store(self) -> None:
        """Keep the averages of the end of an epoch, as the next step begins."""
        epochs, within = divmod(self.n, self.run.steps_per_epoch)
        if within == 0 and epochs in self.due and (not self.kept or self.kept[-1][0] < self.n):
            self.kept.append((self.n, [mean_N.clone() for mean_N in self.means]))

    def _averages(self) -> list[tuple[float, int, Tensor]]:
        """Exponent, step and weights of all stored averages, the present ones last."""
        stored = [*self.kept, (self.n, self.means)]
        return [(g, t, mean_N) for t, means in stored for g, mean_N in zip(self.g, means, strict=True)]

    def _combination(self, sigma: float) -> Tensor:
        """The coefficients (K,) of `_averages` for a width, float64."""
        averages = self._averages()
        g_K, t_K = (torch.tensor([one[part] for one in averages], dtype=torch.float64) for part in (0, 1))
        return combination(g_K, t_K, exponent(sigma), self.n)

    def average(self, sigma: float) -> Tensor:
        """The weights (N,) of the average of width `sigma`; ValueError before the first step or for another width."""
        check_sigma("sigma", sigma)
        if self.n == 0:
            raise ValueError("average must be asked for after at least 1 step, got 0")
        sum_N = torch.zeros_like(self.means[0], dtype=torch.float64)
        for x, (_, _, mean_N) in zip(self._combination(sigma).tolist(), self._averages(), strict=True):
            sum_N.add_(mean_N, alpha=x)
        return sum_N.float()

    def chosen(self) -> float:
        """The width at present: the one given, or that of GRID with the least probe loss, the narrower on ties."""
        if self.choose == "sigma":
            return self.sigma
        if self._chosen is None or self._chosen[0] != self.n:
            self._chosen = self.n, narrowest_best(GRID, lambda sigma: self.run.probe_loss(self.average(sigma)))
        return self._chosen[1]

    def propose(self) -> Proposal | None:
        return None if self.n == 0 else Proposal(self.average(self.chosen()))

    def scalars(self) -> dict[str, float]:
        """The width, where the probe has chosen it at this epoch."""
        return {"sigma": self._chosen[1]} if self._chosen is not None and self._chosen[0] == self.n else {}

    def tables(self) -> dict[str, pd.DataFrame]:
        """The kernel over steps."""
        if self.n == 0:
            return {}
        step_T = torch.arange(1, self.n + 1, dtype=torch.float64)
        c_T = torch.zeros_like(step_T)
        for x, (g, t, _) in zip(self._combination(self.chosen()).tolist(), self._averages(), strict=True):
            # what is left of step s after step t is (s / t)^(g + 1) of its share
            share_T = -torch.expm1((g + 1) * torch.log1p(-1 / step_T[:t]))
            c_T[:t] += x * share_T * (step_T[:t] / t) ** (g + 1)
        return {"kernel": kernel_table(c_T[None], (step_T / self.run.steps_per_epoch).tolist())}

    def state_dict(self) -> State:
        kept = [[t, [mean_N.clone() for mean_N in means]] for t, means in self.kept]
        return {"n": self.n, "means": [mean_N.clone() for mean_N in self.means], "kept": kept}

    def load_state_dict(self, state: State) -> None:
        device = self.run.device
        self.n = state["n"]
        self.means = [mean_N.to(device, copy=True) for mean_N in state["means"]]
        self.kept = [(t, [mean_N.to(device, copy=True) for mean_N in means]) for t, means in state["kept"]]


def narrowest_best(grid: tuple[float, ...], loss: Callable[[float], float]) -> float:
    """The first of the ascending values with the least loss; the first of all where no loss is a number."""
    losses = [loss(value) for value in grid]
    return min(zip(grid, losses, strict=True), key=lambda pair: float("inf") if pair[1] != pair[1] else pair[1])[0]
