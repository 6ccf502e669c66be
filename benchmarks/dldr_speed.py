"""What low-dimensional training costs: finding the subspace, and a step within it in units of an SGD step.

The subspace against a direct singular value decomposition (`torch.linalg.svd` of the centred float32 snapshots), in
turns in one run, for every size at which the machine has the memory for one: four times the snapshots. Peak extra
memory is that of the anonymous resident size over what was resident before (see `cmd_speed`); the result, 4 d bytes per
weight, is in it. The angle is the largest between the two subspaces.

Steps are those of real sessions on a timm model and Fashion-MNIST, the same batch size for all, epochs in turn: the
fastest epoch of each, and the median of the ratios by round. P-BFGS's depend on its line searches, so tries and
accepted steps are shown, and the cost that its passes alone would have if a forward pass were a third of a step.

    python benchmarks/dldr_speed.py [--rounds 3]
    python benchmarks/dldr_speed.py --steps [--model test_resnet] [--batch 128] [--dimensions 20] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path

import torch
from cmd_speed import PIECE, Motion, Resident, best
from torch import Tensor

from baselines.dldr import DLDR
from baselines.p_bfgs import PBFGS
from baselines.p_sgd import PSGD
from baselines.subspace import Subspace, orthonormalise
from harness.config import BaseConfig
from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.problem.datasets import obtain
from harness.problem.images import ImageSet
from harness.problem.splits import load_split
from harness.snapshots import MemoryTrajectory
from harness.training.clock import Clock
from harness.training.loop import Trainer
from harness.training.session import BranchSession

CPU = torch.device("cpu")
SIZES = (
    # weights, snapshots, dimensions
    (500_000, 21, 20),
    (1_000_000, 21, 20),
    (2_000_000, 21, 20),
    (4_000_000, 21, 20),
    (2_000_000, 41, 20),
    (2_000_000, 81, 20),
    (2_000_000, 81, 40),
    (11_000_000, 21, 20),
)
SVD_COPIES = 4
"""times the snapshots: they, their centred copy, the right singular vectors and the workspace"""


def available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def direct(W_TN: Tensor, dimensions: int) -> Tensor:
    """The first principal components as one writes them down."""
    return torch.linalg.svd(W_TN - W_TN.mean(0), full_matrices=False).Vh[:dimensions]


def largest_angle(P_DN: Tensor, Q_DN: Tensor) -> float:
    """Between two subspaces of orthonormal rows, in radians, from the sine: what of P lies outside Q."""
    Q_DN = orthonormalise(Q_DN)  # that of a float32 decomposition is so to 1e-6 only
    cross_DD, outside_DD = (torch.zeros(len(P_DN), len(P_DN), dtype=torch.float64) for _ in range(2))
    blocks = [slice(start, start + PIECE) for start in range(0, P_DN.shape[1], PIECE)]
    for block in blocks:
        cross_DD += P_DN[:, block].double() @ Q_DN[:, block].double().T
    for block in blocks:
        outside_DB = P_DN[:, block].double() - cross_DD @ Q_DN[:, block].double()
        outside_DD += outside_DB @ outside_DB.T
    return float(torch.linalg.eigvalsh(outside_DD)[-1].clamp(0, 1).sqrt().asin())


def subspaces(rounds: int) -> None:
    """One row per size."""
    print(
        "    weights    T    d     ours s   ns/(N T)   extra MiB   result MiB    svd s   svd MiB   svd / ours    angle"
    )
    for N, T, d in SIZES:
        # as many driving motions as dimensions, since a subspace that cuts through noise is nobody's
        W_TN, motion = torch.empty(T, N), Motion(N, T, d)
        for t in range(1, T + 1):
            motion.fill(t, W_TN[t - 1])
        # first, while no memory that an earlier fit has freed can be used again
        with Resident() as memory:
            subspace = Subspace.fit(W_TN, d)
        row = f"{N:11,d}  {T:3d}  {d:3d}"
        if (SVD_COPIES - 1) * W_TN.numel() * 4 > available_bytes():
            ours = best(partial(Subspace.fit, W_TN, d), rounds)
            theirs = f"{'-':>7s}  {'-':>8s}  {'-':>11s}  {'-':>7s}"
        else:
            with Resident() as svd_memory:
                angle = largest_angle(subspace.P_DN, direct(W_TN, d))
            turns = [
                (best(partial(Subspace.fit, W_TN, d), 1), best(partial(direct, W_TN, d), 1)) for _ in range(rounds)
            ]
            ours, svd = (min(times) for times in zip(*turns, strict=True))
            theirs = f"{svd:7.2f}  {svd_memory.extra:8.0f}  {svd / ours:11.1f}  {angle:7.0e}"
        result = 4 * d * N / 2**20
        print(f"{row}   {ours:8.3f}   {1e9 * ours / (N * T):8.2f}   {memory.extra:9.0f}   {result:10.0f}  {theirs}")


def warmed_up(base: BaseConfig, images: ImageSet, warmup: int) -> Tensor:
    """Snapshots 0..warmup of a base."""
    trainer = Trainer(base, images, CPU)
    rows = [trainer.flat.theta_N.clone()]
    for _ in range(warmup):
        trainer.train_epoch()
        rows.append(trainer.flat.theta_N.clone())
    return torch.stack(rows)


def begun(method: DLDR, base: BaseConfig, images: ImageSet, snapshots_TN: Tensor) -> BranchSession:
    """A session in which `method` trains from the end of the warm-up."""
    trainer = Trainer(base, images, CPU)
    trainer.flat.load(snapshots_TN[-1])
    session = BranchSession(
        trainer, method.branch(base.epochs), MemoryTrajectory(snapshots_TN), Clock(CPU), method.gradient_space
    )
    method.begin(session)
    return session


def steps(model: str, batch: int, dimensions: int, rounds: int) -> None:
    """Milliseconds of a step, epochs in turn."""
    images_key = "dataset.fashion_mnist.train_size=3840"
    lengths = (f"epochs={dimensions + 1}", f"batch_size={batch}")
    base = resolve(
        Request((f"model={model}", "dataset=fashion_mnist", "device=cpu", "method=base", images_key, *lengths)),
        "benchmark",
    ).bases[0][0]
    obtain(base.dataset)
    images = load_split(base.dataset, "train")
    snapshots_TN = warmed_up(base, images, dimensions)
    p_sgd, p_bfgs = (
        kind(warmup=dimensions, dimensions=dimensions, start="warmup_end", epochs=1, batch_size=batch)
        for kind in (PSGD, PBFGS)
    )
    plain = Trainer(base, images, CPU)
    plain.flat.load(snapshots_TN[-1])
    sessions = {method: begun(method, base, images, snapshots_TN) for method in (p_sgd, p_bfgs)}
    epochs = {
        "SGD": plain.train_epoch,
        "P-SGD": partial(p_sgd.train_epoch, sessions[p_sgd]),
        "P-BFGS": partial(p_bfgs.train_epoch, sessions[p_bfgs]),
    }
    times: dict[str, list[float]] = {name: [] for name in epochs}
    for round_ in range(rounds + 1):
        for name, epoch in epochs.items():
            taken = best(epoch, 1) / plain.steps_per_epoch()
            if round_ > 0:  # the first pays for what is allocated once
                times[name].append(taken)
    print(f"{model}, N {plain.flat.layout.N:,}, batch {batch}, d {dimensions}, {rounds} epochs of each in turn")
    for name, taken in times.items():
        paired = statistics.median(ours / sgd for ours, sgd in zip(taken, times["SGD"], strict=True))
        fastest = min(taken)
        ratio = fastest / min(times["SGD"])
        print(f"{name:8s} {1e3 * fastest:8.1f} ms a step   {ratio:5.2f} SGD steps   paired by round {paired:5.2f}")
    searched = p_bfgs.tables()["line_search"].iloc[1:].sum()
    tries, accepted = (searched[name] / searched["searches"] for name in ("tries", "accepted"))
    passes = 1 + accepted + tries / 3
    print(
        f"P-BFGS: {tries:.2f} tries and {accepted:.2f} steps per mini-batch; its passes alone: {passes:.2f} SGD steps"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", action="store_true", help="the cost of a step instead of that of the subspace")
    parser.add_argument("--model", default="test_resnet")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dimensions", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    if given.steps:
        steps(given.model, given.batch, given.dimensions, given.rounds)
    else:
        subspaces(given.rounds)


if __name__ == "__main__":
    main()
