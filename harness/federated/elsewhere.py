"""Clients in processes that share nothing with the server's: what they must know beside their orders."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from harness.config import BaseConfig, MethodConfig
from harness.federated.client import Answer, ClientSide, Order
from harness.federated.processes import Say
from harness.method import Exchange
from harness.planning.methods import make_method
from harness.problem.partition import parts_of
from harness.problem.splits import load_split
from harness.storage.keys import harness_digest
from harness.training.loop import set_determinism


class Transport(Protocol):
    """Takes orders to clients, and brings their answers in the order of the clients."""

    def answers(self, orders: Iterable[Order]) -> Iterator[Answer]:
        """Of each order; ClientFailed where a client failed, was asked again and failed again."""

    def close(self) -> None:
        """No more orders."""


@dataclass(frozen=True)
class Work:
    """What a process must know to train any client of a base, or of a cell of it, on the CPU."""

    base: BaseConfig
    method: MethodConfig | None
    """the cell's exchange; None: federated averaging"""
    threads: int
    """as many as the server has: sums in float32 differ between thread counts"""
    directory: str
    """where the command was given, from which paths of data count, where there is such a folder"""
    python_path: tuple[str, ...]
    harness: str
    """digest of the harness's numeric modules"""

    def exchange(self) -> Exchange:
        """A fresh one, of its parameters alone."""
        made = Exchange() if self.method is None else make_method(self.method)
        assert isinstance(made, Exchange)
        return made

    def side(self) -> ClientSide:
        """The clients, in this process, which is made to compute as the server's does.

        RuntimeError where the harness's sources are others than the server's.
        """
        if harness_digest() != self.harness:
            raise RuntimeError("the harness's sources here are not the server's: install the same version")
        sys.path.extend(path for path in self.python_path if path not in sys.path)
        with contextlib.suppress(OSError):
            os.chdir(self.directory)
        torch.set_num_threads(self.threads)
        set_determinism(self.base)
        images = load_split(self.base.dataset, "train")
        return ClientSide(self.base, images, parts_of(self.base, images.labels_B), torch.device("cpu"), self.exchange)


Connect = Callable[[Work, Say], Transport]
"""makes the transport to clients elsewhere"""
