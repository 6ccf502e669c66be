"""Images per second of the harness's loop against two loops written by hand, side by side in one run.

`minimal`: tensors in memory, shuffled, normalised and stepped, and nothing else; the harness without augmentation is
compared with it (a). `DataLoader`: torchvision's FashionMNIST with ToTensor, Normalize, random crop and flip behind a
DataLoader; the harness with the same augmentation is compared with it (b). Same timm model, batch size, optimizer and
thread count. Loops take turns, epoch by epoch; medians are compared, and the medians of ratios within a round. Images
are random pixels in Fashion-MNIST's files: content does not change the cost of a step.

    python benchmarks/train_overhead.py [--models test_resnet test_vit] [--device cpu] [--threads 2] [--rounds 7]
        [--loader-workers 0] [--harness precision=bfloat16 compile=true deterministic=false]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from harness.config import BaseConfig
from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.problem.images import ImageSet
from harness.problem.models import build_model
from harness.training.loop import Trainer, set_determinism

PADDING = 2
Epoch = Callable[[], object]


def synthetic(base: BaseConfig, images: int) -> ImageSet:
    """Random images of Fashion-MNIST's shape."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 1, 28, 28), dtype=torch.uint8, generator=draw)
    labels = torch.randint(0, 10, (images,), generator=draw)
    return ImageSet(pixels, labels, tuple(base.dataset.mean), tuple(base.dataset.std))


def write_idx(folder: Path, images: ImageSet) -> None:
    """The images as the files that torchvision's FashionMNIST reads."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    arrays = {"images-idx3": images.images_B[:, 0].numpy(), "labels-idx1": images.labels_B.to(torch.uint8).numpy()}
    for part in ("train", "t10k"):
        for name, array in arrays.items():
            header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (raw / f"{part}-{name}-ubyte").write_bytes(header + array.tobytes())


class Loop:
    """A model and its optimizer in a loop as one writes it without a harness, in the precision that a base asks for."""

    def __init__(self, base: BaseConfig, device: torch.device, memory_format: torch.memory_format) -> None:
        model = build_model(base.model, base.dataset, 0).to(device)
        self.model = model.to(memory_format=memory_format)  # type: ignore[call-overload]
        self.forward = torch.compile(self.model) if base.compile else self.model
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.device = device
        self.bfloat16 = base.precision == "bfloat16"

    def train(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        self.model.train()
        for x, y in batches:
            x, y = x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)
            self.optimizer.zero_grad()
            with torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else contextlib.nullcontext():
                loss = cross_entropy(self.forward(x), y)
            loss.backward()
            self.optimizer.step()


def minimal(base: BaseConfig, images: ImageSet, device: torch.device) -> Epoch:
    """Tensors in memory, already of the size that is trained on, channels last."""
    loop = Loop(base, device, torch.channels_last)
    pixels, labels, batch = images.images_B, images.labels_B.to(device), base.batch_size
    if images.enlarge is not None:
        pixels = interpolate(pixels.float(), (images.enlarge, images.enlarge), mode="bilinear").to(torch.uint8)
    pixels = pixels.to(device)
    mean, std = images.mean[0], images.std[0]

    def batches() -> Iterable[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(pixels)).to(device)
        for start in range(0, len(order) - batch + 1, batch):
            index = order[start : start + batch]
            x = (pixels[index].float() / 255 - mean) / std
            yield x.contiguous(memory_format=torch.channels_last), labels[index]

    return lambda: loop.train(batches())


def usual(base: BaseConfig, folder: Path, device: torch.device, workers: int, images: int) -> Epoch:
    """torchvision's data set, the first so many images of it, transforms and DataLoader."""
    size = base.dataset.image_size
    steps = [
        *([transforms.Resize(size)] if size != base.dataset.size else []),
        transforms.RandomCrop(size, PADDING),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(tuple(base.dataset.mean), tuple(base.dataset.std)),
    ]
    files = datasets.FashionMNIST(str(folder), train=True, transform=transforms.Compose(steps))
    loader = DataLoader(
        Subset(files, range(images)),
        base.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
    )
    loop = Loop(base, device, torch.contiguous_format)
    return lambda: loop.train(loader)


def seconds(epoch: Epoch, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    epoch()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def in_turns(
    contenders: dict[str, Epoch], device: torch.device, rounds: int, go_on: Callable[[], bool] = lambda: True
) -> dict[str, list[float]]:
    """Seconds of an epoch of each contender in each round, which take turns; at least one round, and no more than those
    before which `go_on` holds. An epoch before them warms up."""
    times: dict[str, list[float]] = {contender: [] for contender in contenders}
    for round_ in range(rounds + 1):
        if round_ > 1 and not go_on():
            break
        for contender, epoch in contenders.items():
            taken = seconds(epoch, device)
            if round_ > 0:
                times[contender].append(taken)
    return times


def ratio(times: dict[str, list[float]], ours: str, theirs: str) -> tuple[float, float]:
    """How many times as fast one contender is as another: of the medians, and the median of those within a round."""
    of_medians = statistics.median(times[theirs]) / statistics.median(times[ours])
    return of_medians, statistics.median(b / a for a, b in zip(times[ours], times[theirs], strict=True))


def compare(name: str, arguments: argparse.Namespace) -> None:
    """Print the speeds of one model, and the two ratios."""
    device = torch.device(arguments.device)
    overrides = (f"model={name}", "dataset=fashion_mnist", f"device={device}", "method=base", "epochs=1000")
    base = resolve(Request((*overrides, *arguments.harness)), "benchmark").bases[0][0]
    set_determinism(base)
    images = synthetic(base, arguments.images)
    plain, augmented = images.to(device), dataclasses.replace(images, crop_padding=PADDING, flip=True).to(device)
    other = dataclasses.replace(base, memory_format="contiguous")
    by_hand = dataclasses.replace(base, precision="float32", compile=False)
    with tempfile.TemporaryDirectory() as folder:
        write_idx(Path(folder), images)
        contenders: dict[str, Epoch] = {
            "minimal": minimal(by_hand, images, device),
            "harness": Trainer(base, plain, device).train_epoch,
            "DataLoader": usual(by_hand, Path(folder), device, arguments.loader_workers, arguments.images),
            "harness, augmented": Trainer(base, augmented, device).train_epoch,
            "harness, contiguous": Trainer(other, plain, device).train_epoch,
        }
        times = in_turns(contenders, device, arguments.rounds)
    trained = arguments.images // base.batch_size * base.batch_size
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {arguments.threads} threads"
    print(f"{name}, {where}, batch {base.batch_size}, {arguments.rounds} rounds {' '.join(arguments.harness)}".rstrip())
    for contender, taken_R in times.items():
        print(f"  {contender:20s} {trained / statistics.median(taken_R):9,.0f} images/s")
    pairs = (
        ("(a) against minimal", "harness", "minimal"),
        ("(b) against DataLoader", "harness, augmented", "DataLoader"),
        ("channels last against contiguous", "harness", "harness, contiguous"),
    )
    for label, ours, theirs in pairs:
        of_medians, paired = ratio(times, ours, theirs)
        print(f"  {label:34s} {of_medians:.2f}   within a round {paired:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["test_resnet", "test_vit"])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=3840, help="a multiple of the batch size, as a small epoch")
    parser.add_argument("--threads", type=int, default=2, help="of torch; the harness's default is 1 for each job")
    parser.add_argument("--loader-workers", type=int, default=0, help="processes of the DataLoader")
    parser.add_argument("--harness", nargs="*", default=[], help="overrides for the harness's loop alone")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.models:
        compare(name, arguments)


if __name__ == "__main__":
    main()
