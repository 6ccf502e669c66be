"""What planning knows of a model, found on torch's meta device, where nothing is computed, and remembered.

A fact follows from the model's configuration, the shape of its images, the versions of torch and timm and the sources
of the models here; under all of these it is kept in the user's cache, so most commands plan without importing timm.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from harness.config import DatasetConfig, ModelConfig
from harness.packages import installed
from harness.storage.cache import remembered
from harness.storage.keys import source_digest
from harness.validation import validated

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class ModelFacts:
    """The size of a model."""

    N: int
    """trainable weights"""
    buffer_floats: int
    """values in stored buffers"""
    running_stats: bool
    """whether it has running statistics to recalibrate"""
    not_recalibrated: str | None = None
    """the first module with running statistics that cannot be recalibrated, None where there is none"""
    one_trains: bool = True
    """whether it takes a single image in training"""
    one_evaluates: bool = True
    """whether it takes a single image in evaluation"""


@dataclass(frozen=True)
class ImageCost:
    """What one image costs a model."""

    operations: int
    """floating-point operations of a forward pass, counted layer by layer, a multiply-add as two"""
    activation_bytes: int
    """kept in float32 for the backward pass"""
    unreached: int
    """weights of convolutions that meet nothing but padding, and so never have a gradient"""


Fact = TypeVar("Fact", ModelFacts, ImageCost)
Find = Callable[[ModelConfig, DatasetConfig], Fact]
_known: dict[str, Any] = {}


def model_facts(config: ModelConfig, dataset: DatasetConfig) -> ModelFacts:
    """The size of a model; ConfigError where it cannot be built, or refuses the images of the data set."""
    return _remembered(ModelFacts, _measure, config, dataset)


def image_cost(config: ModelConfig, dataset: DatasetConfig) -> ImageCost:
    """Operations and activations of a model for one image of the data set."""
    return _remembered(ImageCost, _count, config, dataset)


def pretrained_digest(config: ModelConfig) -> str | None:
    """What identifies pretrained weights, None without any; ConfigError where there are none to be had."""
    if config.pretrained is False:
        return None
    from harness.problem.models import weights_digest

    return weights_digest(config)


def _remembered(kind: type[Fact], find: Find[Fact], config: ModelConfig, dataset: DatasetConfig) -> Fact:
    """The fact from this process's memory, from the cache, or found and put there; refusals are found each time."""
    images = [dataset.channels, dataset.image_size, dataset.classes]
    follows_from = [kind.__name__, asdict(config), images, *_code()]
    key = hashlib.sha256(json.dumps(follows_from, sort_keys=True, default=str).encode()).hexdigest()
    if key not in _known:
        if config.pretrained is False:
            _known[key] = remembered(
                "model-facts", key, lambda: find(config, dataset), plain=asdict, read=lambda stored: _read(kind, stored)
            )
        else:  # weights may be gone from one command to the next
            _known[key] = find(config, dataset)
    fact = _known[key]
    assert isinstance(fact, kind)
    return fact


@functools.cache
def _code() -> tuple[str, ...]:
    """What identifies the code that builds and measures models."""
    versions = installed("torch"), installed("timm")
    return *versions, *(source_digest(module) for module in ("harness.problem.models", "harness.planning.model_cost"))


def _read(kind: type[Fact], stored: dict[str, Any]) -> Fact:
    fact = kind(**stored)
    for one in fields(kind):
        validated(one.name, get_type_hints(kind)[one.name], getattr(fact, one.name))
    return fact


def _measure(config: ModelConfig, dataset: DatasetConfig) -> ModelFacts:
    from harness.problem.models import scores_on_meta, takes_one, tried
    from harness.problem.running_norms import ChangedBuffers, not_recalibrated, running_norms

    model = tried(config, dataset)
    stored = model.state_dict().keys()
    with ChangedBuffers(model) as changed:  # in a second pass, as the first may fill buffers that follow from shapes
        scores_on_meta(model, dataset, 2)
    return ModelFacts(
        N=sum(p.numel() for p in model.parameters() if p.requires_grad),
        buffer_floats=sum(b.numel() for name, b in model.named_buffers() if name in stored),
        running_stats=bool(running_norms(model)),
        not_recalibrated=not_recalibrated(model, changed),
        one_trains=takes_one(model, dataset),
        one_evaluates=takes_one(model.eval(), dataset),
    )


def _count(config: ModelConfig, dataset: DatasetConfig) -> ImageCost:
    """From one training forward of two images."""
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    from harness.problem.models import on_meta

    kept: dict[int, int] = {}
    count = 2
    model = on_meta(config, dataset)
    unreached: dict[nn.Conv2d, int] = {}
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda m, given: unreached.update({m: _unreached(m, given[0].shape[-2:])}))
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    with torch.random.fork_rng(devices=[]), torch.device("meta"):

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                kept[storage._cdata] = storage.nbytes()
            return tensor

        images_B = torch.empty(count, dataset.channels, dataset.image_size, dataset.image_size)
        with (
            FlopCounterMode(display=False) as counter,
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        ):
            scores = model(images_B)  # noqa: F841  its graph keeps what was noted alive, so that no address comes twice
    return ImageCost(counter.get_total_flops() // count, sum(kept.values()) // count, sum(unreached.values()))


def _unreached(convolution: nn.Conv2d, shape: Sequence[int]) -> int:
    """How many of a convolution's weights never meet an image of this height and width, but its padding alone."""
    if isinstance(convolution.padding, str):  # "same" and "valid" never shift a whole tap outside
        return 0
    met = []
    sizes = zip(
        shape, convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation, strict=True
    )
    for size, kernel, stride, padding, dilation in sizes:
        places = range(0, size + 2 * padding - dilation * (kernel - 1), stride)
        met.append(sum(any(0 <= at + dilation * tap - padding < size for at in places) for tap in range(kernel)))
    taps = convolution.kernel_size[0] * convolution.kernel_size[1]
    return convolution.weight.numel() // taps * (taps - met[0] * met[1])
