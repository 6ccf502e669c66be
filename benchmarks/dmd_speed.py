"""What DMD costs: from inner products, against a direct singular value decomposition and against PyDMD, side by side.

All decompose the motion since the first snapshot at the same rank and forecast once; what differs is how. Times are the
best of several rounds (of one for the direct ways), on as many threads as torch takes. Snapshots are those of
`cmd_speed.py`: a few driving motions in random proportions with noise. Peak extra memory is that of the anonymous
resident size over what was resident before the call, the forecast (4 bytes per weight) in it.

    python benchmarks/dmd_speed.py --weights 2e6 --snapshots 100 [--rank 10] [--without pydmd,svd64]
    python benchmarks/dmd_speed.py --weights 4e7 --snapshots 21 --from-disk [--folder DIR]
    python benchmarks/dmd_speed.py --scaling
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from cmd_speed import CPU, Motion, Resident, best, read_once
from torch import Tensor

from baselines.dmd import DMD
from baselines.gram import gram
from harness.method import Snapshot, Trajectory
from harness.snapshots import MemoryTrajectory
from harness.storage.trajectory import StoredTrajectory, write_snapshot

AHEAD = 10
Eigenvalues = np.ndarray
Ahead = tuple[Eigenvalues, Tensor]


def by_gram(trajectory: Trajectory, rank: int) -> Ahead:
    """The project's own."""
    dmd = DMD.fit(trajectory, rank, offset="first")
    return dmd.eigenvalues.numpy(), dmd.forecast(AHEAD, clip=False)


def by_svd(W_TN: Tensor, rank: int, kind: torch.dtype) -> Ahead:
    """The same map from the singular vectors (N, T - 1) of the snapshots."""
    X_TN = W_TN.to(kind) - W_TN[0].to(kind)
    U_NS, sigma_S, Vh_SS = torch.linalg.svd(X_TN[:-1].T, full_matrices=False)
    U_NR = U_NS[:, :rank]
    A_RR = U_NR.T @ (X_TN[1:].T @ (Vh_SS[:rank].T / sigma_S[:rank]))
    ahead_R = torch.linalg.matrix_power(A_RR, AHEAD) @ (U_NR.T @ X_TN[-1])
    return torch.linalg.eigvals(A_RR).numpy(), (U_NR @ ahead_R + W_TN[0]).float()


def by_pydmd(W_TN: Tensor, rank: int) -> Ahead:
    """PyDMD's own fit, in the snapshots' float32 as it comes; the forecast by its modes, anchored at the last."""
    import pydmd

    X_NT = (W_TN - W_TN[0]).T.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dmd = pydmd.DMD(svd_rank=rank).fit(X_NT)
    amplitude_R = np.linalg.lstsq(dmd.modes, X_NT[:, -1].astype(dmd.modes.dtype), rcond=None)[0]
    motion_N = (dmd.modes @ (dmd.eigs**AHEAD * amplitude_R)).real
    return dmd.eigs, torch.from_numpy(motion_N).float() + W_TN[0]


def once(work: Callable[[], Ahead]) -> tuple[float, float, Ahead]:
    """Seconds and peak extra MiB of one call, and what it gave."""
    with Resident() as memory:
        start = time.perf_counter()
        ahead = work()
        seconds = time.perf_counter() - start
    return seconds, memory.extra, ahead


def difference(ours: Eigenvalues, theirs: Eigenvalues) -> float:
    """Largest distance from one of theirs to the nearest of ours."""
    return float(np.abs(theirs[:, None] - ours[None, :]).min(1).max())


