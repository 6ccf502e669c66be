"""What the figures of CMD show, as tables: post-hoc CMD of a base's stored trajectory, fitted anew.

Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024). The sample is drawn as the cell
drew it, so that the modes are its own. Nothing of size T x N is held: a few passes over the stored snapshots.

Shape suffixes: N weights, T snapshots, K sampled weights, M modes, L tensors, H bins of |rho|, P pooled rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from torch import Tensor

from baselines.cmd.clustering import abs_correlation, cluster, row_distances
from baselines.cmd.posthoc import BLOCK_BYTES, CMD
from baselines.cmd.posthoc import decompose as fit
from baselines.cmd.sampling import gather, sample_trajectories
from baselines.finite import tensor_name
from harness.method import Layout, Trajectory
from harness.randomness import generator
from harness.report.unexplained import unexplained
from harness.snapshots import block_bounds

BINS = 40
"""of |rho| between 0 and 1"""
POOLED = 500
"""rows of the correlation matrix that are kept; more sampled weights are averaged in squares"""
WALKS = 20_000
"""random walks of the surrogate, or four times the sample where that is more"""
PANELS = 6
"""weights whose reconstruction is shown"""
SURROGATE = "surrogate"
"""stands in the column `mode` for the random walks"""


@dataclass(frozen=True)
class Tables:
    """What is drawn, each a CSV beside its figure."""

    correlation: pd.DataFrame
    """|correlation| of the sampled weights in the order of `sample`, averaged over squares; labelled by position"""
    sample: pd.DataFrame
    """one row per sampled weight: position, mode, weight, tensor, reference (of its mode)"""
    layers: pd.DataFrame
    """one row per tensor and mode: weights that moved, and their share of the tensor's in percent"""
    rho: pd.DataFrame
    """one row per mode, or surrogate, and bin low..high of |rho|: weights that moved; with the mode's mean |rho|"""
    weights: pd.DataFrame
    """one row per chosen weight and epoch: its value in the base, in CMD's model and in DMD's of the same dimension"""
    errors: pd.DataFrame
    """one row per kind of fit and dimension: share of the motion left unexplained"""


def decompose(trajectory: Trajectory, layout: Layout, modes: int, samples: int, seed: int) -> Tables:
    """The tables of a base of this seed; a weight counts as moved where its rho is not exactly 0.

    ValueError where a snapshot is not finite, there are fewer than 3, or no weight moved.
    """
    rng = generator(seed, "method/cmd/sample")  # as `Run.rng` gives it to the cell
    sample_K, x_TK = sample_trajectories(trajectory, layout.N, layout, samples, rng, BLOCK_BYTES)
    if sample_K.numel() == 0:
        raise ValueError("no weight moved")
    model = fit(trajectory, modes, sample_K, x_TK, layout)
    corr_KK = abs_correlation(x_TK)
    order_K, mode_K = clustered_order(corr_KK, modes)
    counts_LMH = count_moved(model, layout)
    surrogate = random_walks(len(trajectory), modes, len(sample_K), seed)
    errors, dmd_TT = unexplained(trajectory, model)
    return Tables(
        correlation=_pooled(corr_KK[order_K][:, order_K]),
        sample=_sample_table(sample_K[order_K], mode_K[order_K], model, layout),
        layers=_layer_table(counts_LMH.sum(2), layout),
        rho=pd.concat([_rho_table(model, counts_LMH.sum(0)), _surrogate_table(surrogate)], ignore_index=True),
        weights=_weight_table(model, layout, trajectory, seed, dmd_TT),
        errors=errors,
    )


