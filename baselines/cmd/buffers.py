"""BatchNorm's running statistics modelled like weights: the published behaviour of CMD, off by default.

Floating-point buffers stand behind the weights, in one vector; integer ones, such as a count of batches, do not. The
references stay weights. Evaluation asks for `batchnorm: averaged`.

Shape suffixes: N weights, E weights and buffers, T snapshots, B a block of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from harness.method import Buffers, Layout, Proposal, Snapshot, Trajectory


def join(theta_N: Tensor, buffers: Buffers) -> Tensor:
    """theta_E: weights, then floating-point buffers in the model's order."""
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
    """The layout of theta_E."""
    floating = {name: tuple(b.shape) for name, b in buffers.items() if b.is_floating_point()}
    return Layout((*layout.names, *floating), (*layout.shapes, *floating.values()))


class WithBuffers:
    """A trajectory of theta_E: the blocks of the weights, then one of the buffers."""

    def __init__(self, trajectory: Trajectory) -> None:
        self._trajectory = trajectory

    def __len__(self) -> int:
        return len(self._trajectory)

    @property
    def ts(self) -> tuple[int, ...]:
        return self._trajectory.ts

    def __getitem__(self, index: int) -> Snapshot:
        snapshot = self._trajectory[index]
        return replace(snapshot, theta_N=join(snapshot.theta_N, snapshot.buffers))

    def window(self, first: int, last: int) -> WithBuffers:
        return WithBuffers(self._trajectory.window(first, last))

    def blocks(self, max_bytes: int) -> Iterator[tuple[int, int, Tensor]]:
        stop = 0
        for start, stop, W_TB in self._trajectory.blocks(max_bytes):
            yield start, stop, W_TB
        snapshots = (self._trajectory[index] for index in range(len(self)))
        W_TB = torch.stack([join(snapshot.theta_N[:0], snapshot.buffers) for snapshot in snapshots])
        if W_TB.shape[1] > 0:
            yield stop, stop + W_TB.shape[1], W_TB
