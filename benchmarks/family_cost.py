"""What the methods that watch a base cost, against training it: seconds, and memory in vectors of its weights.

For the ResNet of `quick`, and for models of about 1e6 and 1e7 weights (LeNet-5 four times as wide, ResNet-18), every
preset that is no brancher is shown a base: snapshots that walk at random from the initial weights, for step-cadence
methods the states after every step too. Timed are observing or fitting, and the weights of the last epoch, with real
passes over the probe; what a method's tables take stands beside it. An epoch of training is timed in the same process,
in turns with them, as the median of several; batches are those of `quick` (10 of 128). Seconds are this process's own
on the CPU. Memory is the peak anonymous resident size while a method works, and what it declares.

    python benchmarks/family_cost.py [--bases quick 1e6 1e7] [--rounds 3] [--methods ema lawa ...]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from cmd_speed import Resident

from harness.config import EvaluateConfig
from harness.method import Observer, Reconstruction, Run, Snapshot
from harness.planning.compose import Request
from harness.planning.methods import make_method
from harness.planning.plan import BasePlan, CellPlan, make_plan
from harness.planning.resolve import resolve
from harness.problem.splits import load_split
from harness.randomness import generator
from harness.snapshots import MemoryTrajectory
from harness.storage.store import Store
from harness.training.evaluate import Evaluator
from harness.training.loop import Trainer, set_determinism

CPU = torch.device("cpu")
BETWEEN = 8
"""methods between two epochs of training that are timed"""
QUICK = ("suite=all", "model=test_resnet", "optimizer=sgd_momentum", "seeds=[0]", "tracker=none", "device=cpu")
LIKE_QUICK = (
    *("dataset=fashion_mnist", "dataset.fashion_mnist.train_size=3840", "optimizer=sgd_momentum", "method=all"),
    *("epochs=20", "batch_size=128", "batches_per_epoch=10", "seeds=[0]", "tracker=none", "device=cpu"),
)
BASES = {
    "quick": QUICK,
    "1e6": ("model=lenet5", "model.lenet5.kwargs={width: 4}", *LIKE_QUICK),
    "1e7": ("model=resnet18", *LIKE_QUICK),
}


class Shown:
    """A base of which methods are shown made-up snapshots, and whose training is timed."""

    def __init__(self, plan: BasePlan) -> None:
        self.plan, base = plan, plan.config
        set_determinism(base)
        train = load_split(base.dataset, "train")
        self.trainer = Trainer(base, train, CPU)
        self.evaluator = Evaluator(base, EvaluateConfig(), train, CPU, with_test=False)
        self.N, self.steps, self.epochs = plan.N, self.trainer.steps_per_epoch(), base.epochs
        rng, now_N = torch.Generator().manual_seed(0), self.trainer.flat.theta_N.clone()
        self.W_TN = torch.empty(self.epochs + 1, self.N)
        for row_N in self.W_TN:
            row_N.copy_(now_N)
            now_N += 0.01 * torch.randn(self.N, generator=rng)
        buffers = self.trainer.flat.copy_buffers()
        snapshots = [Snapshot(t, t * self.steps, row_N, buffers) for t, row_N in enumerate(self.W_TN)]
        self.trajectory = MemoryTrajectory(self.W_TN)
        self.trajectory._rest = [(one.t, one.step, one.buffers) for one in snapshots]

    def run(self, cell: CellPlan) -> Run:
        first, last = (0, -1) if cell.needs is None else cell.needs
        seed = self.plan.config.seed
        return Run(
            self.trainer.flat.layout, self.trajectory.window(first, last), self.epochs, self.steps, CPU,
            lambda purpose: generator(seed, f"method/{purpose}"), self.evaluator.probe_loss,
        )  # fmt: skip

    def states(self, cadence: object) -> Iterator[Snapshot]:
        """What an observer is shown: of an epoch's steps each is the epoch's end."""
        yield self.trajectory[0]
        for t in range(1, self.epochs + 1):
            if cadence == "epoch":
                yield self.trajectory[t]
                continue
            for step in range((t - 1) * self.steps + 1, t * self.steps + 1):
                yield Snapshot(step // self.steps, step, self.W_TN[t], {})

    def watch(self, cell: CellPlan) -> Callable[[], object]:
        """Let a fresh method do its work; gives what its tables come from."""
        method = make_method(cell.method)
        if isinstance(method, Reconstruction):
            method.fit(self.run(cell))
            method.reconstruct(self.epochs)
        else:
            assert isinstance(method, Observer)
            method.begin(self.run(cell))
            for snapshot in self.states(cell.cadence):
                method.observe(snapshot)
            method.propose()
        return method.tables

    def train_seconds(self) -> float:
        return seconds(self.trainer.train_epoch)[0]


@dataclass
class Cost:
    """Of one method on a base."""

    name: str
    every_step: bool
    seconds: float
    tables: float
    declared: float
    """memory in vectors of weights, as the method says"""
    measured: float


def seconds(work: Callable[[], object]) -> tuple[float, object]:
    """CPU seconds of this process, which other work on the machine hardly changes, and what came of it."""
    start = time.process_time()
    made = work()
    return time.process_time() - start, made


def measure(shown: Shown, rounds: int, chosen: set[str]) -> tuple[float, list[Cost]]:
    """Seconds of an epoch of training, and what every method costs: medians of rounds in which all take turns."""
    watching = [cell for cell in shown.plan.cells if cell.kind != "brancher"]
    cells = [cell for cell in watching if not chosen or cell.method.name in chosen]
    shown.trainer.train_epoch()
    epochs: list[float] = []
    spent: dict[str, list[tuple[float, float]]] = {cell.method.name: [] for cell in cells}
    peaks: dict[str, float] = {}
    for number in range(rounds):
        for place, cell in enumerate(cells):
            if place % BETWEEN == 0:
                epochs.append(shown.train_seconds())
            name = cell.method.name
            if number == 0:
                with Resident() as resident:
                    took, tables = seconds(lambda cell=cell: shown.watch(cell))  # type: ignore[misc]
                peaks[name] = (resident.peak - resident.before) * 2**20 / (4 * shown.N)
            else:
                took, tables = seconds(lambda cell=cell: shown.watch(cell))  # type: ignore[misc]
            assert callable(tables)
            spent[name].append((took, seconds(tables)[0]))
    costs = []
    for cell in cells:
        own = spent[cell.method.name]
        took, tables = (statistics.median(one[part] for one in own) for part in (0, 1))
        every_step = cell.kind == "observer" and cell.cadence != "epoch"
        declared = cell.memory_floats / shown.N
        costs.append(Cost(cell.method.name, every_step, took, tables, declared, peaks[cell.method.name]))
    return statistics.median(epochs), costs


def say(name: str, shown: Shown, epoch: float, costs: list[Cost]) -> None:
    base = epoch * shown.epochs
    print(f"\n{name}: N = {shown.N:,}, {shown.epochs} epochs of {shown.steps} steps, {epoch:.3f} s an epoch")
    heads = f"{'s per base':>10} {'epochs':>7} {'of base':>8} {'tables s':>9} {'memory / N':>11} {'declared':>9}"
    print(f"{'method':34} {heads}")
    for cost in sorted(costs, key=lambda cost: cost.seconds):
        of = cost.name + (" (every step)" if cost.every_step else "")
        print(
            f"{of:34} {cost.seconds:10.3f} {cost.seconds / epoch:7.2f} {cost.seconds / base:8.4f} {cost.tables:9.3f} "
            f"{cost.measured:11.2f} {cost.declared:9.2f}"
        )
    for text, own in (("epoch-cadence", False), ("step-cadence", True)):
        total = sum(cost.seconds for cost in costs if cost.every_step == own)
        count = sum(cost.every_step == own for cost in costs)
        print(f"all {count} {text} methods together: {total:.2f} s, {total / base:.3f} of the base's training")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bases", nargs="+", choices=list(BASES), default=list(BASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", nargs="*", default=[])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.bases:
        experiment = resolve(Request(BASES[name], ()), "family_cost", compares=False)
        plan, *_ = make_plan(experiment, Store(Path("/nonexistent"))).bases
        shown = Shown(plan)
        say(name, shown, *measure(shown, arguments.rounds, set(arguments.methods)))


if __name__ == "__main__":
    main()
