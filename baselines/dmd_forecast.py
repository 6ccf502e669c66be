"""Dynamic mode decomposition as the harness forecasts with it: an observer that knows the warm-up alone.

Snapshots w(1..F + 1) as online CMD has them, F = `warmup`; every later epoch's weights are a forecast. Their inner
products, T x T, are all that is kept: each forecast is combined from the stored warm-up snapshots.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from baselines.dmd.decomposition import DMD, finite_gram
from baselines.dmd.dynamics import Dynamics
from baselines.dmd.rank import Offset, check_rank, check_rank_fits
from baselines.parameters import check_bool
from baselines.warmup import check_warmup, warmup_snapshots
from harness.method import Observer, Proposal, Run, Snapshot, State, Trajectory


@dataclass(eq=False)
class DMDForecast(Observer):
    """From the end of epoch F + 1 on, F = `warmup`, proposes the forecast w(t) for the present t; before that nothing.

    ValueError where rank, energy or offset are out of bounds, warmup is below 2, gives fewer snapshots than the rank
    needs, or is not below the base's epochs.
    """

    warmup: int = 20
    rank: int | str = "energy"
    energy: float = 0.9999
    offset: Offset = "constant"
    clip: bool = True

    needs_even_steps = True

    def __post_init__(self) -> None:
        check_warmup(self.warmup)
        check_rank(self.rank, self.energy, self.offset)
        check_rank_fits(self.rank, self.warmup + 1, self.offset)
        check_bool("clip", self.clip)

    def needs(self, epochs: int) -> tuple[int, int]:
        return warmup_snapshots(self.warmup, epochs)

    def epochs_read(self, epochs: int) -> int:
        """The forecast follows from the warm-up alone."""
        return self.warmup + 1

    def memory_floats(self, N: int) -> int:
        """A snapshot and what is combined from all; blocks of weights beside them."""
        return 2 * N

    def begin(self, run: Run) -> None:
        self.run = run
        self.t = 0
        self.gram_TT: Tensor | None = None
        """inner products of the warm-up's snapshots, from which all else follows"""
        self.dmd: DMD | None = None

    def observe(self, snapshot: Snapshot) -> None:
        self.t = snapshot.t
        if snapshot.t == self.warmup + 1:
            self._take(finite_gram(self._window(), self.offset, self.run.layout))

    def _window(self) -> Trajectory:
        return self.run.trajectory.window(1, self.warmup + 1)

    def _take(self, gram_TT: Tensor) -> None:
        self.gram_TT = gram_TT
        dynamics = Dynamics.fit(gram_TT, self.run.layout.N, self.rank, self.energy, self.offset)
        self.dmd = DMD(self._window(), dynamics)

    def propose(self) -> Proposal | None:
        if self.dmd is None:
            return None
        return Proposal(self.dmd.forecast(self.t - self.warmup - 1, self.clip))

    def scalars(self) -> dict[str, float]:
        return {} if self.dmd is None else self.dmd.dynamics.scalars()

    def tables(self) -> dict[str, pd.DataFrame]:
        return {} if self.dmd is None else self.dmd.dynamics.tables()

    def state_dict(self) -> State:
        return {"t": self.t, "gram_TT": None if self.gram_TT is None else self.gram_TT.clone()}

    def load_state_dict(self, state: State) -> None:
        self.t = state["t"]
        if state["gram_TT"] is not None:
            self._take(state["gram_TT"])
