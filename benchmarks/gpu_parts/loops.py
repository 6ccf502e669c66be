"""b: images per second of the harness's loop beside two written by hand, and where an epoch's time goes."""

from __future__ import annotations

import dataclasses
import functools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from train_overhead import PADDING, Epoch, in_turns, minimal, ratio, usual

from gpu_parts.findings import Findings, LeftOut
from gpu_parts.machine import Utilisation
from gpu_parts.options import Options
from harness.config import BaseConfig
from harness.method import Batch
from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.problem.images import ImageSet
from harness.problem.splits import load_split
from harness.training.loop import Trainer, set_determinism

OF_MINIMAL, OF_LOADER = 0.97, 5.0
"""the aims: as fast as a loop written by hand but for 3 %, and 5 times as fast as one behind a DataLoader"""
LOADER_WORKERS = 8
SPEEDS = "Images per second, medians of epochs that take turns"
BUSY_SECONDS = 2.5
"""of training in which nvidia-smi is asked how busy the GPU is"""


class Variant(NamedTuple):
    """A way to train: overrides of the harness's, whether TF32 is on, and whether the DataLoader takes part."""

    name: str
    size: int
    overrides: tuple[str, ...] = ()
    tf32: bool = False
    loader: bool = False
    details: bool = False
    """whether utilisation and the parts of a step are measured too"""
    seconds: float = 10.0
    """that it takes about, on a GPU of 2022"""


FASTEST = "deterministic=false"
VARIANTS = (
    Variant("float32", 28, loader=True, details=True, seconds=15),
    Variant("bfloat16, fastest kernels", 28, ("precision=bfloat16", FASTEST), loader=True, details=True, seconds=15),
    Variant("float32, fastest kernels", 28, (FASTEST,)),
    Variant("TF32, fastest kernels", 28, (FASTEST,), tf32=True),
    Variant("bfloat16, compiled, fastest kernels", 28, ("precision=bfloat16", "compile=true", FASTEST), seconds=40),
    Variant("bfloat16", 28, ("precision=bfloat16",)),
    Variant("float32", 32, loader=True, seconds=15),
    Variant("bfloat16, fastest kernels", 32, ("precision=bfloat16", FASTEST), loader=True, seconds=15),
    Variant("float32, compiled", 28, ("compile=true",), seconds=40),
    Variant("TF32, fastest kernels", 32, (FASTEST,), tf32=True),
    Variant("bfloat16, compiled, fastest kernels", 32, ("precision=bfloat16", "compile=true", FASTEST), seconds=40),
)
TINY_VARIANTS = tuple(VARIANTS[number] for number in (0, 1, 3, 6, 8))


class Sizes(NamedTuple):
    """How much is measured."""

    model: str
    images: int
    batch: int
    rounds: int


FULL, TINY = Sizes("resnet18", 12_800, 128, 5), Sizes("test_resnet", 32, 16, 1)


def run(options: Options, findings: Findings) -> None:
    """All variants, in the order of worth."""
    sizes = TINY if options.tiny else FULL
    if options.tiny:
        # a compiler of C++ or Triton would take longer than all else
        torch.compile = functools.partial(torch.compile, backend="aot_eager")  # type: ignore[assignment]
        findings.note("compiled: by aot_eager, which generates no code.")
    if options.device == "cpu":
        torch.set_num_threads(1)
    deterministic = "as `deterministic=true` asks for, the default; fastest kernels: as `deterministic=false` does"
    findings.note(
        f"{sizes.model}, batches of {sizes.batch}, epochs of {sizes.images:,} images, channels last. Kernels repeat "
        f"themselves, {deterministic}. All loops have the same switches, precision and compiler. minimal: tensors on "
        f"the device, no augmentation; DataLoader: torchvision's data set, crop and flip, {_workers(options)} workers. "
        f"Aims: {OF_MINIMAL:g} of minimal, {OF_LOADER:g} times the DataLoader. TF32 is off unless it is named."
    )
    for variant in TINY_VARIANTS if options.tiny else VARIANTS:
        with findings.piece(f"{variant.name}, {variant.size} pixels"):
            findings.deadline.need(0.0 if options.tiny else variant.seconds)
            _measure(variant, sizes, options, findings)


def _workers(options: Options) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if options.tiny else min(LOADER_WORKERS, cores)


def _base(variant: Variant, sizes: Sizes, options: Options) -> BaseConfig:
    overrides = (
        *options.overrides,
        f"model={sizes.model}",
        "dataset=fashion_mnist",
        f"dataset.fashion_mnist.resize={variant.size}",
        f"dataset.fashion_mnist.train_size={sizes.images}",
        f"batch_size={sizes.batch}",
        f"device={options.device}",
        "method=base",
        "epochs=1000",
        *variant.overrides,
    )
    return resolve(Request(overrides), "benchmark").bases[0][0]


