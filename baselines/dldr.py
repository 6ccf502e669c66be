"""Low-dimensional training: the subspace of a warm-up, and where training in it starts.

Li et al., Low Dimensional Trajectory Hypothesis is True: DNNs Can Be Trained in Tiny Subspaces (TPAMI 2022): sample a
trajectory by ordinary training, find its subspace by principal components, train again within it. `p_sgd` and `p_bfgs`
are the two ways to train.

Shape suffixes: N weights, T snapshots, D dimensions of the subspace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd

from baselines.parameters import check_choice, check_whole
from baselines.subspace import Subspace
from harness.method import Branch, Brancher, Session

Start = Literal["initial", "warmup_end"]


@dataclass(eq=False)
class DLDR(Brancher):
    """Trains within start + span(P); P holds `dimensions` principal components of the snapshots 0..F, F = `warmup`.

    `start` is the initial state (published) or the end of the warm-up; `epochs` are its own, by default those that the
    warm-up leaves of the base's; `batch_size` its own, by default the base's. ValueError where warmup or dimensions is
    below 1, dimensions above warmup, start not known, or epochs or batch_size below 1.
    """

    gradient_space = "subspace"

    warmup: int = 20
    dimensions: int = 20
    start: Start = "initial"
    epochs: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_whole("warmup", self.warmup, 1)
        check_whole("dimensions", self.dimensions, 1)
        if self.dimensions > self.warmup:
            raise ValueError(
                f"dimensions must be at most warmup = {self.warmup}, "
                f"the snapshots 0..{self.warmup} less 1, got {self.dimensions}"
            )
        check_choice("start", self.start, get_args(Start))
        for name in ("epochs", "batch_size"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)

    def branch(self, epochs: int) -> Branch:
        last = epochs if self.epochs is not None else epochs - 1
        if self.warmup > last:
            which = "epochs" if self.epochs is not None else "epochs - 1"
            raise ValueError(f"warmup must be at most {which} = {last}, got {self.warmup}")
        own = epochs - self.warmup if self.epochs is None else self.epochs
        return Branch(start=0 if self.start == "initial" else self.warmup, prefix=self.warmup, epochs=own)

    def memory_floats(self, N: int) -> int:
        """P and the origin."""
        return (self.dimensions + 1) * N

    def begin(self, session: Session) -> None:
        self.subspace = Subspace.fit(session.trajectory, self.dimensions)
        self.origin_N = session.theta_N.detach().clone()

    def tables(self) -> dict[str, pd.DataFrame]:
        return {"subspace": self.subspace.table()}
