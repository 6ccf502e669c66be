"""Freezing as embedded CMD does, but for its modes: the control for training ever fewer weights.

What the reviewers of Brokman et al. (ICLR 2024) asked for: as many weights as embedded CMD stops training, at the same
epochs, frozen at the value they have then instead of following a reference, and chosen without any model of their
dynamics. `random` draws them; `least_moved` takes those that lie nearest to where they were at the last window, for
the first one at the start of the warm-up. As there, weights without a gradient so far, which nothing trains anyway, are
neither frozen nor counted, in shares and percentages neither above nor below the line, and as many as there are
references go on being trained.

Shape suffixes: N trainable weights, F free weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd
import torch
from torch import Tensor

from baselines.parameters import check_choice, check_whole
from baselines.warmup import PercentOf, branch_after_warmup, check_warmup, check_windows
from harness.method import Branch, Brancher, Session, State

Choice = Literal["random", "least_moved"]
WINDOW_COLUMNS = ("epoch", "frozen_now", "frozen", "trainable_fraction")
VECTORS = ("last_N", "moving_N", "frozen_N", "held_N")


@dataclass(eq=False)
class Frozen(Brancher):
    """Trains on from the end of the base's warm-up, freezing `percent` percent of the weights every so many epochs.

    The weights that count are those that move (`Session.moving_N`): that had a gradient other than 0. Starts at the
    base's state after epoch F + 1, F = `warmup`, with the base's own optimizer and schedule; at every later epoch that
    `every` divides, but the last, it freezes `percent` percent of them (or of those that `remaining` says are not
    frozen yet), rounded down; `spared` of them are never frozen. A frozen weight keeps its value after every step;
    gradients of all weights are still computed. ValueError where warmup is below 2 or not below epochs - 1, every below
    1 or without an epoch to freeze at before the last, percent not in (0, 100], spared below 0, or a choice is not
    known.
    """

    choice: Choice = "random"
    warmup: int = 20
    every: int = 10
    percent: float = 10.0
    percent_of: PercentOf = "all"
    spared: int = 10

    def __post_init__(self) -> None:
        check_choice("choice", self.choice, get_args(Choice))
        check_warmup(self.warmup)
        check_windows(self.every, self.percent, self.percent_of)
        check_whole("spared", self.spared, 0, most=10**12)

    def branch(self, epochs: int) -> Branch:
        return branch_after_warmup(self.warmup, epochs, self.every)

    def needs(self, epochs: int) -> tuple[int, int]:
        return 1, self.branch(epochs).prefix

    def memory_floats(self, N: int) -> int:
        """The frozen values, those at the last window, two masks, and while a window closes an order of all weights."""
        return 4 * N + N // 2

    @torch.no_grad()
    def begin(self, session: Session) -> None:
        self.last_N = session.trajectory.window(1, 1)[0].theta_N.clone()
        """values at the last window"""
        self.moving_N = session.moving_N
        self.frozen_N = torch.zeros_like(self.moving_N)
        self.held_N = session.theta_N.detach().clone()
        """values of the frozen weights; elsewhere without meaning"""
        self.t = session.branch.prefix
        self.frozen_epochs = 0
        """sum over epochs of the weights frozen while it was trained"""
        self.windows: list[dict[str, float]] = []

    @torch.no_grad()
    def train_epoch(self, session: Session) -> None:
        frozen = self.frozen
        with torch.enable_grad():
            session.train_epoch(after_step=(lambda: self.restore(session)) if frozen > 0 else None)
        self.frozen_epochs += frozen
        self.t = session.t + 1
        self.moving_N = session.moving_N
        if self.t % self.every == 0 and self.t < session.epochs:
            self.close_window(session.theta_N, session.rng(f"frozen/{self.t}"))

    def restore(self, session: Session) -> None:
        """After a step: the frozen weights are what they were, whatever the optimizer did to them."""
        with torch.no_grad():
            torch.where(self.frozen_N, self.held_N, session.theta_N, out=session.theta_N)

    def close_window(self, theta_N: Tensor, generator: torch.Generator) -> None:
        """Freeze the next weights at their present values, `generator` drawing them where chance chooses."""
        before = self.frozen
        eligible_F = torch.nonzero(self.moving_N & ~self.frozen_N).squeeze(1)
        of = len(eligible_F) + (0 if self.percent_of == "remaining" else before)
        count = max(0, min(int(self.percent * of / 100), len(eligible_F) - self.spared))
        if self.choice == "random":
            order_F = torch.randperm(len(eligible_F), generator=generator).to(eligible_F.device)
        else:
            order_F = (theta_N - self.last_N)[eligible_F].abs().argsort(stable=True)
        chosen = eligible_F[order_F[:count]]
        self.held_N[chosen] = theta_N[chosen]
        self.frozen_N[chosen] = True
        self.last_N.copy_(theta_N)
        row = {"epoch": self.t, "frozen_now": self.frozen - before, "frozen": self.frozen}
        self.windows.append({**row, "trainable_fraction": self.trainable_fraction})

    @property
    def frozen(self) -> int:
        """Weights frozen now."""
        return int(self.frozen_N.sum())

    @property
    def trainable_fraction(self) -> float:
        """Share of the weights that move that are not frozen now."""
        return 1 - self.frozen / max(self.moving, 1)

    @property
    def moving(self) -> int:
        """Weights that had a gradient so far."""
        return int(self.moving_N.sum())

    def scalars(self) -> dict[str, float]:
        """What goes on training, and as embedded CMD counts it, percent of moving weights and epochs without any."""
        saved = 100 * self.frozen_epochs / (max(self.moving, 1) * self.t)
        return {"trainable_fraction": self.trainable_fraction, "saved": saved, "frozen": float(self.frozen)}

    def tables(self) -> dict[str, pd.DataFrame]:
        """One row per window."""
        return {"windows": pd.DataFrame(self.windows, columns=list(WINDOW_COLUMNS))}

    def state_dict(self) -> State:
        vectors = {name: getattr(self, name).clone() for name in VECTORS}
        return {**vectors, "t": self.t, "frozen_epochs": self.frozen_epochs, "windows": [dict(w) for w in self.windows]}

    def load_state_dict(self, state: State) -> None:
        for name in VECTORS:
            getattr(self, name).copy_(state[name])
        self.t, self.frozen_epochs = state["t"], state["frozen_epochs"]
        self.windows = [dict(window) for window in state["windows"]]
