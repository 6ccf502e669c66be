"""timm models, fitted to a data set: channels, classes and image size follow from it where the model takes them.

A model is tried on torch's meta device, where nothing is computed, before anything trains: that finds its size
and every refused parameter or image size.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from timm.layers.patch_embed import PatchEmbed
from timm.models.resnet import ResNet
from torch import nn

from harness.config import ConfigError, DatasetConfig, ModelConfig, nearest
from harness.problem import paper_models as paper_models  # registers its models with timm
from harness.problem.folders import quiet_download
from harness.randomness import derive
from harness.validation import reason, reason_of_kind

CANDIDATE_SIZES = (28, 32, 64, 96, 128, 160, 192, 224, 256, 288, 384)
"""image sizes that an error may recommend"""


def timm_names() -> list[str]:
    """timm's models, without the tags of their weights."""
    return list(timm.list_models())


def is_timm_model(name: str) -> bool:
    """Whether timm knows `name`, which may end in the tag of pretrained weights, as in `resnet18.a1_in1k`."""
    if not timm.is_model(name):
        return False
    return "." not in name or timm.models.is_model_pretrained(name)


def check_name(config: ModelConfig) -> None:
    """ConfigError where timm does not know the model."""
    if not is_timm_model(config.timm):
        known = timm_names()
        if timm.is_model(config.timm):
            known = list(timm.list_models(config.timm.split(".")[0], pretrained=True))
        raise ConfigError(
            f"model.{config.name}.timm must be a timm model, got {config.timm!r}{nearest(config.timm, known)}"
        )


def _arguments(config: ModelConfig, dataset: DatasetConfig) -> dict[str, Any]:
    """Keyword arguments for timm, without the image size."""
    key = f"model.{config.name}"
    given = {"in_chans": config.in_chans, "patch_size": config.patch_size, "drop_rate": config.drop_rate}
    for name in ("img_size", "num_classes", "pretrained", *given):
        if name in config.kwargs:
            instead = f"set by {key}.{'head_classes' if name == 'num_classes' else name}"
            raise ConfigError(f"{key}.kwargs must not hold {name} ({instead}), got {config.kwargs[name]!r}")
    if config.in_chans is not None and config.in_chans != dataset.channels:
        raise ConfigError(
            f"{key}.in_chans must be {dataset.channels} for dataset {dataset.name}, got {config.in_chans}"
        )
    arguments = {k: v for k, v in given.items() if v is not None}
    return {**arguments, "in_chans": dataset.channels, "num_classes": _outputs(config, dataset), **config.kwargs}


def _outputs(config: ModelConfig, dataset: DatasetConfig) -> int:
    """The scores that the model gives an image: one a class, or more where the head is to be wider."""
    if config.head_classes is None:
        return dataset.classes
    if config.head_classes < dataset.classes:
        raise ConfigError(
            f"model.{config.name}.head_classes must be at least {dataset.classes}, the classes of {dataset.name}, "
            f"got {config.head_classes}"
        )
    return config.head_classes


def _refused_argument(error: TypeError) -> str | None:
    """The argument that a call did not take, in Python's words or in those of some timm classes."""
    match = re.search(r"unexpected keyword argument(?:\(s\): \[| )'(\w+)'", str(error))
    return None if match is None else match.group(1)


@functools.cache
def _takes_img_size(name: str) -> bool:
    """Whether a timm model takes `img_size`; found by trying, since constructors pass keyword arguments on."""
    try:
        # forked, so that no model's first weights depend on whether the answer was known before
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            timm.create_model(name, img_size=224)
    except TypeError as error:
        return _refused_argument(error) != "img_size"
    except Exception:
        return True  # taken, and this size refused
    return True


