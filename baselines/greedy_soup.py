"""Greedy soup: snapshots are added to a mean one by one, the best first, and stay where its loss falls.

Wortsman et al., Model Soups: Averaging Weights of Multiple Fine-Tuned Models Improves Accuracy Without Increasing
Inference Time (ICML 2022), recipe 1, whose ingredients are independent fine-tunings of one model. Here they are
snapshots of one run, which are not independent: neighbours are alike. Deviation: chosen by the probe's loss, where
theirs are chosen by accuracy on held-out images; without `dataset.probe_size` the base was trained on the probe.

Shape suffixes: N trainable weights, T snapshots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.combined import Combined, check_first
from baselines.parameters import check_whole
from harness.method import Run


@dataclass(eq=False)
class GreedySoup(Combined):
    """The greedy soup of w(first..T), the same for every epoch.

    Snapshots are sorted by their probe loss, the later first where it is equal; the mean of those that were kept takes
    in the next one and keeps it where its probe loss is lower than without. `candidates` limits them to so many, evenly
    spaced up to the last, since each takes two passes over the probe; None: all. ValueError where first is below 0 or
    after the end, or candidates is below 1.
    """

    first: int = 1
    candidates: int | None = None

    needs_probe = True

    def __post_init__(self) -> None:
        check_whole("first", self.first, 0)
        if self.candidates is not None:
            check_whole("candidates", self.candidates, 1)

    def needs(self, epochs: int) -> tuple[int, int]:
        return check_first(self.first, epochs)

    def memory_floats(self, N: int) -> int:
        """The soup, the soup with one more, and the snapshot that is read."""
        return 3 * N

    def find(self, run: Run) -> Tensor:
        T = len(self.window)
        count = T if self.candidates is None else min(self.candidates, T)
        places = sorted({T - 1 - round(n * T / count) for n in range(count)})
        losses = {place: _known(run.probe_loss(self.window[place].theta_N)) for place in places}
        best, *others = sorted(places, key=lambda place: (losses[place], -place))
        kept, least = [best], losses[best]
        soup_N = self.window[best].theta_N.clone()
        for place in others:
            more_N = soup_N.lerp(self.window[place].theta_N, 1 / (len(kept) + 1))
            loss = _known(run.probe_loss(more_N))
            if loss < least:
                kept, least, soup_N = [*kept, place], loss, more_N
        c_T = torch.zeros(T, dtype=torch.float64)
        c_T[kept] = 1 / len(kept)
        return c_T

    def scalars(self) -> dict[str, float]:
        """How many snapshots were kept, with the kernel's age and effective number."""
        return {"kept": float((self.c_T > 0).sum()), **super().scalars()}


def _known(loss: float) -> float:
    """A loss that is no number is worse than any."""
    return math.inf if math.isnan(loss) else loss
