"""The images of a data set's fixed train/validation/test split, and of the probe where one is carved.

Shape suffixes: B images of a set.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from harness.config import ConfigError, DatasetConfig, check_choice
from harness.problem.datasets import Sizes, check_sizes
from harness.problem.images import Images, ImageSet
from harness.problem.sources import find_source, streamed
from harness.randomness import generator

RESIZE_IMAGES = 1024
"""images interpolated at once: bounds the float32 copy"""


def _split_indices(config: DatasetConfig, split: str) -> Tensor:
    """Indices into the source's test part, or into its training part for `train`, `val` and `probe`.

    Validation comes first in its permutation, or in the order of a source that has one of its own, so that
    `train_size` does not move it, and the probe after what is trained on, so that it moves neither.
    """
    sizes = check_sizes(config)
    train_total, test_total = find_source(config).totals(config)
    if split == "test":
        return torch.randperm(test_total, generator=generator(config.split_seed, "split/test"))[: sizes.test]
    source = find_source(config)
    if streamed(source) and source.ordered(config):
        order = torch.arange(train_total)
    else:
        order = torch.randperm(train_total, generator=generator(config.split_seed, "split"))
    if split == "val":
        return order[: sizes.val]
    trained = sizes.val + sizes.train
    return order[sizes.val : trained] if split == "train" else order[trained : trained + sizes.probe]


def _noisy_labels(config: DatasetConfig, index_B: Tensor, labels_B: Tensor) -> Tensor:
    """The labels, a share `label_noise` of them another class's, each of the others equally likely (symmetric noise).

    Whether an image of the training part is among them, and what it is called then, follows from `split_seed` and its
    place in that part: the images of a smaller share are among those of a larger one.
    """
    total, _ = find_source(config).totals(config)
    draws = generator(config.split_seed, "label_noise")
    wrong_B = torch.rand(total, generator=draws)[index_B] < config.label_noise
    shift_B = torch.randint(1, config.classes, (total,), generator=draws)[index_B] if config.classes > 1 else 0
    return torch.where(wrong_B, (labels_B + shift_B) % config.classes, labels_B)


def _resize(images_B: Tensor, size: int) -> Tensor:
    """Bilinear, anti-aliased where it shrinks; uint8 again."""
    return torch.cat(
        [
            interpolate(chunk.float(), (size, size), mode="bilinear", antialias=True)
            .round()
            .clamp(0, 255)
            .to(torch.uint8)
            for chunk in torch.split(images_B, RESIZE_IMAGES)
        ]
    )


def _check_declared(config: DatasetConfig, part: str, images: ImageSet) -> None:
    """ConfigError where images or labels are not what the configuration declares."""
    key = f"dataset.{config.name}"
    declared = (find_source(config).totals(config)[part == "test"], config.channels, config.size, config.size)
    if tuple(images.images_B.shape) != declared:
        raise ConfigError(f"{key} must hold images of shape {declared}, got {tuple(images.images_B.shape)}")
    highest = int(images.labels_B.max())
    if highest >= config.classes:
        raise ConfigError(f"{key}.classes must be at least {highest + 1}, got {config.classes}")


def load_split(config: DatasetConfig, split: str) -> Images:
    """The `train`, `val`, `test` or `probe` split on the CPU; ConfigError where the data is absent or not as declared.

    A seeded permutation of the source's training part gives validation, training and probe images; its test part
    is used whole, or as a fixed subset of `test_size` images. Labels of the training and probe images are noisy where
    `label_noise` says so, others never. Images in memory that are to shrink are resized here,
    those that are to grow batch by batch.
    """
    check_choice("split", split, Sizes._fields)
    part = "test" if split == "test" else "train"
    source = find_source(config)
    files = source.find(config)
    if files is None:
        raise ConfigError(f"dataset.{config.name} must be obtained before it is read, got no files")
    images = source.open(config, files, part)
    if isinstance(images, ImageSet):
        _check_declared(config, part, images)
    index_B = _split_indices(config, split)
    images = images.subset(index_B)
    if config.label_noise > 0 and split in ("train", "probe"):
        images = images.labelled(_noisy_labels(config, index_B, images.labels_B))
    if isinstance(images, ImageSet) and config.resize is not None and config.resize < config.size:
        return replace(images, images_B=_resize(images.images_B, config.resize))
    if isinstance(images, ImageSet) and config.resize is not None and config.resize > config.size:
        return replace(images, enlarge=config.resize)
    return images
