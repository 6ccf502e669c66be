"""An epoch of training with and without what follows it live, in a plain loop and in Lightning, side by side.

The same small timm model on random images. In a plain loop: `Recorder`, a `Watch` of the exponential average over steps
and one of online CMD over epochs. In Lightning: the same as callbacks, beside Lightning alone (only where Lightning is
installed). Contenders take turns, epoch by epoch; medians of the ratios within a round are printed, and what each part
costs beside its loop alone.

    python benchmarks/live_overhead.py [--model test_resnet] [--images 1920] [--rounds 5] [--threads 1]
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

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
    size = {"img_size": SIZE} if "vit" in name else {}
    model: nn.Module = timm.create_model(name, num_classes=CLASSES, **size)
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


class Turns:
    """Epochs of a loop that is Lightning's own, one at a time: it runs in a thread, which waits before every epoch."""

    def __init__(self, fit: Callable[[Turns], None]) -> None:
        self._go, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._failed: BaseException | None = None
        self._threads = torch.get_num_threads()
        threading.Thread(target=self._run, args=(fit,), daemon=True).start()
        self._until_it_waits()

    def _run(self, fit: Callable[[Turns], None]) -> None:
        torch.set_num_threads(self._threads)
        try:
            fit(self)
        except BaseException as error:
            self._failed = error
            self._waits.release()

    def _until_it_waits(self) -> None:
        self._waits.acquire()
        if self._failed is not None:
            raise self._failed

    def before_epoch(self) -> None:
        """What the trainer calls."""
        self._waits.release()
        self._go.acquire()

    def epoch(self) -> None:
        """Train one epoch, up to where the next one waits."""
        self._go.release()
        self._until_it_waits()


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
        def __init__(self, turns: Turns) -> None:
            self.turns = turns

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            self.turns.before_epoch()

    def fit(turns: Turns) -> None:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        found = [*callbacks(), Waits(turns)]
        trainer = pl.Trainer(max_epochs=MANY, accelerator="cpu", callbacks=found, enable_model_summary=False, **quiet)
        trainer.fit(Module(), DataLoader(batches, batch_size=None))  # type: ignore[arg-type]

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return Turns(fit).epoch


def in_turns(contenders: dict[str, Epoch], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of an epoch of each contender in each round, by the clock and of CPU; the epochs of the warm-up come
    before them, untimed."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for round_ in range(-WARMUP - 1, rounds):
        for name, epoch in contenders.items():
            began, busy = time.perf_counter(), time.process_time()
            epoch()
            if round_ >= 0:
                seconds[name].append((time.perf_counter() - began, time.process_time() - busy))
    return seconds


def report(title: str, seconds: dict[str, list[tuple[float, float]]]) -> Iterator[str]:
    """Lines of one loop, whose first contender is the loop alone."""
    alone = next(iter(seconds))
    yield f"{title}: an epoch takes {statistics.median(clock for clock, _ in seconds[alone]):.2f} s alone"
    for name, taken in seconds.items():
        if name != alone:
            rounds = list(zip(taken, seconds[alone], strict=True))
            clock, cpu = (sorted(mine[kind] / its[kind] for mine, its in rounds) for kind in (0, 1))
            yield f"  {name:28s} {_ratios(clock)} as long, {_ratios(cpu)} as much CPU"


def _ratios(found: list[float]) -> str:
    """The median, and in brackets the ends, of sorted ratios."""
    return f"{statistics.median(found):.3f} ({found[0]:.3f} to {found[-1]:.3f})"


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
                name,
                batches,
                lambda: [LiveCallback({"cmd": lambda model: Watch(model, CMDOnline(warmup=WARMUP), MANY)})],
            ),
        }
        print(*report("Lightning", in_turns(loops, arguments.rounds)), sep="\n", flush=True)


if __name__ == "__main__":
    main()
