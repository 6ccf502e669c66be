"""Averages of the weights for anyone's training loop; the harness runs the same as `baselines.ema` and its neighbours.

    average = PowerEMA(model, sigma=0.075)
    for batch in batches():
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
        average.update()
    with average.applied():
        torch.optim.swa_utils.update_bn(loader, model)  # averaged weights have no running statistics of their own
        evaluate(model)

`update` is called after every optimizer step, or as often as a snapshot is to count: lengths are numbers of updates.
Training is never touched. `UniformMean` is what `torch.optim.swa_utils.AveragedModel` averages by default; `EMA` is
that of its `get_ema_multi_avg_fn` without the weight that this gives the first snapshot for ever.

Shape suffix: N trainable weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from baselines import ema, lawa, posthoc_ema, power_ema, time_mean, two_tailed
from baselines.parameters import check_whole
from baselines.unchanged import Unchanged
from harness.method import Observer, Run, Snapshot
from harness.snapshots import MemoryTrajectory, tensors_of, trainable, weights_of

Loss = Callable[[nn.Module], float]
MANY = 10**6
"""epochs of a loop whose end is not known"""


class Average:
    """What all averages of a model do; ValueError where a parameter is not real, or frozen, freed or resized half-way.

    Buffers, such as BatchNorm's statistics, are not averaged.
    """

    def __init__(self, model: nn.Module, method: Observer, every: int = 1, epochs: int = MANY) -> None:
        check_whole("every", every, 1)
        self.model, self.unchanged = model, Unchanged(model)
        self.layout = self.unchanged.layout
        self.updates = 0
        """updates so far"""
        self._method, self._every = method, every
        device = weights_of(model).device
        nothing = MemoryTrajectory.of([])
        self._run = Run(self.layout, nothing, epochs, every, device, self._no_rng, self._probe_loss)
        method.begin(self._run)

    @staticmethod
    def _no_rng(purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(0)

    def _probe_loss(self, theta_N: Tensor) -> float:
        raise RuntimeError("this average asks for no loss")

    def update(self) -> None:
        """Take in the model's present weights; ValueError naming a parameter that changed in more than its values."""
        self.unchanged.check(self.model)
        self.updates += 1
        snapshot = Snapshot(self.updates // self._every, self.updates, weights_of(self.model), {})
        self._method.observe(snapshot)

    def weights(self) -> Tensor:
        """The averaged weights (N,), a copy; the model's own where the average stands for these."""
        proposal = self._method.propose()
        return weights_of(self.model) if proposal is None else proposal.theta_N

    @contextlib.contextmanager
    def applied(self, model: nn.Module | None = None) -> Iterator[nn.Module]:
        """Inside, `model` (default: the one in training) has the averaged weights, and is what is given.

        Afterwards its weights and buffers are what they were, bit for bit, also after an error, so that BatchNorm may
        be recalibrated inside. ValueError where the model's layout is another.
        """
        with _holding(self.model if model is None else model, self.weights(), self.unchanged) as target:
            yield target

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything that `load_state_dict` needs."""
        return {"updates": self.updates, "method": self._method.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another instance on the same model stood."""
        self.updates = state["updates"]
        self._method.load_state_dict(state["method"])


class UniformMean(Average):
    """The mean of all updates: stochastic weight averaging, begun where this is made (Izmailov et al., UAI 2018)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, time_mean.TimeMean())


class EMA(Average):
    """The exponential moving average in which an update counts half after `half_life` later ones, bias-corrected."""

    def __init__(self, model: nn.Module, half_life: float) -> None:
        super().__init__(model, ema.EMA(half_life))


class PowerEMA(Average):
    """The power-function average whose profile is `sigma` of the run wide (Karras et al., CVPR 2024)."""

    def __init__(self, model: nn.Module, sigma: float = 0.075) -> None:
        super().__init__(model, power_ema.PowerEMA(sigma))


class LAWA(Average):
    """The mean of the latest `k` of the states after every `every` updates (Kaddour 2022; Ajroldi et al. 2025)."""

    def __init__(self, model: nn.Module, k: int = 20, every: int = 1) -> None:
        super().__init__(model, lawa.LAWA(k, every))


class PostHocEMA(Average):
    """Power-function averages of any width, when training is over: two are stored every `every` updates.

    Memory is 2 vectors for every so many updates, at most 1,000 times. `weights(sigma)` gives the average of a width;
    `applied` has that of the width given here (Karras et al., CVPR 2024).
    """

    _method: posthoc_ema.PostHocEMA

    def __init__(self, model: nn.Module, every: int, sigma: float = 0.075) -> None:
        most = 1000
        super().__init__(model, posthoc_ema.PostHocEMA(sigma, stored=most), every, epochs=most)

    def weights(self, sigma: float | None = None) -> Tensor:
        """The weights (N,) of the average of width `sigma` (default: the one given); ValueError before an update."""
        return self._method.average(self._method.sigma if sigma is None else sigma)


class TwoTailed(Average):
    """The mean of as many of the latest updates as a loss asks for (Melis 2022).

    Every `every` updates `loss(model)` is asked for with averages in the model, which gets its own weights and buffers
    back: it must give a number, lower where the model is better, by images that results are not reported on.
    """

    def __init__(self, model: nn.Module, loss: Loss, every: int, patience: int = 3) -> None:
        self._loss = loss
        super().__init__(model, two_tailed.TwoTailed(1, patience), every)

    def _probe_loss(self, theta_N: Tensor) -> float:
        with _holding(self.model, theta_N, self.unchanged) as target:
            return float(self._loss(target))


@contextlib.contextmanager
def _holding(target: nn.Module, theta_N: Tensor, unchanged: Unchanged) -> Iterator[nn.Module]:
    """A model with these weights in it for the block; afterwards weights and buffers are what they were."""
    unchanged.check(target)
    parameters = list(trainable(target).values())
    live = [parameter.data for parameter in parameters] + [buffer.data for buffer in target.buffers()]
    before = [tensor.clone() for tensor in live]
    try:
        for parameter, part in zip(parameters, tensors_of(theta_N, unchanged.layout), strict=True):
            parameter.data.copy_(part)
        yield target
    finally:
        for tensor, saved in zip(live, before, strict=True):
            tensor.copy_(saved)