def _measure(variant: Variant, sizes: Sizes, options: Options, findings: Findings) -> None:
    if options.device == "cpu" and "precision=bfloat16" in variant.overrides:
        raise LeftOut("the harness trains in bfloat16 on a GPU alone")
    device, base = torch.device(options.device), _base(variant, sizes, options)
    set_determinism(base)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = variant.tf32
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    loaded = load_split(base.dataset, "train")
    assert isinstance(loaded, ImageSet)
    images = dataclasses.replace(loaded, crop_padding=0, flip=False)
    augmented = dataclasses.replace(loaded, crop_padding=PADDING, flip=True)
    harness = Trainer(base, images.to(device), device)
    contenders: dict[str, Epoch] = {"minimal": minimal(base, images, device), "harness": harness.train_epoch}
    if variant.loader:
        contenders["DataLoader"] = usual(base, options.root, device, _workers(options), sizes.images)
        contenders["harness, augmented"] = Trainer(base, augmented.to(device), device).train_epoch
    # a variant has its seconds, and half as many again
    end = time.monotonic() + 1.5 * variant.seconds
    times = in_turns(contenders, device, sizes.rounds, lambda: time.monotonic() < end and findings.deadline.left > 5)
    trained = sizes.images // sizes.batch * sizes.batch
    row: dict[str, Any] = {"loop": f"{variant.name}, {variant.size} px"}
    row |= {name: trained / statistics.median(taken) for name, taken in times.items()}
    row |= {"of minimal": ratio(times, "harness", "minimal")[1]}
    if variant.loader:
        row |= {"times the DataLoader": ratio(times, "harness, augmented", "DataLoader")[1]}
    met = [row["of minimal"] >= OF_MINIMAL, row.get("times the DataLoader", OF_LOADER) >= OF_LOADER]
    row |= {"aims met": all(met), "rounds": len(times["harness"])}
    if device.type == "cuda":
        row["peak memory, MiB"] = torch.cuda.max_memory_allocated() / 2**20
    findings.row(SPEEDS, row)
    if variant.details:
        _details(variant, harness, base, options, findings)


def _details(variant: Variant, trainer: Trainer, base: BaseConfig, options: Options, findings: Findings) -> None:
    """How busy the GPU is, and the parts of a step."""
    name = f"{variant.name}, {variant.size} px"
    with Utilisation() as utilisation:
        end = time.monotonic() + (0 if options.tiny else BUSY_SECONDS)
        trainer.train_epoch()
        while time.monotonic() < end:
            trainer.train_epoch()
    findings.row("GPU utilisation while the harness trains, percent", {"loop": name, "percent": utilisation.mean})
    parts = StepParts(trainer)
    trainer.train_epoch(after_backward=parts.marking("backward"), after_step=parts.marking("step"))
    for part, (host, there) in parts.milliseconds().items():
        row = {"part of a step": f"{name}: {part}", "ms on the host": host, "ms on the device": there}
        findings.row("Where an epoch's time goes", row)


class StepParts:
    """What a step consists of, by marks between its parts: clocks of the host, and on a GPU events in its queue.

    A host that takes longer than the device is what the loop waits for. `trainer` is marked from now on.
    """

    ORDER = ("batch", "forward", "backward", "step", "counting")

    def __init__(self, trainer: Trainer) -> None:
        self._device = trainer.device
        self._marks: list[tuple[str, float, torch.cuda.Event | None]] = []
        logits = trainer.logits

        def marked_logits(images_B: Tensor) -> Tensor:
            made = logits(images_B)
            self._mark("forward")
            return made

        trainer.logits = marked_logits  # type: ignore[method-assign]
        trainer.images = _Marked(trainer.images, self._mark)  # type: ignore[assignment]

    def marking(self, part: str) -> Callable[[], None]:
        """A hook that marks the end of a part."""
        return functools.partial(self._mark, part)

    def _mark(self, part: str) -> None:
        event = None
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
        self._marks.append((part, time.perf_counter(), event))

    def milliseconds(self) -> dict[str, tuple[float, float | None]]:
        """The median of every part, on the host and on the device; `counting` is what follows the optimizer's step."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        host: dict[str, list[float]] = {part: [] for part in self.ORDER}
        there: dict[str, list[float]] = {part: [] for part in self.ORDER}
        for (_, then, begin), (part, now, end) in zip(self._marks, self._marks[1:], strict=False):
            host[part].append(1e3 * (now - then))
            if begin is not None and end is not None:
                there[part].append(begin.elapsed_time(end))
        return {
            part: (statistics.median(host[part]), statistics.median(there[part]) if there[part] else None)
            for part in self.ORDER
            if host[part]
        }


class _Marked:
    """Images whose training batches are marked: before a batch is made ends the counting of the step before it."""

    def __init__(self, images: Any, mark: Callable[[str], None]) -> None:
        self._images = images
        self._mark = mark

    def __getattr__(self, name: str) -> Any:
        return getattr(self._images, name)

    def __len__(self) -> int:
        return len(self._images)

    def train_batches(self, *arguments: Any) -> Iterator[Batch]:
        batches = self._images.train_batches(*arguments)
        while True:
            self._mark("counting")
            batch = next(batches, None)
            if batch is None:
                return
            self._mark("batch")
            yield batch
