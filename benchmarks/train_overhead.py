"""Images per second of the harness's loop against a minimal hand-written PyTorch loop, side by side in one run.

Same timm model, images in memory, batch size, optimizer and thread count; the two take turns, epoch by epoch, and the
medians are compared. The hand-written loop shuffles, normalises and steps, and does nothing else. The harness is run
without augmentation (like for like), and with crop and flip to show what they cost.

    python benchmarks/train_overhead.py [--model test_resnet] [--rounds 7] [--threads 1]
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time

import timm
import torch
from torch.nn.functional import cross_entropy

from harness.compose import Request
from harness.config import BaseConfig
from harness.problem.images import ImageSet
from harness.resolve import resolve
from harness.train import Trainer

IMAGES = 3840


def synthetic(dataset_mean: float, dataset_std: float, padding: int, flip: bool) -> ImageSet:
    """Random images of Fashion-MNIST's shape: content does not change the cost of a step."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 1, 28, 28), dtype=torch.uint8, generator=draw)
    labels = torch.randint(0, 10, (IMAGES,), generator=draw)
    return ImageSet(images, labels, (dataset_mean,), (dataset_std,), padding, flip)


class HandWritten:
    """What one writes without a harness."""

    def __init__(self, base: BaseConfig, images: ImageSet) -> None:
        torch.manual_seed(0)
        self.model = timm.create_model(base.model.timm, in_chans=1, num_classes=10, **image_arguments(base))
        self.model = self.model.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.images, self.labels = images.images_B, images.labels_B
        self.mean, self.std = images.mean[0], images.std[0]
        self.batch = base.batch_size

    def epoch(self) -> None:
        self.model.train()
        order = torch.randperm(len(self.images))
        for start in range(0, len(order) - self.batch + 1, self.batch):
            index = order[start : start + self.batch]
            x = (self.images[index].float() / 255 - self.mean) / self.std
            x = x.contiguous(memory_format=torch.channels_last)
            self.optimizer.zero_grad()
            loss = cross_entropy(self.model(x), self.labels[index])
            loss.backward()
            self.optimizer.step()


def image_arguments(base: BaseConfig) -> dict[str, int]:
    """What a ViT needs to know of the images."""
    patch = base.model.patch_size
    return {} if patch is None else {"img_size": 28, "patch_size": patch}


def seconds(epoch: object) -> float:
    began = time.perf_counter()
    epoch()  # type: ignore[operator]
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="test_resnet")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    overrides = (f"model={arguments.model}", "dataset=fashion_mnist", "device=cpu", "method=base")
    base = resolve(Request(overrides), "benchmark").bases[0][0]
    plain, augmented = (synthetic(0.286, 0.353, padding, flip) for padding, flip in ((0, False), (2, True)))
    contenders = {
        "hand-written": HandWritten(base, plain).epoch,
        "harness": Trainer(dataclasses.replace(base, epochs=1000), plain, torch.device("cpu")).train_epoch,
        "harness, crop and flip": Trainer(base, augmented, torch.device("cpu")).train_epoch,
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(arguments.rounds + 1):
        for name, epoch in contenders.items():
            taken = seconds(epoch)
            if round_ > 0:
                times[name].append(taken)
    steps = IMAGES // base.batch_size * base.batch_size
    reference = statistics.median(times["hand-written"])
    print(f"{arguments.model}, batch {base.batch_size}, {arguments.threads} threads, {arguments.rounds} rounds")
    for name, taken in times.items():
        median = statistics.median(taken)
        paired = statistics.median(a / b for a, b in zip(times["hand-written"], taken, strict=True))
        print(
            f"{name:24s} {steps / median:8.0f} images/s   ratio {reference / median:.3f}   paired by round {paired:.3f}"
        )


if __name__ == "__main__":
    main()
