"""How the weights of a run moved: distances, path, motion of every tensor, and what models of it leave unexplained.

All follows from one pass over the snapshots and, for each model, one more: nothing of size N x T is held. A random walk
with the run's own step lengths stands beside the run: in many dimensions its steps are orthogonal, so that all of its
inner products follow from these lengths (Antognini and Sohl-Dickstein, PCA of high dimensional random walks, 2018).

Shape suffixes: N weights, T snapshots, L tensors, B a block of weights, K components.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from harness.adopted.following import Following
from harness.checkpoints.runs import AdoptedRun
from harness.checkpoints.trajectory import AdoptedTrajectory
from harness.planning.methods import FittedMethod

BLOCK_BYTES = 16 << 20
COMPONENTS = 10
"""principal components whose shares are told"""
WALK = "random walk of the same step lengths"
RUN = "the run"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Motion:
    """What one pass over a run gives."""

    ats: Floats
    """(T,) where each snapshot lies: steps, epochs or numbers"""
    gram_TT: Floats
    """inner products of the motions since the first snapshot"""
    tensors: pd.DataFrame
    """one line per tensor: name, weights, dtype, norm (of the last snapshot), step (root mean square of its relative
    steps), moved (share of its weights that ever changed), changed (mean share that changes between two snapshots),
    below_spacing (share whose mean step is less than one spacing of its type, NaN for float32 and float64)"""


def motion(run: AdoptedRun, device: torch.device) -> Motion:
    """One pass over all snapshots of a run."""
    trajectory, T = AdoptedTrajectory(run, device), len(run.sources)
    starts = np.array([*run.layout.offsets, run.N])
    L = len(run.weights)
    gram = torch.zeros(T, T, dtype=torch.float64, device=device)
    step_TL, norm_TL = np.zeros((T - 1, L)), np.zeros((T, L))
    moved_L, changed_L, below_L = np.zeros(L), np.zeros(L), np.zeros(L)
    for start, stop, W_TB in trajectory.blocks(BLOCK_BYTES):
        X_TB = W_TB.double()
        first, last = np.searchsorted(starts, [start, stop], side="left")
        for index in range(max(first - 1, 0), min(last, L)):
            low, high = max(starts[index], start) - start, min(starts[index + 1], stop) - start
            if high <= low:
                continue
            part_TB, own_TB = X_TB[:, low:high], W_TB[:, low:high]
            steps_TB = part_TB.diff(dim=0)
            step_TL[:, index] += steps_TB.square().sum(1).cpu().numpy()
            norm_TL[:, index] += part_TB.square().sum(1).cpu().numpy()
            differs_TB = own_TB[1:] != own_TB[:-1]
            moved_L[index] += differs_TB.any(0).sum().item()
            changed_L[index] += differs_TB.double().mean(0).sum().item()
            below_L[index] += _below(own_TB, run.weights[index].dtype)
        X_TB -= X_TB[0].clone()
        gram.addmm_(X_TB, X_TB.T)
    sizes = np.array(run.layout.sizes, dtype=np.float64).clip(min=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.sqrt(np.nanmean(np.where(norm_TL[:-1] > 0, step_TL / norm_TL[:-1], np.nan), axis=0))
    low = [own.dtype in SPACING for own in run.weights]
    table = pd.DataFrame(
        {
            "tensor": [own.name for own in run.weights],
            "weights": run.layout.sizes,
            "dtype": [own.dtype.removeprefix("torch.") for own in run.weights],
            "norm": np.sqrt(norm_TL[-1]),
            "step": relative,
            "moved": moved_L / sizes,
            "changed": changed_L / sizes,
            "below_spacing": np.where(low, below_L / sizes, np.nan),
        }
    )
    ats = np.array([source.at for source in run.sources])
    return Motion(ats, ((gram + gram.T) / 2).cpu().numpy(), table)


SPACING = {"torch.bfloat16": 2.0**-8, "torch.float16": 2.0**-11}
"""half the relative distance between two numbers of a type next to each other, at its largest"""


def _below(own_TB: torch.Tensor, dtype: str) -> float:
    """How many weights move less than one spacing of their type per snapshot, on average."""
    if dtype not in SPACING:
        return 0.0
    mean_B = (own_TB[-1] - own_TB[0]).abs() / (len(own_TB) - 1)
    _, exponent_B = torch.frexp(own_TB[-1])
    spacing_B = torch.ldexp(torch.full_like(mean_B, 2 * SPACING[dtype]), exponent_B - 1)
    return float((mean_B < spacing_B).sum().item())


def walk(gram_TT: Floats) -> Floats:
    """The inner products of a random walk with a run's step lengths, its steps orthogonal."""
    steps = np.diff(np.eye(len(gram_TT)), axis=0)
    lengths = np.diag(steps @ gram_TT @ steps.T).clip(min=0)
    total = np.concatenate([[0.0], lengths.cumsum()])
    return np.asarray(np.minimum.outer(total, total))


