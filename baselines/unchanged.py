"""A model that is followed in anyone's loop stays as it was: what is trained, and every shape, type and device.

A parameter that is frozen, added or moved half-way would shift the weights of all that follow it in theta_N.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from harness.snapshots import layout_of, trainable


class Unchanged:
    """The trainable parameters of a model as they were when this was made; types and devices as `note` found them."""

    def __init__(self, model: nn.Module) -> None:
        self.layout = layout_of(model)
        self.kinds: list[tuple[torch.dtype, torch.device]] | None = None

    def note(self, model: nn.Module) -> None:
        """From here on types and devices must stay what they are."""
        self.kinds = [(parameter.dtype, parameter.device) for parameter in trainable(model).values()]

    def check(self, model: nn.Module, like: Sequence[nn.Parameter] | None = None) -> None:
        """ValueError naming the first parameter that has changed, or is none of the tensors `like` where given."""
        held = dict(model.named_parameters())
        for name, parameter in held.items():
            if parameter.requires_grad and name not in self.layout.names:
                raise ValueError(f"parameter {name} must not be added or freed half-way, got a trainable one")
        for name in self.layout.names:
            if name not in held:
                raise ValueError(f"parameter {name} must stay in the model, got none of that name")
        found = [held[name] for name in self.layout.names]
        self.check_tensors(found)
        for name, parameter, known in zip(self.layout.names, found, found if like is None else like, strict=True):
            if parameter is not known:
                raise ValueError(f"parameter {name} must stay the same tensor, got another one")

    def check_tensors(self, parameters: Sequence[nn.Parameter]) -> None:
        """As `check`, of the parameters themselves, in the order of the layout."""
        for index, (name, shape, parameter) in enumerate(
            zip(self.layout.names, self.layout.shapes, parameters, strict=True)
        ):
            if not parameter.requires_grad:
                raise ValueError(f"parameter {name} must stay trainable, got requires_grad=False")
            if parameter.shape != shape:
                raise ValueError(f"parameter {name} must stay of shape {shape}, got {tuple(parameter.shape)}")
            if self.kinds is not None and (parameter.dtype, parameter.device) != self.kinds[index]:
                dtype, device = self.kinds[index]
                raise ValueError(
                    f"parameter {name} must stay {dtype} on {device}, got {parameter.dtype} on {parameter.device}"
                )