def _create(config: ModelConfig, dataset: DatasetConfig, pretrained: bool) -> nn.Module:
    """The model, on the default device; ConfigError where a parameter is unknown, else timm's own exceptions."""
    key = f"model.{config.name}"
    arguments = _arguments(config, dataset)
    if config.img_size is not None:
        arguments["img_size"] = config.img_size
    elif _takes_img_size(config.timm):
        arguments["img_size"] = dataset.image_size
    if isinstance(config.pretrained, str):
        arguments["pretrained_cfg_overlay"] = {"file": config.pretrained}
    elif pretrained and (kept := _kept_weights(config)) is not None:
        arguments["pretrained_cfg_overlay"] = {"file": kept, "custom_load": False}
    try:
        model: nn.Module = timm.create_model(config.timm, pretrained=pretrained, **arguments)
    except TypeError as error:
        name = _refused_argument(error)
        if name is None:
            raise
        where = f"kwargs.{name}" if name in config.kwargs else name
        raise ConfigError(
            f"{key}.{where} must be left out: {config.timm} does not take it, got {arguments[name]!r}"
        ) from error
    if config.stem == "small":
        _make_stem_small(model, config, dataset)
    return model


def _make_stem_small(model: nn.Module, config: ModelConfig, dataset: DatasetConfig) -> None:
    """A 3x3 stride-1 first convolution and no max-pooling, as for CIFAR (He et al. 2016, section 4.2).

    The new convolution starts random, also in a pretrained model.
    """
    if not isinstance(model, ResNet):
        raise ConfigError(
            f"model.{config.name}.stem must be default for {config.timm}, which is no timm ResNet, got small"
        )
    # a deep stem is a sequence of convolutions: its last one says how wide the first stage expects its input
    width = [m for m in model.conv1.modules() if isinstance(m, nn.Conv2d)][-1].out_channels
    conv = nn.Conv2d(dataset.channels, width, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    model.add_module("conv1", conv)
    model.add_module("maxpool", nn.Identity())


def _kept_weights(config: ModelConfig) -> str | None:
    """The file of timm's weights that the hub's client keeps, if it does: read from there, they need no network."""
    weights = timm.models.get_pretrained_cfg(config.timm)
    if weights is None or str(weights.custom_load) == "hf" or not weights.hf_hub_id or "@" in weights.hf_hub_id:
        return None
    names = [weights.hf_hub_filename] if weights.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    found = (try_to_load_from_cache(weights.hf_hub_id, name) for name in names)
    return next((path for path in found if isinstance(path, str)), None)


def obtain_weights(config: ModelConfig, dataset: DatasetConfig) -> None:
    """Fetch a model's pretrained weights, unless they are kept already; ConfigError where they do not load."""
    with quiet_download():
        build_model(config, dataset, 0)


def build_model(config: ModelConfig, dataset: DatasetConfig, seed: int) -> nn.Module:
    """The model on the CPU, its initial weights from `seed` alone; the global random state stays as it was.

    Raises ConfigError where pretrained weights cannot be had.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "init"))
        if config.pretrained is False:
            return _create(config, dataset, pretrained=False)
        try:
            return _create(config, dataset, pretrained=True)
        except ConfigError:
            raise
        except Exception as error:  # whatever a hub client, a file format or a mismatch raises
            own = "" if isinstance(config.pretrained, str) else " (the path of a file of them needs no network)"
            raise ConfigError(
                f"model.{config.name}.pretrained must name weights that load{own}, got {config.pretrained!r}: "
                f"{reason(error)[:200]}"
            ) from error


def _check_pretrained(config: ModelConfig) -> None:
    """ConfigError where pretrained weights are asked for and there are none."""
    key = f"model.{config.name}.pretrained"
    if isinstance(config.pretrained, str):
        if not Path(config.pretrained).is_file():
            raise ConfigError(f"{key} must be true, false or the path of a weights file, got {config.pretrained!r}")
    elif config.pretrained and not timm.models.is_model_pretrained(config.timm):
        raise ConfigError(f"{key} must be false or a path for {config.timm}, of which timm has no weights, got true")


def on_meta(config: ModelConfig, dataset: DatasetConfig) -> nn.Module:
    """A model in training mode on the meta device, where it has shapes and no values."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _create(config, dataset, pretrained=False).train()


def _try_on_meta(config: ModelConfig, dataset: DatasetConfig) -> nn.Module:
    """The model on the meta device after one training forward of two images; whatever it raises says why not."""
    size = dataset.image_size
    model = on_meta(config, dataset)
    embed = getattr(model, "patch_embed", None)
    # timm lets some models drop the rows and columns that a patch does not fill: here they are refused
    if isinstance(embed, PatchEmbed) and not embed.dynamic_img_pad and any(size % p for p in embed.patch_size):
        raise ValueError(f"image size {size} is not a multiple of patch size {embed.patch_size[0]}")
    scores = scores_on_meta(model, dataset, 2)
    outputs = _outputs(config, dataset)
    if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != (2, outputs):
        shape = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ConfigError(
            f"model.{config.name}.timm must give scores of shape (2, {outputs}) for two images, got {shape}"
        )
    return model


def scores_on_meta(model: nn.Module, dataset: DatasetConfig, images: int) -> Any:
    """What a model on the meta device gives for so many images, in its present mode."""
    size = dataset.image_size
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return model(torch.empty(images, dataset.channels, size, size))


def takes_one(model: nn.Module, dataset: DatasetConfig) -> bool:
    """Whether a model on the meta device that takes two images takes a single one, in its present mode."""
    try:
        return len(scores_on_meta(model, dataset, 1)) == 1
    except Exception:  # of whatever kind: norms raise ValueError or ZeroDivisionError
        return False


def _fits(config: ModelConfig, dataset: DatasetConfig) -> bool:
    with contextlib.suppress(Exception):
        _try_on_meta(config, dataset)
        return True
    return False


def _fitting(values: Iterable[int], fits: Callable[[int], bool]) -> str:
    return ", ".join(str(v) for v in values if fits(v))


def _refusal(config: ModelConfig, dataset: DatasetConfig, error: Exception) -> ConfigError:
    """One line: what was refused, which keys to set, and which values fit."""
    size, key = dataset.image_size, f"model.{config.name}"
    ways = []
    if config.img_size is not None and _fits(replace(config, img_size=None), dataset):
        ways.append(f"{key}.img_size to {size}")
    divisors = [p for p in range(2, size // 2 + 1) if size % p == 0]
    patches = _fitting(divisors, lambda p: _fits(replace(config, patch_size=p), dataset))
    if patches:
        ways.append(f"{key}.patch_size to one of {patches}")
    sizes = CANDIDATE_SIZES if config.img_size is None else (config.img_size,)
    resized = _fitting(sizes, lambda s: _fits(config, replace(dataset, resize=s)))
    if resized:
        ways.append(f"dataset.{dataset.name}.resize to one of {resized}")
    if not ways:
        return ConfigError(f"{key} cannot be built from timm's {config.timm}: {reason_of_kind(error)[:200]}")
    said = reason(error).rstrip(".")[:160]
    return ConfigError(f"{key} refuses images of {size}x{size} ({said}): set {' or '.join(ways)}")


def tried(config: ModelConfig, dataset: DatasetConfig) -> nn.Module:
    """The model on the meta device, after it has taken two images in training mode.

    Raises ConfigError where a parameter is refused, or the images: then with the keys to set and values that fit.
    """
    check_name(config)
    _check_pretrained(config)
    try:
        return _try_on_meta(config, dataset)
    except ConfigError:
        raise
    except Exception as error:  # models refuse a size with any kind of exception, ZeroDivisionError included
        raise _refusal(config, dataset, error) from error


def weights_digest(config: ModelConfig) -> str:
    """What identifies the pretrained weights of a model: SHA-256 of a file, timm's hub id and tag for its own.

    Never the digest of a downloaded copy, which would change keys when the download happens.
    """
    if not isinstance(config.pretrained, str):
        weights = timm.models.get_pretrained_cfg(config.timm)
        if weights is None:
            raise ConfigError(f"model.{config.name}.pretrained must be false for {config.timm}, got true")
        return f"{weights.architecture}.{weights.tag}@{weights.hf_hub_id or weights.url}"
    path = Path(config.pretrained)
    _check_pretrained(config)
    return _file_digest(path, path.stat().st_mtime_ns)


@functools.lru_cache
def _file_digest(path: Path, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
