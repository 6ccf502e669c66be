"""A model's trainable parameters as one vector, for those who use CMD without the harness.

Tied parameters stand once, 0-d ones included, frozen ones (`requires_grad` false) not at all.

Shape suffix: N trainable weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from harness.method import Layout


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters by name; ValueError where there are none."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if sum(p.numel() for p in trainable.values()) == 0:
        raise ValueError("model must have at least 1 trainable weight, got 0")
    return trainable


def layout_of(model: nn.Module) -> Layout:
    """Names and shapes of the tensors inside theta_N."""
    trainable = parameters(model)
    return Layout(tuple(trainable), tuple(tuple(p.shape) for p in trainable.values()))


@torch.no_grad()
def weights_of(model: nn.Module) -> Tensor:
    """theta_N: a copy of the trainable weights, (N,) float32 in C order of each tensor."""
    return torch.cat([p.detach().reshape(-1).float() for p in parameters(model).values()])


def check_layout(expected: Layout, got: Layout, what: str) -> None:
    """ValueError naming the first tensor that differs."""
    ours, theirs = (list(zip(layout.names, layout.shapes, strict=True)) for layout in (expected, got))
    for index in range(max(len(ours), len(theirs))):
        here, there = (tensors[index] if index < len(tensors) else None for tensors in (ours, theirs))
        if here != there:
            wanted, found = ("nothing" if t is None else f"{t[0]} {t[1]}" for t in (here, there))
            raise ValueError(f"{what} must have the layout that CMD was given: expected {wanted}, got {found}")


@contextlib.contextmanager
def swapped(model: nn.Module, theta_N: Tensor | None, buffers: dict[str, Tensor]) -> Iterator[None]:
    """Inside, the model has these weights and buffers; afterwards all that it had before, bit for bit.

    None leaves the weights. Buffers that the block changes, such as BatchNorm's statistics, are restored too.
    """
    live = [p.data for p in parameters(model).values()] + [b.data for b in model.buffers()]
    before = [tensor.clone() for tensor in live]
    try:
        if theta_N is not None:
            offset = 0
            for p in parameters(model).values():
                p.data.copy_(theta_N[offset : offset + p.numel()].view(p.shape))
                offset += p.numel()
        for name, buffer in buffers.items():
            model.get_buffer(name).data.copy_(buffer)
        yield
    finally:
        for tensor, saved in zip(live, before, strict=True):
            tensor.copy_(saved)
