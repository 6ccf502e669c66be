"""BatchNorm's running statistics modelled like weights: the published behaviour of CMD, off by default.

Floating-point buffers stand behind the weights in one vector; integer ones, such as a count of batches, do not. The
references stay weights. In the harness, evaluation then asks for `batchnorm: averaged`.

Shape suffixes: N weights, E weights and buffers, T snapshots, F floating-point values of the buffers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.method import Buffers, Layout, Proposal, Trajectory


def join(theta_N: Tensor, buffers: Buffers) -> Tensor:
    """theta_E: the weights, then the floating-point buffers in the model's order."""
    flat = [b.detach().reshape(-1).to(theta_N) for b in buffers.values() if b.is_floating_point()]
    return torch.cat([theta_N, *flat])


def split(theta_E: Tensor, N: int, like: Buffers) -> Proposal:
    """The inverse of `join`; integer buffers are those of `like`.

    A variance below 0, which a straight line through the past can give, is 0.
    """
    buffers, offset = {}, N
    for name, buffer in like.items():
        if not buffer.is_floating_point():
            buffers[name] = buffer.clone()
            continue
        values = theta_E[offset : offset + buffer.numel()].reshape(buffer.shape).to(buffer, copy=True)
        buffers[name] = values.clamp_(min=0) if name.endswith("running_var") else values
        offset += buffer.numel()
    return Proposal(theta_E[:N].clone(), buffers)


def extended(layout: Layout, buffers: Buffers) -> Layout:
    """The layout of theta_E; ValueError naming a complex buffer, which is no value like a weight."""
    for name, buffer in buffers.items():
        if buffer.is_complex():
            raise ValueError(f"buffer {name} must hold real numbers where model_buffers is true, got {buffer.dtype}")
    floating = {name: tuple(b.shape) for name, b in buffers.items() if b.is_floating_point()}
    return Layout((*layout.names, *floating), (*layout.shapes, *floating.values()))


def buffers_over_time(trajectory: Trajectory) -> Tensor:
    """The floating-point buffers of every snapshot, (T, F)."""
    snapshots = (trajectory[index] for index in range(len(trajectory)))
    return torch.stack([join(snapshot.theta_N[:0], snapshot.buffers) for snapshot in snapshots])
