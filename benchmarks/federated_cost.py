"""What federated training costs: as ratios measured side by side, in this process's own seconds on one core.

- a round of federated averaging against the same optimizer steps in the plain loop, in turns
- `fed_cmd` with its hooks, once weights are embedded, against a round of federated averaging, in turns
- the server's memory against the number of clients, whose images are the same in all
- rounds per second of all clients in this process, in one process per core, and through Flower's simulation where flwr
  is installed (wall-clock seconds; Flower's as the command records them, without starting the simulation)

    python benchmarks/federated_cost.py [--rounds 7] [--clients 10 40 160] [--model lenet5]

Seconds are medians over rounds. Memory is the peak anonymous resident size during rounds, less that before the trainer
was made, without what clients keep: federated averaging keeps nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from cmd_speed import Resident

from baselines.fed_cmd import FedCMD
from harness.config import BaseConfig
from harness.federated.server import FederatedTrainer
from harness.federated.session import FederatedSession
from harness.method import Snapshot
from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.problem.images import Images
from harness.problem.splits import load_split
from harness.processes import cores
from harness.results.frame import load_frame
from harness.snapshots import MemoryTrajectory
from harness.training.clock import Clock
from harness.training.loop import Trainer, set_determinism

CPU = torch.device("cpu")
WARMUP, EVERY = 2, 1
"""of federated CMD: it is timed when half of the weights are embedded"""
COMMON = ("dataset=fashion_mnist", "optimizer=sgd_momentum", "method=base", "seeds=[0]", "device=cpu")


def base_of(model: str, clients: int, images: int) -> BaseConfig:
    """A base of so many clients and images, in mini-batches of 32."""
    own = (f"model={model}", f"dataset.fashion_mnist.train_size={images}", "batch_size=32", "epochs=1000")
    federation = ("federation=iid_10", f"federation.iid_10.clients={clients}") if clients else ()
    return resolve(Request((*COMMON, *own, *federation)), "federated_cost").bases[0][0]


def through_flower(model: str, rounds: int) -> float:
    """Seconds of a round of the same base through Flower's simulation, as `traindyn run` records them."""
    own = (f"model={model}", "dataset.fashion_mnist.train_size=3200", "batch_size=32", f"epochs={rounds}")
    federation = ("federation=iid_10", "trajectory.keep=none", "tracker=none", "engine=flower")
    with tempfile.TemporaryDirectory() as folder:
        words = (*COMMON, *own, *federation, "name=flower", f"results_dir={folder}")
        command = [str(Path(sys.executable).parent / "traindyn"), "run", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return float(load_frame(folder, "flower")["train_seconds"].iloc[0]) / rounds


def seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    begun = clock()
    work()
    return clock() - begun


def embedded(base: BaseConfig, images: Images) -> FederatedTrainer:
    """Federated CMD that has embedded about half of the weights that move."""
    params = {"modes": 10, "samples": 1000, "warmup": WARMUP, "every": EVERY, "percent": 50.0}
    warm, snapshots = FederatedTrainer(base, images, CPU), []
    for t in range(1, WARMUP + 2):
        warm.train_epoch()
        snapshots.append(Snapshot(t, t, warm.flat.theta_N.clone(), {}))
    method = FedCMD(**params)
    trainer = FederatedTrainer(base, images, CPU, method, lambda: FedCMD(**params))
    trainer.load_state_dict(warm.state_dict())
    session = FederatedSession(trainer, method.branch(1000), MemoryTrajectory.of(snapshots), Clock(CPU))
    method.begin(session)
    trainer.train_epoch()
    method.every = method.fit.every = 10**6  # no other window closes
    trainer.train_epoch()  # this one is sent
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 40, 160])
    parser.add_argument("--model", default="lenet5")
    given = parser.parse_args()
    torch.set_num_threads(1)
    base = base_of(given.model, 10, 3200)
    set_determinism(base)
    images = load_split(base.dataset, "train")
    plain, averaging = Trainer(base_of(given.model, 0, 3200), images, CPU), FederatedTrainer(base, images, CPU)
    cmd = embedded(base, images)
    works = {"plain": plain.train_epoch, "averaging": averaging.train_epoch, "fed_cmd": cmd.train_epoch}
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(given.rounds + 1):
        for name, work in works.items():
            times[name].append(seconds(work, time.process_time))
    took = {name: statistics.median(own[1:]) for name, own in times.items()}  # the first round makes things
    print(f"{given.model}, {averaging.flat.layout.N:,} weights, 10 clients of 320 images, batches of 32")
    print(f"round of federated averaging against as many plain steps: {took['averaging'] / took['plain']:.2f}")
    share = cmd.exchange.scalars()["embedded"] / cmd.flat.layout.N
    ratio = took["fed_cmd"] / took["averaging"]
    print(f"round of fed_cmd with {share:.0%} embedded against one of federated averaging: {ratio:.2f}")
    for clients in given.clients:
        own = base_of(given.model, clients, 6400)
        data = load_split(own.dataset, "train")
        with Resident() as resident:
            trainer = FederatedTrainer(own, data, CPU)
            for _ in range(2):
                trainer.train_epoch()
        vectors = resident.extra * 2**20 / (4 * trainer.flat.layout.N)
        print(f"{clients} clients: {resident.extra:.0f} MiB, {vectors:.1f} vectors of the weights")
    for processes in dict.fromkeys((1, cores())):
        trainer = FederatedTrainer(base, images, CPU, processes=processes)
        trainer.train_epoch()
        spent = [seconds(trainer.train_epoch, time.perf_counter) for _ in range(given.rounds)]
        trainer.close()
        print(f"{processes} process{'es' if processes > 1 else ''}: {1 / statistics.median(spent):.2f} rounds a second")
    if importlib.util.find_spec("flwr") is not None:
        print(f"through Flower's simulation: {1 / through_flower(given.model, given.rounds):.2f} rounds a second")


if __name__ == "__main__":
    main()
