"""A user's own brancher: leaves the base at epoch `start`, has read it up to `prefix`, and trains on gently."""

import torch

from harness.method import Branch, Brancher


class LateBranch(Brancher):
    """Plain SGD at rate `lr` from epoch `start`."""

    def __init__(self, start: int = 2, prefix: int = 2, lr: float = 0.01) -> None:
        self.start, self.prefix, self.lr = start, prefix, lr

    def branch(self, epochs):
        return Branch(self.start, self.prefix, epochs - self.prefix)

    def begin(self, session):
        session.new_optimizer(torch.optim.SGD, lr=self.lr)

    def train_epoch(self, session):
        session.train_epoch()

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass
