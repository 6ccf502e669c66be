"""Models as training libraries wrap them: the model inside, whether its parameters are whole, which process it is."""

from __future__ import annotations

import sys

import torch
from torch import nn

from harness.method import Layout


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch's wrappers for compilation and data parallelism, under whose names weights are known."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def sharding(model: nn.Module) -> str | None:
    """What keeps this process from seeing the model's parameters whole, `DTensor` say; None where nothing does."""
    for parameter in model.parameters():
        if hasattr(parameter, "device_mesh"):
            return "DTensor"
        if hasattr(parameter, "ds_id"):
            return "DeepSpeed ZeRO-3"
    fsdp = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", None)
    if fsdp is not None and any(isinstance(module, fsdp) for module in model.modules()):
        return "FSDP"
    return None


def check_whole(model: nn.Module) -> None:
    """ValueError where parameters are sharded over processes."""
    kind = sharding(model)
    if kind is not None:
        raise ValueError(
            f"model must have whole parameters, got sharded ones ({kind}): SnapshotCallback of harness.live.lightning "
            "or harness.live.trainer records such a training by its trainer's own checkpoints"
        )


def is_main_process() -> bool:
    """Whether this is the one process, or the first of several, that writes files."""
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def check_layout(expected: Layout, got: Layout, what: str) -> None:
    """ValueError naming the first tensor of `what` that differs from what is expected."""
    ours, theirs = (list(zip(layout.names, layout.shapes, strict=True)) for layout in (expected, got))
    for index in range(max(len(ours), len(theirs))):
        here, there = (tensors[index] if index < len(tensors) else None for tensors in (ours, theirs))
        if here != there:
            said = ["nothing more" if one is None else f"{one[0]} of shape {one[1]}" for one in (here, there)]
            raise ValueError(f"{what} must have {said[0]}, got {said[1]}")