def clustered_order(corr_KK: Tensor, modes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions sorted by mode, then by the leaves of the mode's own linkage; and the mode of each sampled weight.

    Modes are numbered as the fit does: largest first, ties by label.
    """
    label_K = cluster(corr_KK, modes)
    number_M = np.argsort(-np.bincount(label_K), kind="stable")
    mode_K = np.argsort(number_M)[label_K]
    order = []
    for mode in range(len(number_M)):
        member = np.flatnonzero(mode_K == mode)
        if len(member) > 2:
            tree = linkage(row_distances(corr_KK[torch.from_numpy(member)]), method="complete")
            member = member[leaves_list(tree)]
        order.append(member)
    return np.concatenate(order), mode_K


def count_moved(model: CMD, layout: Layout) -> NDArray[np.int64]:
    """Weights that moved, by tensor, mode and bin of |rho|: (L, M, H)."""
    M = len(model.reference_M)
    counts_LMH = torch.zeros(len(layout.names), M * BINS, dtype=torch.int64)
    for tensor, (offset, size) in enumerate(zip(layout.offsets, layout.sizes, strict=True)):
        for start, stop in block_bounds(size, 1, 1 << 22):
            here = slice(offset + start, offset + stop)
            rho_B = model.rho_N[here].abs()
            bin_B = (rho_B * BINS).long().clamp_(max=BINS - 1)
            cell_B = (model.mode_N[here].long() * BINS + bin_B)[rho_B > 0]
            counts_LMH[tensor] += torch.bincount(cell_B, minlength=M * BINS)
    return counts_LMH.view(-1, M, BINS).numpy()


def random_walks(T: int, modes: int, samples: int, seed: int) -> CMD:
    """CMD of independent Gaussian random walks over T snapshots: the |rho| that modes find where there are none."""
    walks = max(WALKS, 4 * samples)
    steps_TN = torch.randn(T, walks, generator=generator(seed, "figures/walks"))
    return CMD.fit(steps_TN.cumsum(0), min(modes, samples), samples, seed=seed)


def _pooled(corr_KK: Tensor) -> pd.DataFrame:
    """Means over squares, the last ones smaller, so that at most POOLED rows are left."""
    step = -(-len(corr_KK) // POOLED)
    pool = torch.nn.AvgPool2d(step, ceil_mode=True)
    first = range(0, len(corr_KK), step)
    return pd.DataFrame(
        pool(corr_KK[None])[0].numpy().round(3), index=pd.Index(first, name="position"), columns=list(first)
    )


def _sample_table(sample_K: Tensor, mode_K: NDArray[np.int64], model: CMD, layout: Layout) -> pd.DataFrame:
    weights = sample_K.tolist()
    return pd.DataFrame(
        {
            "position": range(len(weights)),
            "mode": mode_K,
            "weight": weights,
            "tensor": [tensor_name(layout, weight) for weight in weights],
            "reference": np.isin(weights, model.reference_M.numpy()),
        }
    )


def _layer_table(counts_LM: NDArray[np.int64], layout: Layout) -> pd.DataFrame:
    L, M = counts_LM.shape
    share_LM = 100 * counts_LM / np.maximum(counts_LM.sum(1, keepdims=True), 1)
    return pd.DataFrame(
        {
            "tensor": np.repeat(layout.names, M),
            "mode": np.tile(np.arange(M), L),
            "weights": counts_LM.ravel(),
            "share": share_LM.ravel(),
        }
    )


def _rho_table(model: CMD, counts_MH: NDArray[np.int64]) -> pd.DataFrame:
    M = len(counts_MH)
    return pd.DataFrame(
        {
            "mode": np.repeat([str(mode) for mode in range(M)], BINS),
            "mean_abs_rho": np.repeat(model.mean_abs_rho_M.numpy(), BINS),
            "low": np.tile(np.arange(BINS) / BINS, M),
            "high": np.tile(np.arange(1, BINS + 1) / BINS, M),
            "weights": counts_MH.ravel(),
        }
    )


def _surrogate_table(model: CMD) -> pd.DataFrame:
    """All modes of the random walks as one."""
    N = len(model.rho_N)
    counts_MH = count_moved(model, Layout(("walks",), ((N,),)))[0]
    table = _rho_table(model, counts_MH)
    summed = table.groupby(["low", "high"], as_index=False)["weights"].sum()
    mean = float(model.rho_N.abs().double().mean())
    return pd.DataFrame({"mode": SURROGATE, "mean_abs_rho": mean, **{name: summed[name] for name in summed.columns}})


def choose_weights(model: CMD, layout: Layout, seed: int) -> list[int]:
    """At most PANELS weights by chance: one of each of the largest modes in turn, where possible of other tensors."""
    rng = generator(seed, "figures/weights")
    # A mode of one weight is its reference, which is its own model
    largest = [mode for mode in model.size_M.argsort(descending=True, stable=True).tolist() if model.size_M[mode] > 1]
    chosen: list[int] = []
    taken = set(model.reference_M.tolist())
    tensors: set[str] = set()
    for turn in range(PANELS if largest else 0):
        member = torch.nonzero((model.mode_N == largest[turn % len(largest)]) & (model.rho_N != 0)).squeeze(1)
        drawn = member[torch.randint(len(member), (64,), generator=rng)].tolist()
        free = [weight for weight in drawn if weight not in taken]
        if free:
            fresh = (weight for weight in free if tensor_name(layout, weight) not in tensors)
            chosen.append(next(fresh, free[0]))
            taken.add(chosen[-1])
            tensors.add(tensor_name(layout, chosen[-1]))
    return chosen


def _weight_table(model: CMD, layout: Layout, trajectory: Trajectory, seed: int, dmd_TT: Tensor) -> pd.DataFrame:
    chosen = torch.tensor(choose_weights(model, layout, seed), dtype=torch.int64)
    base_TP = gather(trajectory, chosen, BLOCK_BYTES)
    mode_P = model.mode_N[chosen].long()
    motion_TP = model.references_TM[:, mode_P] - model.mu_M[mode_P]
    cmd_TP = model.wbar_N[chosen].double() + model.a_N[chosen].double() * motion_TP
    T = len(trajectory)
    return pd.DataFrame(
        {
            "weight": np.repeat(chosen.numpy(), T),
            "tensor": np.repeat([tensor_name(layout, weight) for weight in chosen.tolist()], T),
            "mode": np.repeat(mode_P.numpy(), T),
            "rho": np.repeat(model.rho_N[chosen].double().numpy(), T),
            "epoch": np.tile(trajectory.ts, len(chosen)),
            "base": base_TP.T.reshape(-1).numpy(),
            "cmd": cmd_TP.T.reshape(-1).numpy(),
            "dmd": (dmd_TT @ base_TP.double()).T.reshape(-1).numpy(),
        }
    )
