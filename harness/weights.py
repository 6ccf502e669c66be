"""Weights put into a model, for good or for a while, and BatchNorm's statistics made to fit them.

This module needs torch and numpy alone, as `harness.snapshots` does, where weights are taken out of a model.

Shape suffix: N trainable weights, in the order of `harness.snapshots`.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.snapshots import layout_of, tensors_of, trainable


@torch.no_grad()
def load_weights(model: nn.Module, theta_N: Tensor | NDArray[np.generic]) -> None:
    """Copy theta_N, real numbers of shape (N,), into the model's trainable weights, in their own types and on their own
    devices: the inverse of `weights_of`.

    Buffers stay as they are; weights that were not trained have no running statistics of their own (`recalibrate`).
    ValueError where theta_N does not fit the model.
    """
    layout = layout_of(model)
    given_N = torch.as_tensor(theta_N)
    if given_N.shape != (layout.N,):
        raise ValueError(f"theta_N must have shape ({layout.N},), as the model's weights, got {tuple(given_N.shape)}")
    if not given_N.is_floating_point():
        raise ValueError(f"theta_N must be floating-point numbers, got {given_N.dtype}")
    for parameter, part in zip(trainable(model).values(), tensors_of(given_N.contiguous(), layout), strict=True):
        parameter.data.copy_(part)


@contextlib.contextmanager
def kept(model: nn.Module) -> Iterator[None]:
    """For a block that changes trainable weights and buffers of a model: afterwards these are what they were, bit for
    bit, also after an error."""
    weights = [(parameter, parameter.data, parameter.data.clone()) for parameter in trainable(model).values()]
    buffers = [
        (module, name, buffer, buffer.data.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, data, before in weights:
                parameter.data = data
                data.copy_(before)
            for module, name, buffer, before in buffers:
                module._buffers[name] = buffer
                buffer.data.copy_(before)


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """For evaluation amid training: afterwards the random streams of torch, on the CPU and the model's device, of NumPy
    and of Python are what they were, and so is whether each module trains or evaluates, also after an error.

    A DataLoader draws from torch's stream whenever it is begun: without this a second evaluation changes training.
    """
    modes = {module: module.training for module in model.modules()}
    streams = random_streams(model)
    try:
        yield
    finally:
        streams()
        for module, mode in modes.items():
            module.training = mode


def random_streams(model: nn.Module) -> Callable[[], None]:
    """A function that sets the random streams of `undisturbed` to what they are now."""
    devices = {parameter.device for parameter in model.parameters()} - {torch.device("cpu"), torch.device("meta")}
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    others = [(getattr(torch, device.type), device) for device in sorted(devices, key=str)]
    states = [(module, device, module.get_rng_state(device)) for module, device in others]

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        for module, device, state in states:
            module.set_rng_state(state, device)

    return restore


def recalibrate(
    model: nn.Module, loader: Iterable[Any], forward: Callable[[nn.Module, Any], object] | None = None
) -> None:
    """Set the running statistics of the model's norms to the average over the batches of `loader`, as evaluation of
    weights that were not trained needs it. Every image weighs alike, and dropout is off.

    A batch is a tensor, a tuple or list that begins with one, or a mapping of the model's arguments, and is moved to
    the model's device; `forward(model, batch)` passes others through the model. Batches should be training data without
    augmentation, of 2 and more. A model without running statistics is left alone. Random streams and the modes of
    modules are afterwards what they were. ValueError where the loader gives no batch; statistics are then, and after
    any other error, what they were.
    """
    norms = [norm for norm in model.modules() if hasattr(norm, "momentum") and _variance(norm) is not None]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    before = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
    seen = dict.fromkeys(norms, 0)

    def weigh(norm: Any, given: tuple[Tensor, ...]) -> None:
        seen[norm] += len(given[0])
        norm.momentum = len(given[0]) / seen[norm]

    hooks = [norm.register_forward_pre_hook(weigh) for norm in norms]
    try:
        with undisturbed(model), torch.no_grad():
            model.eval()
            for norm in norms:
                _reset(norm)
                norm.train()
            batches = 0
            for batches, batch in enumerate(loader, 1):  # noqa: B007  counted
                (_forward if forward is None else forward)(model, batch)
        if batches == 0:
            raise ValueError("loader must give at least 1 batch, got 0")
    except BaseException:
        with torch.no_grad():
            for buffer, saved in before:
                buffer.copy_(saved)
        raise
    finally:
        for hook, norm, momentum in zip(hooks, norms, momenta, strict=True):
            hook.remove()
            norm.momentum = momentum


def _variance(norm: nn.Module) -> Tensor | None:
    """Running variances, which torch's norms and timm's EvoNorm-B have; None where none are kept."""
    found = getattr(norm, "running_var", None)
    return found if isinstance(found, Tensor) else None


def _reset(norm: Any) -> None:
    """Running statistics as a fresh norm has them."""
    if hasattr(norm, "reset_running_stats"):
        norm.reset_running_stats()
    else:
        norm.running_var.fill_(1)


def _forward(model: nn.Module, batch: Any) -> None:
    device = next(model.parameters()).device
    if isinstance(batch, Mapping):
        model(**{name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()})
        return
    images_B = batch[0] if isinstance(batch, tuple | list) else batch
    model(images_B.to(device))