def distances(gram_TT: Floats) -> Floats:
    """Euclidean distances (T, T) between snapshots."""
    squares = np.diag(gram_TT)
    return np.asarray(np.sqrt(np.clip(squares[:, None] + squares[None] - 2 * gram_TT, 0, None)))


def cosines(gram_TT: Floats) -> Floats:
    """Cosines (T - 2,) of the angles between successive steps; NaN where a step is none."""
    D = np.diff(np.eye(len(gram_TT)), axis=0)
    steps = D @ gram_TT @ D.T
    lengths = np.sqrt(np.clip(np.diag(steps), 0, None))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.diag(steps, 1) / (lengths[1:] * lengths[:-1]))


@dataclass(frozen=True)
class Path:
    """A run over its principal components: coordinates (T, 2) and the share of the motion of each component (K,)."""

    points_T2: Floats
    shares_K: Floats


def path(gram_TT: Floats) -> Path:
    """The path over the two largest principal components of the snapshots, from their inner products."""
    T = len(gram_TT)
    centre = np.eye(T) - 1 / T
    values, vectors = np.linalg.eigh(centre @ gram_TT @ centre)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    points = vectors[:, :2] * np.sqrt(values[:2])
    points *= np.where(points[-1] < points[0], -1.0, 1.0)  # both run to the right and up, whatever eigh chose
    total, kept = values.sum(), values[: min(COMPONENTS, T - 1)]
    return Path(points, kept / total if total > 0 else kept * math.nan)


def errors(run: AdoptedRun, method: FittedMethod, device: torch.device, ts: Collection[int]) -> pd.DataFrame:
    """How far a method's weights lie from the run's own after each snapshot of `ts`: t, at, error.

    The error is |w^(t) - w(t)|, in parts of |w(T) - w(1)|. An observer's last proposal is held against the whole run
    where it is a mean; a forecast's own of each t.
    """
    following = Following(method, run, device)
    truth = AdoptedTrajectory(run, device)
    whole = float((truth[len(truth) - 1].theta_N - truth[truth.ts.index(1)].theta_N).double().norm())
    lines = []
    for t, proposal in following.proposals(ts):
        snapshot = truth[truth.ts.index(t)]
        if proposal is None:
            continue
        apart = float((proposal.theta_N - snapshot.theta_N).double().norm())
        lines.append({"t": t, "at": run.sources[run.ts.index(t)].at, "error": apart / whole if whole > 0 else math.nan})
    return pd.DataFrame(lines, columns=["t", "at", "error"])


def mean_errors(run: AdoptedRun, gram_TT: Floats) -> pd.DataFrame:
    """As `errors`, of the uniform mean of w(1..T), from inner products alone."""
    own = [place for place, t in enumerate(run.ts) if t >= 1]
    G = gram_TT[np.ix_(own, own)]
    T = len(own)
    squares = np.diag(G) - 2 * G.mean(1) + G.mean()
    whole = math.sqrt(max(G[0, 0] + G[-1, -1] - 2 * G[0, -1], 0.0))
    values = np.sqrt(squares.clip(min=0)) / whole if whole > 0 else np.full(T, math.nan)
    ats = [run.sources[place].at for place in own]
    return pd.DataFrame({"t": [run.ts[place] for place in own], "at": ats, "error": values})
