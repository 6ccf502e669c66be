"""Lookahead: slow weights that follow the fast ones every k steps.

Zhang et al., Lookahead Optimizer: k steps forward, 1 step back (NeurIPS 2019), algorithm 1. The inner optimizer is
the base's, with its schedule, and keeps its state across synchronisations. The slow weights start at the initial
weights, so that the first synchronisation already moves them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from baselines.parameters import check_between, check_whole
from harness.method import Branch, Brancher, Proposal, Session, State


@dataclass(eq=False)
class Lookahead(Brancher):
    """Trains from epoch 0: slow += alpha (fast - slow), fast = slow after every `k` steps; proposes slow.

    ValueError where k is below 1 or `alpha` is not between 0 and 1.
    """

    k: int = 5
    alpha: float = 0.5

    def __post_init__(self) -> None:
        check_whole("k", self.k, 1)
        check_between("alpha", self.alpha, 0, 1)

    def branch(self, epochs: int) -> Branch:
        return Branch(start=0, prefix=0, epochs=epochs)

    def needs(self, epochs: int) -> None:
        """The restart state is enough: no stored snapshot is read."""
        return

    def begin(self, session: Session) -> None:
        self.slow_N = session.theta_N.detach().clone()
        self.steps = 0

    def train_epoch(self, session: Session) -> None:
        session.train_epoch(after_step=lambda: self.after_step(session))

    @torch.no_grad()
    def after_step(self, session: Session) -> None:
        """Count one optimizer step and synchronise after every k-th, across the bounds of epochs."""
        self.steps += 1
        if self.steps % self.k == 0:
            self.slow_N.lerp_(session.theta_N, self.alpha)
            session.theta_N.copy_(self.slow_N)

    def propose(self, session: Session) -> Proposal:
        return Proposal(self.slow_N.clone())

    def state_dict(self) -> State:
        return {"slow_N": self.slow_N.clone(), "steps": self.steps}

    def load_state_dict(self, state: State) -> None:
        self.slow_N.copy_(state["slow_N"])
        self.steps = state["steps"]
