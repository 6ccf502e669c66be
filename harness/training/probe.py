"""The probe: images by whose loss methods choose between weights, never those that results are reported on.

A fixed slice of the training split, or the images that `dataset.probe_size` carves from it and nothing is trained on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from harness.config import BaseConfig
from harness.problem.images import Images
from harness.problem.running_norms import running_norms
from harness.problem.splits import load_split
from harness.randomness import generator

PROBE_IMAGES = 512
"""of the slice of the training split, and evaluated at once"""


def probe_images(base: BaseConfig, train: Images, device: torch.device) -> Images:
    """The images of a base's probe; `train` is its training split on `device`."""
    if base.dataset.probe_size is not None:
        return load_split(base.dataset, "probe").to(device)
    order = torch.randperm(len(train), generator=generator(base.dataset.split_seed, "probe"))
    return train.subset(order[:PROBE_IMAGES])


def mean_loss(
    model: nn.Module, logits: Callable[[Tensor], Tensor], probe: Images, memory_format: torch.memory_format
) -> float:
    """Mean cross-entropy of float32 `logits`, which call `model`: dropout off, norms with statistics of the batch.

    Leaves the model in that mode, and its running statistics changed.
    """
    model.eval()
    for norm in running_norms(model):
        norm.train()
    total = 0.0
    with torch.no_grad():
        for batch, labels in probe.batches(PROBE_IMAGES, memory_format):
            total += cross_entropy(logits(batch), labels, reduction="sum").item()
    return total / len(probe)
