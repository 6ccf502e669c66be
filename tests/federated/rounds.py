"""A federated base on the digits without files, for tests of its rounds."""

import torch

from harness.federated.server import FederatedTrainer
from harness.method import Exchange
from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.problem.splits import load_split
from harness.storage.tensors import digest_tensor
from harness.training.loop import Trainer

CPU = torch.device("cpu")
TINY = ("dataset=digits", "model=test_resnet", "method=base", "fast=true", "device=cpu", "batch_size=16")
CLIENTS = ("federation=iid_10", "federation.iid_10.clients=3", "dataset.digits.train_size=150")
_images = {}


def base_of(*overrides):
    return resolve(Request((*TINY, *overrides)), "test").bases[0][0]


def images_of(base):
    name = repr(base.dataset)
    if name not in _images:
        _images[name] = load_split(base.dataset, "train")
    return _images[name]


def plain(*overrides):
    """The ordinary loop."""
    base = base_of(*overrides)
    return Trainer(base, images_of(base), CPU)


def federated(*overrides, make=Exchange, **more):
    """The server of a federation of three clients, unless the overrides say otherwise; `make` makes the exchange."""
    base = base_of(*CLIENTS, *overrides)
    return FederatedTrainer(base, images_of(base), CPU, make(), make, **more)


def digests(trainer, rounds=3):
    """Of weights and buffers after every round."""
    found = []
    for _ in range(rounds):
        trainer.train_epoch()
        buffers = [digest_tensor(buffer) for buffer in trainer.flat.buffers.values()]
        found.append([digest_tensor(trainer.flat.theta_N), *buffers])
    return found
