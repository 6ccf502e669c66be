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


def best(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the fastest of `rounds`."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


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
        """Write w(t); every piece is drawn from its own seed, so that its offsets are the same for every t."""
        for start in range(0, self.N, PIECE):
            out = theta_N[start : start + PIECE]
            fixed = torch.Generator().manual_seed(start)
            driver = torch.randint(self.drivers_TM.shape[1], (len(out),), generator=fixed, dtype=torch.int32)
            offset, gain = torch.randn(2, len(out), generator=fixed)
            noise = torch.randn(len(out), generator=torch.Generator().manual_seed(start * self.T + t))
            out.copy_(offset + 1e-2 * gain * self.drivers_TM[t - 1].index_select(0, driver) + 3e-3 * noise)


def read_once(trajectory: Trajectory) -> None:
    """Sum every block: the least that anything which sees all weights has to do."""
    for _, _, W_TB in trajectory.blocks(256 << 20):
        for row_B in W_TB:
            row_B.sum()


def measure(trajectory: Trajectory, modes: int, samples: int, rounds: int) -> CMD:
    """Print the post-hoc figures; the decomposition."""
    # first, while no memory that an earlier fit has freed can be used again
    with Resident() as memory:
        cmd = CMD.fit(trajectory, modes, samples)
    read = best(lambda: read_once(trajectory), rounds)
    whole = best(lambda: CMD.fit(trajectory, modes, samples), rounds)
    x_TK = cmd.references_TM[:, torch.randint(cmd.references_TM.shape[1], (samples,))]
    x_TK = x_TK + torch.randn(x_TK.shape) * x_TK.std(0)
    clustering = best(lambda: find_modes(x_TK, modes), rounds)
    rest = whole - clustering
    print(f"read the trajectory once        {read:9.3f} s")
    print(f"post-hoc CMD                    {whole:9.3f} s   {whole / read:6.1f} x reading")
    print(f"  clustering {samples:6d} weights     {clustering:9.3f} s")
    print(f"  without clustering            {rest:9.3f} s   {rest / read:6.1f} x reading")
    N = len(cmd.a_N)
    print(f"peak extra memory               {memory.extra:9.0f} MiB, of which results {13 * N / 2**20:.0f} MiB")
    return cmd


def measure_online(cmd: CMD, snapshots: list[Tensor], rounds: int) -> None:
    """Print the figures of one update; copies and updates take the snapshots in turn, as they come in training."""
    online, copy_N = OnlineFit.start(cmd, CPU), torch.empty_like(snapshots[0])
    turns = cycle(snapshots)
    copy = best(lambda: copy_N.copy_(next(turns)), 5 * rounds)
    update = best(lambda: online.update(next(turns)), 5 * rounds)
    held = sum(t.numel() * t.element_size() for t in (online.wbar_N, online.C_N, online.mode_N))
    print(f"copy one snapshot               {1e3 * copy:9.2f} ms")
    print(f"online update                   {1e3 * update:9.2f} ms  {update / copy:6.1f} x copying")
    print(f"online state                    {held / len(copy_N):9.1f} bytes per weight")


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
