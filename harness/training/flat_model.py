"""A model's trainable parameters as one flat vector theta_N, with its buffers kept apart.

Parameters become views into one contiguous float32 vector, so a snapshot is one copy and a step-cadence
observer reads theta_N in place. Convolution weights keep C order; activations still run channels_last where
the images do (measured equal to channels_last weights on test_resnet, 2 cores).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from harness.method import Snapshot
from harness.snapshots import check_float32, layout_of, tensors_of, trainable, weights_of


class FlatModel:
    """A model whose trainable parameters live in `theta_N`, in the layout of `harness.snapshots`.

    ValueError where there is no trainable weight, or a parameter is not float32.
    """

    def __init__(self, model: nn.Module) -> None:
        named = trainable(model)
        check_float32(named)
        self.model = model
        self.layout = layout_of(model)
        self.parameters = list(named.values())
        self.theta_N = weights_of(model)
        for parameter, view in zip(self.parameters, tensors_of(self.theta_N, self.layout), strict=True):
            parameter.data = view
        persistent = model.state_dict().keys()
        self.buffers: dict[str, Tensor] = {n: b for n, b in model.named_buffers() if n in persistent}

    def snapshot(self, t: int, step: int) -> Snapshot:
        """The live state, not a copy."""
        return Snapshot(t, step, self.theta_N, self.buffers)

    def copy_buffers(self) -> dict[str, Tensor]:
        return {name: buffer.clone() for name, buffer in self.buffers.items()}

    def gradient_N(self) -> Tensor:
        """A new vector of the parameters' gradients; zero where a parameter has none."""
        return torch.cat(
            [torch.zeros_like(p).view(-1) if p.grad is None else p.grad.reshape(-1) for p in self.parameters]
        )

    @torch.no_grad()
    def load(self, theta_N: Tensor | None = None, buffers: Mapping[str, Tensor] | None = None) -> None:
        """Copy weights and buffers in; names and sizes must fit."""
        if theta_N is not None:
            if theta_N.shape != self.theta_N.shape:
                raise ValueError(f"theta_N must have {self.layout.N} values, got shape {tuple(theta_N.shape)}")
            self.theta_N.copy_(theta_N)
        if buffers is not None:
            if buffers.keys() != self.buffers.keys():
                raise ValueError(f"buffers must be {sorted(self.buffers)}, got {sorted(buffers)}")
            for name, buffer in self.buffers.items():
                buffer.copy_(buffers[name])
