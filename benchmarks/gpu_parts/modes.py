"""c: what CMD costs where the weights are, beside reading the trajectory once."""

from __future__ import annotations

import gc
from typing import NamedTuple

import torch
from cmd_speed import Motion, online_cost, posthoc_cost

from gpu_parts.findings import Findings
from gpu_parts.options import Options
from harness.snapshots import MemoryTrajectory

MODES = 10
MOST_SNAPSHOTS, LEAST_SNAPSHOTS = 50, 10
SHARE_OF_MEMORY = 0.5
"""of a GPU, that the trajectory may take"""
RESULT_BYTES = 13
"""of a weight: mean, slope, correlation and mode"""


class Sizes(NamedTuple):
    """How many weights, and how many of them are clustered."""

    weights: tuple[int, ...]
    samples: int
    rounds: int


FULL, TINY = Sizes((10_000_000, 86_000_000), 1000, 3), Sizes((20_000, 40_000), 100, 1)


def run(options: Options, findings: Findings) -> None:
    """Each number of weights in turn."""
    sizes, device = TINY if options.tiny else FULL, torch.device(options.device)
    findings.note(
        f"{MODES} modes, {sizes.samples} weights clustered, whose linkage is scipy's on the CPU; the best of "
        f"{sizes.rounds} rounds for post-hoc CMD, of {5 * sizes.rounds} for an update. The trajectory lies on the "
        "device."
    )
    for N in sizes.weights:
        with findings.piece(f"N = {N:,}"):
            findings.deadline.need(0.0 if options.tiny else 5.0 + N / 5e6)
            _measure(N, _snapshots(N, device), sizes, device, findings)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _snapshots(N: int, device: torch.device) -> int:
    """As many as fit, up to `MOST_SNAPSHOTS`."""
    if device.type != "cuda":
        return LEAST_SNAPSHOTS
    free, _ = torch.cuda.mem_get_info()
    return max(LEAST_SNAPSHOTS, min(MOST_SNAPSHOTS, int(SHARE_OF_MEMORY * free / (4 * N))))


def _measure(N: int, T: int, sizes: Sizes, device: torch.device, findings: Findings) -> None:
    W_TN = torch.empty(T, N, device=device)
    motion = Motion(N, T, MODES)
    for t in range(1, T + 1):
        motion.fill(t, W_TN[t - 1])
    cmd, cost = posthoc_cost(MemoryTrajectory(W_TN), MODES, sizes.samples, sizes.rounds, device)
    findings.row(
        "Post-hoc CMD",
        {
            "weights": f"{N:,}",
            "snapshots": T,
            "reading, s": cost.read,
            "CMD, s": cost.whole,
            "of which clustering, s": cost.clustering,
            "times reading": cost.whole / cost.read,
            "times reading without clustering": cost.rest / cost.read,
            "extra memory, MiB": cost.extra,
            "of which results, MiB": RESULT_BYTES * N / 2**20,
        },
    )
    online = online_cost(cmd, list(W_TN), sizes.rounds, device)
    findings.row(
        "Online CMD, one update",
        {
            "weights": f"{N:,}",
            "copying, ms": 1e3 * online.copy,
            "update, ms": 1e3 * online.update,
            "times copying": online.update / online.copy,
            "state, bytes per weight": online.bytes_per_weight,
        },
    )
