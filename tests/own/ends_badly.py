"""A user's own observers that fail, each in its way."""

import os

import torch

from harness.method import Observer


class Raises(Observer):
    """Raises at epoch `at`."""

    def __init__(self, at: int = 2) -> None:
        self.at = at

    def begin(self, run):
        pass

    def observe(self, snapshot):
        if snapshot.t == self.at:
            raise RuntimeError(f"nothing works at t = {snapshot.t}")

    def propose(self):
        return None

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Vanishes(Raises):
    """Takes its whole process along, as running out of memory does."""

    def observe(self, snapshot):
        if snapshot.t == self.at:
            os._exit(3)


class Exhausts(Raises):
    """Asks a GPU for more memory than it has."""

    def observe(self, snapshot):
        if snapshot.t == self.at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore of it")


class Misses(Raises):
    """Fails over a file whose name is no UTF-8."""

    def observe(self, snapshot):
        raise RuntimeError(os.fsdecode(b"no weights in /data/caf\xe9.pt"))
