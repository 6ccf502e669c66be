"""Embedded CMD as the harness runs it: a brancher from the end of the base's warm-up.

Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024); see `cmd.embedded`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

from baselines.cmd.embedded import EmbeddedCMD, check_embedded
from baselines.cmd.embedded_choice import Movement
from baselines.cmd.embedded_rules import Rule
from baselines.warmup import PercentOf, branch_after_warmup
from harness.method import Branch, Brancher, Session, State


@dataclass(eq=False)
class CMDEmbedded(Brancher):
    """Embedded CMD from the end of the base's warm-up on, with the base's own optimizer and schedule.

    Starts at the base's state after epoch F + 1, F = `warmup`; the other parameters are `EmbeddedCMD`'s, and the
    weights that count are those that move as the session says (`Session.moving_N`). Nothing is embedded at the last
    epoch's end. Its gradients are counted as full ones: those of all weights are still computed. ValueError where modes
    is below 1 or above samples, warmup below 2 or not below epochs - 1, every below 1 or without an epoch to embed at
    before the last, percent not in (0, 100], or a choice is not known.
    """

    modes: int = 10
    samples: int = 1000
    warmup: int = 20
    every: int = 10
    percent: float = 10.0
    percent_of: PercentOf = "all"
    rule: Rule = "projected"
    movement: Movement = "coefficients"

    def __post_init__(self) -> None:
        check_embedded(**self._settings())

    def _settings(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def branch(self, epochs: int) -> Branch:
        return branch_after_warmup(self.warmup, epochs, self.every)

    def needs(self, epochs: int) -> tuple[int, int]:
        return 1, self.branch(epochs).prefix

    def memory_floats(self, N: int) -> int:
        """Mean, covariance, last window's two coefficients, labels and masks; an embedded weight holds as much."""
        return (6 if self.movement == "scale_free" else 5) * N

    def begin(self, session: Session) -> None:
        self.embedded = EmbeddedCMD(session.model, session.optimizer, **self._settings())
        self.embedded.generator = session.rng("cmd/sample")
        self.embedded.moving_N = session.moving_N
        self.embedded.fix_modes(session.trajectory.window(1, self.warmup + 1))

    def train_epoch(self, session: Session) -> None:
        session.train_epoch(after_backward=self.embedded.follow_rule, after_step=self.embedded.after_step)
        self.embedded.moving_N = session.moving_N
        self.embedded.after_epoch(last=session.t + 1 == session.epochs)

    def scalars(self) -> dict[str, float]:
        return self.embedded.scalars()

    def tables(self) -> dict[str, pd.DataFrame]:
        return self.embedded.tables()

    def state_dict(self) -> State:
        return self.embedded.state_dict()

    def load_state_dict(self, state: State) -> None:
        self.embedded.load_state_dict(state)
