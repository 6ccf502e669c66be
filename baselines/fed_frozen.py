"""Federated freezing without a model of the dynamics: the control for federated CMD.

At the rounds at which federated CMD embeds weights, as many are frozen at the value that they have then, and sent no
more: drawn at random, or those that lie nearest to where they were at the last window. The choice is `frozen`'s, on the
server's weights; a client is sent a bitmap of what has been frozen since it was last asked.

Shape suffixes: N trainable weights, F free ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

import pandas as pd
import torch
from torch import Tensor

from baselines.frozen import Choice
from baselines.parameters import check_choice, check_whole
from baselines.warmup import PercentOf, branch_after_warmup, check_warmup, check_windows
from harness.method import Branch, Client, Exchange, Hook, Payload, Session, State, Upload, weighted_mean

VECTORS = ("last_N", "moving_N", "frozen_N", "since_N")
WINDOW_COLUMNS = ("epoch", "frozen_now", "frozen", "trainable_fraction")


@dataclass(eq=False)
class FedFrozen(Exchange):
    """Freezes `percent` percent of the weights that move at every round that `every` divides after the warm-up.

    Starts at the base's state after round F + 1, F = `warmup`; `spared` weights are never frozen, as many as federated
    CMD has references. A weight moves, as the server sees it, where its average changed in some round. ValueError where
    warmup is below 2 or not below epochs - 1, every below 1 or without a round to freeze at before the last, percent
    not in (0, 100], spared below 0, or a choice is not known.
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
        """Weights at the last window, when each was frozen, two masks, and while a window closes an order of all."""
        return 4 * N + N // 2

    def begin(self, session: Session) -> None:
        self.session = session
        self.last_N = session.trajectory.window(1, 1)[0].theta_N.clone()
        self.moving_N = session.moving_N
        self.frozen_N = torch.zeros_like(self.moving_N)
        self.since_N = torch.zeros(len(self.moving_N), dtype=torch.int32, device=self.moving_N.device)
        """the first round in which a frozen weight was not trained"""
        self.heard: dict[int, int] = {}
        """the last round of every client"""
        self.windows: list[dict[str, float]] = []

    def down(self, k: int, theta_N: Tensor) -> Payload:
        """The weights that were free when client k was last asked, and which of them are frozen since."""
        heard = self.heard.get(k, -1)
        self.heard[k] = self.session.t
        free_N = ~self.frozen_N | (self.since_N > heard)
        frozen_N = self.frozen_N & free_N
        return {"theta_F": theta_N[free_N]} | ({"frozen_N": frozen_N} if bool(frozen_N.any()) else {})

    def start(self, client: Client, payload: Payload) -> Tensor:
        kept = client.state
        theta_N = payload["theta_F"]
        if kept:
            theta_N = kept["theta_N"].masked_scatter(~kept["frozen_N"], theta_N)
        frozen_N = kept.get("frozen_N", torch.zeros_like(theta_N, dtype=torch.bool))
        self.frozen_N = frozen_N | payload["frozen_N"] if "frozen_N" in payload else frozen_N
        kept |= {"theta_N": theta_N.clone(), "frozen_N": self.frozen_N}
        return theta_N

    def hooks(self, client: Client) -> tuple[Hook, Hook]:
        def put_back() -> None:
            with torch.no_grad():
                torch.where(self.frozen_N, client.start_N, client.theta_N, out=client.theta_N)

        return None, put_back if bool(self.frozen_N.any()) else None

    def up(self, client: Client) -> Payload:
        return {"theta_F": client.theta_N[~self.frozen_N]}

    def merge(self, uploads: Iterable[Upload], theta_N: Tensor) -> Tensor:
        mean_F = weighted_mean((upload.weight, upload.payload["theta_F"]) for upload in uploads).float()
        merged_N = theta_N.masked_scatter(~self.frozen_N, mean_F)
        self.moving_N |= merged_N != theta_N
        return merged_N

    def after_round(self, theta_N: Tensor) -> Tensor:
        t = self.session.t + 1
        if t % self.every == 0 and t < self.session.epochs:
            self._close_window(t, theta_N)
        return theta_N

    def _close_window(self, t: int, theta_N: Tensor) -> None:
        """Freeze the next weights at their present values from round t on, counted from 0."""
        before = self.frozen
        eligible_F = torch.nonzero(self.moving_N & ~self.frozen_N).squeeze(1)
        of = len(eligible_F) + (0 if self.percent_of == "remaining" else before)
        count = max(0, min(int(self.percent * of / 100), len(eligible_F) - self.spared))
        if self.choice == "random":
            order_F = torch.randperm(len(eligible_F), generator=self.session.rng(f"frozen/{t}")).to(eligible_F.device)
        else:
            order_F = (theta_N - self.last_N)[eligible_F].abs().argsort(stable=True)
        chosen = eligible_F[order_F[:count]]
        self.frozen_N[chosen] = True
        self.since_N[chosen] = t
        self.last_N = theta_N.clone()
        values = (t, self.frozen - before, self.frozen, self.trainable_fraction)
        self.windows.append(dict(zip(WINDOW_COLUMNS, values, strict=True)))

    @property
    def frozen(self) -> int:
        """Weights frozen now."""
        return int(self.frozen_N.sum())

    @property
    def trainable_fraction(self) -> float:
        """Share of the weights that move that are not frozen now."""
        return 1 - self.frozen / max(int(self.moving_N.sum()), 1)

    def scalars(self) -> dict[str, float]:
        return {"trainable_fraction": self.trainable_fraction, "frozen": float(self.frozen)}

    def tables(self) -> dict[str, pd.DataFrame]:
        """One row per window."""
        return {"windows": pd.DataFrame(self.windows, columns=list(WINDOW_COLUMNS))}

    def state_dict(self) -> State:
        vectors = {name: getattr(self, name).clone() for name in VECTORS}
        return {**vectors, "heard": dict(self.heard), "windows": [dict(window) for window in self.windows]}

    def load_state_dict(self, state: State) -> None:
        for name in VECTORS:
            setattr(self, name, state[name].clone())
        self.heard, self.windows = dict(state["heard"]), [dict(window) for window in state["windows"]]
