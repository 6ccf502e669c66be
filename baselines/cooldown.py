"""A decay of the rate branched off from the base: what one would do anyway, and so the rival of every average.

Zhai et al., Scaling Vision Transformers (CVPR 2022), and Hägele et al., Scaling Laws and Compute-Optimal Training
Beyond Fixed Training Durations (NeurIPS 2024): a run at a constant rate is cooled down to 0 over its last part, and any
of its states may be. The shapes are those of the latter's code. On a base with a constant rate this is, step for step,
training with the schedule `wsd`, at the cost of one run; on a base that anneals already the decay comes on top.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from baselines.parameters import check_between, check_choice
from harness.method import Branch, Brancher, Session, State

Shape = Literal["linear", "sqrt", "square", "cosine"]
SHAPES: dict[Shape, Callable[[float], float]] = {
    "linear": lambda u: 1.0 - u,
    "sqrt": lambda u: 1.0 - math.sqrt(u),
    "square": lambda u: 1.0 - u * u,
    "cosine": lambda u: 0.5 * (1.0 + math.cos(math.pi * u)),
}
"""the factor of the rate where the share u of the decay has passed"""


@dataclass(eq=False)
class Cooldown(Brancher):
    """Trains the last `decay` of the base's E epochs anew, rounded to whole ones, while the rate falls to 0.

    Starts at the base's state after epoch E - round(decay E) with the base's optimizer and its state; every later step
    has the rate of then times `shape` of the share of the decay that has passed at its end. It is charged E epochs.
    ValueError where decay is not between 0 and 1 or leaves no epoch, or the shape is not known.
    """

    decay: float = 0.2
    shape: Shape = "linear"

    def __post_init__(self) -> None:
        check_between("decay", self.decay, 0, 1)
        check_choice("shape", self.shape, get_args(Shape))

    def branch(self, epochs: int) -> Branch:
        own = round(self.decay * epochs)
        if own < 1:
            raise ValueError(f"decay must leave at least 1 of {epochs} epochs to train, got {self.decay}")
        return Branch(start=epochs - own, prefix=epochs - own, epochs=own)

    def needs(self, epochs: int) -> None:
        """The restart state is enough; ValueError where no epoch is left to train."""
        self.branch(epochs)

    def memory_floats(self, N: int) -> int:
        return 0

    def begin(self, session: Session) -> None:
        shape, own = SHAPES[self.shape], session.branch.epochs
        session.set_schedule(lambda epochs: shape(min(epochs / own, 1.0)))

    def train_epoch(self, session: Session) -> None:
        session.train_epoch()

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        pass
