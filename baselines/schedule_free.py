"""Schedule-free training: no learning-rate schedule, and an average of the iterates in its place.

Defazio et al., The Road Less Scheduled (NeurIPS 2024), by the authors' package `schedulefree`: gradients are taken at
y, a step is made at z, and x, their running average, is what is evaluated. Deviation: the package swaps y for x inside
the model and back, which changes last bits; here x = lerp(y, z, 1 - 1 / beta) goes into a copy, so that how often
someone asks changes nothing.

Shape suffix: N trainable weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from schedulefree import AdamWScheduleFree, RAdamScheduleFree, SGDScheduleFree

from baselines.parameters import check_between, check_choice, check_from
from harness.method import Branch, Brancher, Proposal, Session, State
from harness.snapshots import tensors_of

Inner = Literal["auto", "sgd", "adamw", "radam"]


@dataclass(eq=False)
class ScheduleFree(Brancher):
    """Trains from epoch 0 with schedule-free SGD, AdamW or RAdam, and proposes the averaged iterate x.

    `inner` auto takes SGD where the base trains with it, otherwise AdamW. `lr` null is the base's rate, for SGD with
    momentum m divided by 1 - m: the rate that its steps amount to. `weight_decay` null is the base's. The rate rises
    linearly over the first `warmup` of all steps; RAdam's rises by itself, so that its warmup is 0. The average counts
    step t by t^r times its rate squared: `r` above 0 forgets the beginning of a long run. ValueError where beta is not
    between 0 and 1, lr is not above 0, weight_decay or r is below 0, warmup is not at least 0 and below 1, or other
    than 0 for RAdam, or inner is not known.
    """

    inner: Inner = "auto"
    beta: float = 0.9
    lr: float | None = None
    weight_decay: float | None = None
    warmup: float = 0.05
    r: float = 0.0

    def __post_init__(self) -> None:
        check_choice("inner", self.inner, get_args(Inner))
        check_between("beta", self.beta, 0, 1)
        if self.lr is not None:
            check_between("lr", self.lr, 0)
        if self.weight_decay is not None:
            check_from("weight_decay", self.weight_decay, 0)
        check_from("warmup", self.warmup, 0, 1)
        if self.inner == "radam" and self.warmup != 0:
            raise ValueError(f"warmup must be 0 for radam, whose rate rises by itself, got {self.warmup}")
        check_from("r", self.r, 0)

    def branch(self, epochs: int) -> Branch:
        return Branch(start=0, prefix=0, epochs=epochs)

    def needs(self, epochs: int) -> None:
        """The restart state is enough: no stored snapshot is read."""
        return

    def memory_floats(self, N: int) -> int:
        """z beside y, and for AdamW second moments."""
        return 2 * N

    def begin(self, session: Session) -> None:
        group = session.optimizer.param_groups[0]
        sgd = self.inner == "sgd" or (self.inner == "auto" and isinstance(session.optimizer, torch.optim.SGD))
        lr = group["lr"] / (1 - group.get("momentum", 0.0)) if self.lr is None else self.lr
        common: dict[str, Any] = {
            "lr": lr,
            "weight_decay": group.get("weight_decay", 0.0) if self.weight_decay is None else self.weight_decay,
            "r": self.r,
        }
        rising = round(self.warmup * session.branch.epochs * session.steps_per_epoch)
        if sgd:
            optimizer = session.new_optimizer(SGDScheduleFree, momentum=self.beta, warmup_steps=rising, **common)
        elif self.inner == "radam":
            optimizer = session.new_optimizer(RAdamScheduleFree, betas=(self.beta, 0.999), **common)
        else:
            betas = (self.beta, 0.999)
            optimizer = session.new_optimizer(AdamWScheduleFree, betas=betas, warmup_steps=rising, **common)
        optimizer.train()  # type: ignore[attr-defined]

    def train_epoch(self, session: Session) -> None:
        session.train_epoch()

    @torch.no_grad()
    def propose(self, session: Session) -> Proposal:
        x_N = session.theta_N.clone()
        for parameter, x in zip(session.parameters, tensors_of(x_N, session.layout), strict=True):
            z = session.optimizer.state[parameter].get("z")
            if z is not None:
                x.lerp_(z, 1 - 1 / self.beta)
        return Proposal(x_N)

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        pass
