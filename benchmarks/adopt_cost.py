"""What adopting, analysing and modelling somebody's checkpoints costs, against reading and hashing the same bytes.

Snapshots of a model of GPT-2's shape, walking from random weights, are written as safetensors (float32 or bfloat16)
into a temporary folder. Each piece of work runs in a process of its own: reading all bytes with their SHA-256, `adopt`
(recognition, digests, roles), one pass over the trajectory, the pass of `analyse` (inner products and motion of every
tensor), a fit of post-hoc CMD, and writing the last weights back. Seconds are wall and CPU seconds of the process,
ratios are of CPU seconds, to reading and hashing; memory is the peak anonymous resident size above what the process
had after its imports. Files are read once before, so that all find them in the page cache where they fit.

    python benchmarks/adopt_cost.py [--weights 1e7] [--snapshots 12] [--dtype float32] [--folder DIR]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from harness.adopted import dynamics
from harness.adopted.adopt import adopt
from harness.adopted.following import Following, fitted
from harness.arguments import AdoptArguments
from harness.checkpoints.giving import give
from harness.checkpoints.registry import read_name, read_run
from harness.checkpoints.runs import AdoptedRun
from harness.checkpoints.trajectory import AdoptedTrajectory
from harness.checkpoints.writing import write_safetensors
from harness.storage.store import Store

CPU = torch.device("cpu")
CHUNK = 1 << 22


def shapes(weights: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Tensors of about so many weights: an embedding of a tenth, and layers of a transformer of width 256."""
    width, rest = 256, weights
    rows = max(1, weights // 10 // width)
    yield "wte.weight", (rows, width)
    rest -= rows * width
    layer = 0
    while rest > 0:
        for name, shape in (("attn", (3 * width, width)), ("fc", (4 * width, width)), ("proj", (width, 4 * width))):
            yield f"h.{layer}.{name}.weight", shape
            rest -= shape[0] * shape[1]
        yield f"h.{layer}.ln.weight", (width,)
        layer += 1


def write(folder: Path, weights: int, snapshots: int, dtype: torch.dtype) -> int:
    """Snapshots of a random walk; the bytes of all."""
    named = list(shapes(weights))
    for t in range(1, snapshots + 1):

        def made(name: str, t: int = t) -> torch.Tensor:
            seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
            shape = dict(named)[name]
            start = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.02
            step = torch.randn(shape, generator=torch.Generator().manual_seed(seed + t)) * 1e-3
            return (start + t**0.5 * step).to(dtype)

        write_safetensors(folder / f"step_{t}.safetensors", [(n, dtype, s) for n, s in named], made, {})
    return sum(path.stat().st_size for path in folder.iterdir())


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
    return digest.hexdigest()


def _run(root: Path) -> AdoptedRun:
    store = Store(root / "results")
    return read_run(store, read_name(store.root, "run").keys[0])


def read_and_hash(root: Path) -> None:
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(_hash, sorted((root / "runs").iterdir())))


def adopt_it(root: Path) -> None:
    adopt("run", AdoptArguments(source=str(root / "runs"), results_dir=str(root / "results")), lambda text: None)


def one_pass(root: Path) -> None:
    for _ in AdoptedTrajectory(_run(root), CPU).blocks(16 << 20):
        pass


def motion(root: Path) -> None:
    dynamics.motion(_run(root), CPU)


def cmd(root: Path) -> None:
    run = _run(root)
    for _ in Following(fitted("cmd_posthoc", run), run, CPU).proposals([run.epochs]):
        pass


def give_back(root: Path) -> None:
    run, to = _run(root), root / "given.safetensors"
    trajectory = AdoptedTrajectory(run, CPU)
    snapshot = trajectory[len(trajectory) - 1]
    give(run, run.epochs, snapshot.theta_N, snapshot.buffers, to)
    to.unlink()


WORK: dict[str, Callable[[Path], None]] = {
    "reading and hashing": read_and_hash,
    "adopt": adopt_it,
    "one pass": one_pass,
    "analyse's pass": motion,
    "fit of post-hoc CMD": cmd,
    "giving back": give_back,
}


def resident() -> int:
    """Anonymous resident bytes of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def _measure(name: str, root: Path, threads: int) -> dict[str, float]:
    """One piece of work in this process, watched by a thread that asks for its size a hundred times a second."""
    import threading

    torch.set_num_threads(threads)
    before, most, done = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.01):
            most = max(most, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    used, begun = time.process_time(), time.perf_counter()
    WORK[name](root)
    seconds, own = time.perf_counter() - begun, time.process_time() - used
    done.set()
    watcher.join()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "cpu": own, "above": max(most - before, 0), "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=lambda text: int(float(text)), default=10_000_000)
    parser.add_argument("--snapshots", type=int, default=12)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        (root / "runs").mkdir()
        size = write(root / "runs", given.weights, given.snapshots, getattr(torch, given.dtype))
        print(f"{given.weights:.3g} weights x {given.snapshots} snapshots in {given.dtype}: {size / 1e9:.2f} GB")
        read_and_hash(root)
        yardstick = 0.0
        print(f"{'':22}{'s':>8}{'CPU s':>8}{'of it':>7}{'GB/s':>7}{'MB above':>10}{'peak MB':>9}")
        for name in WORK:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(_measure, (name, root, given.threads))
            yardstick = yardstick or found["cpu"]
            print(
                f"{name:22}{found['seconds']:8.2f}{found['cpu']:8.2f}{found['cpu'] / yardstick:7.2f}"
                f"{size / 1e9 / found['seconds']:7.2f}{found['above'] / 1e6:10.0f}{found['peak'] / 1e6:9.0f}",
                flush=True,
            )
        print(json.dumps({"bytes": size, "weights": given.weights, "snapshots": given.snapshots}))
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
