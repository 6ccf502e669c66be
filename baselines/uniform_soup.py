"""Uniform soup: the plain mean of the run's snapshots from some epoch on.

Wortsman et al., Model Soups (ICML 2022), average the weights of models that were fine-tuned independently from one
start. Here the ingredients are snapshots of one run, which are not independent: it is the control of the greedy soup,
with whose ingredients it shares everything but the choice, and the SWA of the same tail.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.combined import Combined, check_first
from baselines.parameters import check_whole
from harness.method import Run


@dataclass(eq=False)
class UniformSoup(Combined):
    """The mean of w(first..T), the same for every epoch; ValueError where first is below 0 or after the end."""

    first: int = 1

    def __post_init__(self) -> None:
        check_whole("first", self.first, 0)

    def needs(self, epochs: int) -> tuple[int, int]:
        return check_first(self.first, epochs)

    def find(self, run: Run) -> Tensor:
        T = len(self.window)
        return torch.full((T,), 1 / T, dtype=torch.float64)
