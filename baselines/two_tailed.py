"""Two-tailed averaging: two uniform means of the latest steps, whose length follows from a loss as training goes on.

Melis, Two-Tailed Averaging: Anytime, Adaptive, Once-in-a-While Optimal Weight Averaging for Better Generalization
(2022). A long average is what the method stands for. A short one grows beside it; as soon as it is no worse, or the
long one no longer improves, it takes its place and begins anew. Where the raw weights are no worse, they stand for it.
The loss is the probe's, of training data unless the data set has a probe of its own.

Shape suffix: N trainable weights.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from baselines.kernel import kernel_table
from baselines.parameters import check_whole
from harness.method import Observer, Proposal, Run, Snapshot, State


@dataclass
class Tail:
    """The uniform mean of the latest `steps` states, and how its loss went."""

    mean_N: Tensor
    steps: int = 0
    best: float = float("inf")
    stale: int = 0
    """evaluations since the best one"""

    def add(self, theta_N: Tensor) -> None:
        self.steps += 1
        if self.steps == 1:
            self.mean_N.copy_(theta_N)
        else:
            self.mean_N.lerp_(theta_N, 1 / self.steps)

    def see(self, loss: float) -> None:
        """Note the loss of an evaluation."""
        if loss < self.best:
            self.best, self.stale = loss, 0
        else:
            self.stale += 1

    def forget(self) -> None:
        """Begin anew."""
        self.steps, self.best, self.stale = 0, float("inf"), 0


@dataclass(eq=False)
class TwoTailed(Observer):
    """The mean of the latest steps, as many as the probe's loss says: see the module's text.

    The averages are compared at the end of every `every` epochs; one whose loss has not fallen for `patience` of these
    comparisons no longer improves. ValueError where either is below 1.
    """

    every: int = 1
    patience: int = 3

    short: Tail = field(init=False, repr=False)
    long: Tail = field(init=False, repr=False)

    cadence = 1
    needs_probe = True

    def __post_init__(self) -> None:
        check_whole("every", self.every, 1)
        check_whole("patience", self.patience, 1)

    def memory_floats(self, N: int) -> int:
        return 2 * N

    def begin(self, run: Run) -> None:
        self.run = run
        self.period = self.every * run.steps_per_epoch
        self.step = 0
        self.raw = True
        """whether the raw weights stand for the method"""
        self.short, self.long = (Tail(torch.zeros(run.layout.N, device=run.device)) for _ in range(2))

    @torch.no_grad()
    def observe(self, snapshot: Snapshot) -> None:
        if snapshot.step < 1:
            return
        self.step = snapshot.step
        self.short.add(snapshot.theta_N)
        self.long.add(snapshot.theta_N)
        if self.step % self.period == 0:
            self._compare(snapshot.theta_N)

    def _compare(self, theta_N: Tensor) -> None:
        """The comparison that is due, after which the long average, or the raw weights, stand for the method."""
        loss, short, long = self.run.probe_loss, self.short, self.long
        of_short = loss(short.mean_N)
        of_long = of_short if short.steps == long.steps else loss(long.mean_N)
        short.see(of_short)
        long.see(of_long)
        if of_short <= of_long or long.stale >= self.patience:
            self.short, self.long, of_long = long, short, of_short
            self.short.forget()
        elif short.stale >= self.patience:
            short.forget()
        better = self.long.steps > 1 and loss(theta_N) <= of_long
        self.raw = better or self.long.steps <= 1
        if better and self.long.steps == self.period:
            self.short.forget()
            self.long.forget()

    def propose(self) -> Proposal | None:
        return None if self.raw else Proposal(self.long.mean_N.clone())

    @property
    def steps(self) -> int:
        """How many of the latest states are averaged."""
        return 1 if self.raw else self.long.steps

    def scalars(self) -> dict[str, float]:
        return {"averaged_steps": float(self.steps)}

    def tables(self) -> dict[str, pd.DataFrame]:
        """The kernel over steps."""
        epochs = [step / self.run.steps_per_epoch for step in range(self.step - self.steps + 1, self.step + 1)]
        return {"kernel": kernel_table(torch.full((1, self.steps), 1 / self.steps, dtype=torch.float64), epochs)}

    def state_dict(self) -> State:
        tails = {"short": asdict(self.short), "long": asdict(self.long)}
        return {"step": self.step, "raw": self.raw, **tails}

    def load_state_dict(self, state: State) -> None:
        self.step, self.raw = state["step"], state["raw"]
        self.short, self.long = (self._tail(state[name]) for name in ("short", "long"))

    def _tail(self, values: dict[str, Any]) -> Tail:
        return Tail(**{**values, "mean_N": values["mean_N"].to(self.run.device, copy=True)})
