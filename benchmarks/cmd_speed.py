"""What CMD costs: post-hoc against reading the trajectory once, an online update against copying one snapshot.

Times are the best of several rounds, on as many threads as torch takes. The trajectory has `modes` driving motions in
random proportions with noise, drawn in small pieces, so that making it needs no memory of its own. Peak extra memory is
that of the anonymous resident size (RssAnon, sampled every 5 ms) over what was resident before the call; the results,
13 bytes per weight, are in it.

    python benchmarks/cmd_speed.py --weights 5e6 --snapshots 100 --modes 10 [--samples 1000]
    python benchmarks/cmd_speed.py --weights 4e7 --snapshots 20 --from-disk [--folder DIR]
    python benchmarks/cmd_speed.py --scaling
"""

from __future__ import annotations

import argparse
import ctypes
import os
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from baselines.cmd import CMD
from baselines.cmd.clustering import find_modes
from baselines.cmd.online_recursion import OnlineFit
from harness.method import Snapshot, Trajectory
from harness.snapshots import MemoryTrajectory
from harness.storage.trajectory import StoredTrajectory, write_snapshot

CPU = torch.device("cpu")
PIECE = 1 << 20


def best(work: Callable[[], object], rounds: int, device: torch.device = CPU) -> float:
    """Seconds of the fastest of `rounds`, to the end of what it has a device do."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds = []
    for _ in range(rounds):
        wait()
        start = time.perf_counter()
        work()
        wait()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


class Allocated:
    """Peak memory that torch has allocated on a GPU while the block runs, over what it was before, in MiB."""

    def __enter__(self) -> Allocated:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self._before = torch.cuda.memory_allocated()
        return self

    def __exit__(self, *_: object) -> None:
        torch.cuda.synchronize()
        self.extra = (torch.cuda.max_memory_allocated() - self._before) / 2**20


class Resident:
    """Peak RssAnon while the block runs, over what it was before, in MiB."""

    def __enter__(self) -> Resident:
        # what was freed but not given back would hide as much
        ctypes.CDLL(None).malloc_trim(0)
        self.before = self.peak = self._now()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def extra(self) -> float:
        return self.peak - self.before

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.peak = max(self.peak, self._now())

    @staticmethod
    def _now() -> float:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024


class Motion:
    """w_i(t) = offset_i + gain_i * (its driver at t) + noise: the snapshots of t = 1..T, one at a time."""

    def __init__(self, N: int, T: int, modes: int) -> None:
        self.N, self.T = N, T
        draw = torch.Generator().manual_seed(0)
        self.drivers_TM = torch.randn(T, modes, generator=draw).cumsum(0)

    def fill(self, t: int, theta_N: Tensor) -> None:
        """Write w(t); every piece is drawn from its own seed, so that its offsets are the same for every t. What a
        device draws is its own."""
        device = theta_N.device
        drivers_M = self.drivers_TM[t - 1].to(device)
        for start in range(0, self.N, PIECE):
            out = theta_N[start : start + PIECE]
            fixed, own = (torch.Generator(device).manual_seed(seed) for seed in (start, start * self.T + t))
            driver = torch.randint(len(drivers_M), (len(out),), generator=fixed, dtype=torch.int32, device=device)
            offset, gain = torch.randn(2, len(out), generator=fixed, device=device)
            noise = torch.randn(len(out), generator=own, device=device)
            out.copy_(offset + 1e-2 * gain * drivers_M.index_select(0, driver) + 3e-3 * noise)


def read_once(trajectory: Trajectory) -> None:
    """Sum every block: the least that anything which sees all weights has to do."""
    for _, _, W_TB in trajectory.blocks(256 << 20):
        for row_B in W_TB:
            row_B.sum()


class PostHoc(NamedTuple):
    """What post-hoc CMD costs, in seconds and MiB."""

    read: float
    """the trajectory, once"""
    whole: float
    clustering: float
    extra: float
    """peak memory beside the trajectory"""

    @property
    def rest(self) -> float:
        """All but clustering, which does not grow with the number of weights."""
        return self.whole - self.clustering


class Online(NamedTuple):
    """What online CMD costs, in seconds and bytes."""

    copy: float
    """of one snapshot"""
    update: float
    bytes_per_weight: float


def posthoc_cost(
    trajectory: Trajectory, modes: int, samples: int, rounds: int, device: torch.device = CPU
) -> tuple[CMD, PostHoc]:
    """The decomposition, and what it costs where the trajectory lies."""
    # first, while no memory that an earlier fit has freed can be used again
    with Allocated() if device.type == "cuda" else Resident() as memory:
        cmd = CMD.fit(trajectory, modes, samples)
    read = best(lambda: read_once(trajectory), rounds, device)
    whole = best(lambda: CMD.fit(trajectory, modes, samples), rounds, device)
    x_TK = cmd.references_TM[:, torch.randint(cmd.references_TM.shape[1], (samples,))]
    x_TK = (x_TK + torch.randn(x_TK.shape) * x_TK.std(0)).to(device)
    clustering = best(lambda: find_modes(x_TK, modes), rounds, device)
    return cmd, PostHoc(read, whole, clustering, memory.extra)


def online_cost(cmd: CMD, snapshots: list[Tensor], rounds: int, device: torch.device = CPU) -> Online:
    """Of one update; copies and updates take the snapshots in turn, as they come in training."""
    online, copy_N = OnlineFit.start(cmd, device), torch.empty_like(snapshots[0])
    turns = cycle(snapshots)
    copy = best(lambda: copy_N.copy_(next(turns)), 5 * rounds, device)
    update = best(lambda: online.update(next(turns)), 5 * rounds, device)
    held = sum(t.numel() * t.element_size() for t in (online.wbar_N, online.C_N, online.mode_N))
    return Online(copy, update, held / len(copy_N))


def measure(trajectory: Trajectory, modes: int, samples: int, rounds: int) -> CMD:
    """Print the post-hoc figures; the decomposition."""
    cmd, cost = posthoc_cost(trajectory, modes, samples, rounds)
    print(f"read the trajectory once        {cost.read:9.3f} s")
    print(f"post-hoc CMD                    {cost.whole:9.3f} s   {cost.whole / cost.read:6.1f} x reading")
    print(f"  clustering {samples:6d} weights     {cost.clustering:9.3f} s")
    print(f"  without clustering            {cost.rest:9.3f} s   {cost.rest / cost.read:6.1f} x reading")
    print(
        f"peak extra memory               {cost.extra:9.0f} MiB, of which results {13 * len(cmd.a_N) / 2**20:.0f} MiB"
    )
    return cmd


def measure_online(cmd: CMD, snapshots: list[Tensor], rounds: int) -> None:
    """Print the figures of one update."""
    cost = online_cost(cmd, snapshots, rounds)
    print(f"copy one snapshot               {1e3 * cost.copy:9.2f} ms")
    print(f"online update                   {1e3 * cost.update:9.2f} ms  {cost.update / cost.copy:6.1f} x copying")
    print(f"online state                    {cost.bytes_per_weight:9.1f} bytes per weight")


def in_memory(N: int, T: int, modes: int, samples: int, rounds: int) -> None:
    W_TN = torch.empty(T, N)
    motion = Motion(N, T, modes)
    for t in range(1, T + 1):
        motion.fill(t, W_TN[t - 1])
    cmd = measure(MemoryTrajectory(W_TN), modes, samples, rounds)
    measure_online(cmd, list(W_TN), rounds)


def from_disk(N: int, T: int, modes: int, samples: int, rounds: int, folder: str | None) -> None:
    motion, theta_N = Motion(N, T, modes), torch.empty(N)
    with tempfile.TemporaryDirectory(prefix="cmd-speed-", dir=folder) as name:
        for t in range(1, T + 1):
            motion.fill(t, theta_N)
            write_snapshot(Path(name), Snapshot(t, t, theta_N, {}))
        os.sync()
        start = time.perf_counter()
        with Resident() as memory:
            CMD.fit(StoredTrajectory(Path(name), CPU), modes, samples)
        print(f"first fit, checksums verified   {time.perf_counter() - start:9.3f} s")
        print(f"  peak extra memory             {memory.extra:9.0f} MiB, of which results {13 * N / 2**20:.0f} MiB")
        trajectory = StoredTrajectory(Path(name), CPU)
        read_once(trajectory)
        cmd = measure(trajectory, modes, samples, rounds)
    measure_online(cmd, [theta_N], rounds)


def scaling(modes: int, samples: int, rounds: int) -> None:
    """Nanoseconds per weight and snapshot, which stay where time is linear in both."""
    print("    weights  snapshots   post-hoc s   ns per weight and snapshot")
    for N, T in ((500_000, 50), (1_000_000, 50), (2_000_000, 50), (4_000_000, 50), (2_000_000, 25), (2_000_000, 100)):
        W_TN, motion = torch.empty(T, N), Motion(N, T, modes)
        for t in range(1, T + 1):
            motion.fill(t, W_TN[t - 1])
        # drawn beforehand, and few, so that clustering weighs nothing
        sample_K = torch.randint(N, (200,), generator=torch.Generator().manual_seed(0)).unique()
        seconds = best(partial(CMD.fit, MemoryTrajectory(W_TN), modes, sample_K=sample_K), rounds)
        print(f"{N:11,d}  {T:9d}   {seconds:10.3f}   {1e9 * seconds / (N * T):10.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=float, default=5e6)
    parser.add_argument("--snapshots", type=int, default=100)
    parser.add_argument("--modes", type=int, default=10)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--from-disk", action="store_true", help="stream from snapshot files")
    parser.add_argument("--folder", help="where the files go, by default the system's temporary folder")
    parser.add_argument("--scaling", action="store_true", help="a table over weights and snapshots instead")
    given = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    sizes = int(given.weights), given.snapshots, given.modes, given.samples, given.rounds
    if given.scaling:
        scaling(given.modes, given.samples, given.rounds)
    elif given.from_disk:
        from_disk(*sizes, given.folder)
    else:
        in_memory(*sizes)


if __name__ == "__main__":
    main()
