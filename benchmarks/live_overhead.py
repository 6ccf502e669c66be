"""An epoch of training with and without what follows it live, in a plain loop and in Lightning, side by side in one run.

The same small timm model on random images. In a plain loop: `Recorder`, a `Watch` of the exponential average over steps
and one of online CMD over epochs. In Lightning: the same as callbacks, beside Lightning alone (only where Lightning is
installed). Contenders take turns, epoch by epoch; medians of the ratios within a round are printed, and what each part
costs beside its loop alone.

    python benchmarks/live_overhead.py [--model test_resnet] [--images 1920] [--rounds 5] [--threads 1]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from baselines.cmd_online import CMDOnline
from baselines.ema import EMA
from harness.live import Recorder, Watch

BATCH, SIZE, CLASSES = 64, 32, 10
MANY = 1000
"""epochs that methods are made for"""
WARMUP = 2
"""epochs of online CMD, which models from the round after them on"""

Epoch = Callable[[], None]
Follow = Callable[[nn.Module], tuple[Callable[[], object], Callable[[], object]]]
"""from a model what is called after every step and after every epoch"""


def nothing() -> None:
    """What is called where nobody follows."""


def recording(folder: Path, steps: int) -> Follow:
    def follow(model: nn.Module) -> tuple[Callable[[], object], Callable[[], object]]:
        recorder, epochs = Recorder(model, folder), iter(range(1, MANY))
        return nothing, lambda: recorder.record((epoch := next(epochs)) * steps, epoch)

    return follow


def averaging(steps: int) -> Follow:
    return lambda model: (Watch(model, EMA(), MANY, steps).update, nothing)


def modelling(model: nn.Module) -> tuple[Callable[[], object], Callable[[], object]]:
    return nothing, Watch(model, CMDOnline(warmup=WARMUP), MANY).update


def data(images: int) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(images, 3, SIZE, SIZE, generator=draw), torch.randint(CLASSES, (images,), generator=draw)
    return list(zip(x.split(BATCH), y.split(BATCH), strict=True))


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = (
        timm.create_model(name, num_classes=CLASSES, img_size=SIZE)
        if "vit" in name
        else (timm.create_model(name, num_classes=CLASSES))
    )
    return model.train()


def plain(name: str, batches: list[tuple[Tensor, Tensor]], follow: Follow | None) -> Epoch:
    """A loop as one writes it."""
    model = make(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    after_step, after_epoch = (nothing, nothing) if follow is None else follow(model)

    def epoch() -> None:
        for x, y in batches:
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
            after_step()
        after_epoch()

    return epoch


class Stopwatch:
    """Lightning owns its loop: an epoch of it is trained whenever the next of these is asked for, in a generator's
    stead by a thread that waits at every epoch's end."""

    def __init__(self, fit: Callable[[Any], None]) -> None:
        import threading

        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=fit, args=(self,), daemon=True)
        self._thread.start()
        self._done.acquire()

    def wait(self) -> None:
        """Called by the trainer before an epoch."""
        self._done.release()
        self._go.acquire()

    def epoch(self) -> None:
        """One epoch, from one call of `wait` to the next."""
        self._go.release()
        self._done.acquire()


def lightning(name: str, batches: list[tuple[Tensor, Tensor]], callbacks: Callable[[], list[Any]]) -> Epoch:
    """Lightning's loop over the same batches."""
    import lightning.pytorch as pl

    class Module(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = make(name)

        def training_step(self, batch: Any, index: int) -> Tensor:
            return cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    class Waits(pl.Callback):  # type: ignore[misc]
        def __init__(self, stopwatch: Stopwatch) -> None:
            self.stopwatch = stopwatch

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            self.stopwatch.wait()

    def fit(stopwatch: Stopwatch) -> None:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        found = [*callbacks(), Waits(stopwatch)]
        trainer = pl.Trainer(max_epochs=MANY, accelerator="cpu", callbacks=found, enable_model_summary=False, **quiet)
        trainer.fit(Module(), batches)

    return Stopwatch(fit).epoch


def in_turns(contenders: dict[str, Epoch], rounds: int) -> dict[str, list[float]]:
    """Seconds of an epoch of each contender in each round; the epochs of the warm-up come before them, untimed."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(-WARMUP - 1, rounds):
        for name, epoch in contenders.items():
            began = time.perf_counter()
            epoch()
            if round_ >= 0:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def report(title: str, seconds: dict[str, list[float]]) -> Iterator[str]:
    """Lines of one loop, whose first contender is the loop alone."""
    alone = next(iter(seconds))
    yield f"{title}: an epoch takes {statistics.median(seconds[alone]):.2f} s alone"
    for name, taken in seconds.items():
        if name != alone:
            ratios = [mine / its for mine, its in zip(taken, seconds[alone], strict=True)]
            yield f"  {name:28s} {statistics.median(ratios):.3f} times as long ({min(ratios):.3f} to {max(ratios):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="test_resnet", help="of timm")
    parser.add_argument("--images", type=int, default=1920)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    name, batches = arguments.model, data(arguments.images)
    steps, N = len(batches), sum(p.numel() for p in make(arguments.model).parameters())
    print(f"{name}, {N:,} weights, {steps} steps of {BATCH} images, {arguments.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        loops = {
            "alone": plain(name, batches, None),
            "alone again": plain(name, batches, None),
            "Recorder, every epoch": plain(name, batches, recording(Path(folder) / "plain", steps)),
            "Watch of EMA, every step": plain(name, batches, averaging(steps)),
            "Watch of CMD, every epoch": plain(name, batches, modelling),
        }
        print(*report("plain loop", in_turns(loops, arguments.rounds)), sep="\n", flush=True)
        if importlib.util.find_spec("lightning") is None:
            print("Lightning is not installed: pip install traindyn[live]")
            return
        from harness.live.lightning import LiveCallback, SnapshotCallback

        loops = {
            "alone": lightning(name, batches, list),
            "alone again": lightning(name, batches, list),
            "SnapshotCallback": lightning(name, batches, lambda: [SnapshotCallback(Path(folder) / "lightning")]),
            "LiveCallback of EMA": lightning(
                name, batches, lambda: [LiveCallback({"ema": lambda model: Watch(model, EMA(), MANY, steps)})]
            ),
            "LiveCallback of CMD": lightning(
                name, batches, lambda: [LiveCallback({"cmd": lambda model: Watch(model, CMDOnline(warmup=2), MANY)})]
            ),
        }
        print(*report("Lightning", in_turns(loops, arguments.rounds)), sep="\n", flush=True)


if __name__ == "__main__":
    main()