def compare(N: int, T: int, modes: int, rank: int, rounds: int, without: list[str]) -> None:
    """All ways on one array in memory."""
    W_TN = torch.empty(T, N)
    motion = Motion(N, T, modes)
    for t in range(1, T + 1):
        motion.fill(t, W_TN[t - 1])
    rows = MemoryTrajectory(W_TN)
    _, memory, (ours, forecast_N) = once(lambda: by_gram(rows, rank))
    read = best(lambda: read_once(rows), rounds)
    products = best(lambda: gram(rows, True), rounds)
    seconds = best(lambda: by_gram(rows, rank), rounds)
    print(f"{N:,} weights, {T} snapshots ({4 * N * T / 2**20:.0f} MiB), rank {rank}")
    print(f"  read all once           {read:9.3f} s")
    print(f"  inner products          {products:9.3f} s   {2e-9 * N * T * T / products:9.1f} GFLOP/s in float64")
    print(f"  fit and forecast        {seconds:9.3f} s   {memory:9.0f} MiB extra   {seconds / read:6.1f} x reading")
    ways = {
        "svd32": partial(by_svd, W_TN, rank, torch.float32),
        "svd64": partial(by_svd, W_TN, rank, torch.float64),
        "pydmd": partial(by_pydmd, W_TN, rank),
    }
    for name, way in ways.items():
        if name in without:
            continue
        theirs_s, theirs_mib, (eigenvalues, theirs_N) = once(way)
        scale = float((forecast_N - W_TN[0]).norm())
        apart = float((theirs_N - forecast_N).norm()) / scale
        print(
            f"  {name:22}  {theirs_s:9.3f} s   {theirs_mib:9.0f} MiB extra   {theirs_s / seconds:6.1f} x the time, "
            f"{theirs_mib / max(memory, 1):5.1f} x the memory; eigenvalues {difference(ours, eigenvalues):.0e}, "
            f"forecasts {apart:.0e} of their motion apart"
        )


def from_disk(N: int, T: int, modes: int, rank: int, rounds: int, folder: str | None) -> None:
    """Streamed from snapshot files, as the harness does it."""
    motion, theta_N = Motion(N, T, modes), torch.empty(N)
    with tempfile.TemporaryDirectory(prefix="dmd-speed-", dir=folder) as name:
        for t in range(1, T + 1):
            motion.fill(t, theta_N)
            write_snapshot(Path(name), Snapshot(t, t, theta_N, {}))
        os.sync()
        trajectory = StoredTrajectory(Path(name), CPU)
        with Resident() as memory:
            start = time.perf_counter()
            dmd = DMD.fit(trajectory, rank)
            fitting = time.perf_counter() - start
        read = best(lambda: read_once(trajectory), rounds)
        again = best(lambda: DMD.fit(trajectory, rank), rounds)
        with Resident() as combining:
            dmd.forecast(AHEAD)
        forecast = best(lambda: dmd.forecast(AHEAD), rounds)
    print(f"{N:,} weights, {T} snapshots in files ({4 * N * T / 2**20:.0f} MiB), rank {rank}")
    print(f"  read all once           {read:9.3f} s")
    print(f"  first fit, verified     {fitting:9.3f} s   {memory.extra:9.0f} MiB extra")
    print(f"  fit                     {again:9.3f} s   {again / read:6.1f} x reading")
    print(f"  forecast                {forecast:9.3f} s   {forecast / read:6.1f} x reading")
    print(f"                          {combining.extra:9.0f} MiB extra")


def scaling(modes: int, rank: int, rounds: int) -> None:
    """Time of fit and forecast per weight and snapshot, and memory, over both."""
    print("    weights  snapshots        s   MiB extra   ns per weight and snapshot")
    for N, T in ((500_000, 21), (1_000_000, 21), (2_000_000, 21), (4_000_000, 21), (1_000_000, 50), (1_000_000, 100)):
        W_TN, motion = torch.empty(T, N), Motion(N, T, modes)
        for t in range(1, T + 1):
            motion.fill(t, W_TN[t - 1])
        rows = MemoryTrajectory(W_TN)
        _, memory, _ = once(partial(by_gram, rows, rank))
        seconds = best(partial(by_gram, rows, rank), rounds)
        print(f"{N:11,d}  {T:9d} {seconds:8.3f}   {memory:9.0f}   {1e9 * seconds / (N * T):10.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=float, default=2e6)
    parser.add_argument("--snapshots", type=int, default=100)
    parser.add_argument("--modes", type=int, default=20, help="driving motions of the snapshots")
    parser.add_argument("--rank", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", default="", help="of svd32, svd64 and pydmd, those to leave out")
    parser.add_argument("--from-disk", action="store_true", help="stream from snapshot files")
    parser.add_argument("--folder", help="where the files go, by default the system's temporary folder")
    parser.add_argument("--scaling", action="store_true", help="a table over weights and snapshots instead")
    given = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    N, T, modes, rank, rounds = int(given.weights), given.snapshots, given.modes, given.rank, given.rounds
    if given.scaling:
        scaling(modes, rank, rounds)
    elif given.from_disk:
        from_disk(N, T, modes, rank, rounds, given.folder)
    else:
        compare(N, T, modes, rank, rounds, given.without.split(","))


if __name__ == "__main__":
    main()
