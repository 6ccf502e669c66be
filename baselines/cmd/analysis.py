"""What figures of post-hoc CMD show, as tables, and the plane of its two largest modes.

Brokman et al., Enhancing Neural Training via a Correlated Dynamics Model (ICLR 2024). Nothing of size T x N is held:
the snapshots are read again in blocks.

Whether CMD's correlations say anything of the dynamics is asked of surrogates: the same weights with their own steps
in another order, the same for all of them or one of each weight's own, or with other signs. These keep how large every
weight's steps are, and what is common to weights only where the order is common.

Shape suffixes: N weights, T snapshots, K sampled weights, M modes, P chosen weights, R drawn ranks, S steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from baselines.cmd.clustering import abs_correlation, row_distances
from baselines.cmd.modes import BINS, ModeReport
from baselines.cmd.modes import BLOCK_BYTES as COUNT_BYTES
from baselines.cmd.posthoc import BLOCK_BYTES, CMD, Sample, decompose
from baselines.cmd.sampling import draw, gather
from baselines.dmd.dynamics import Dynamics
from baselines.finite import tensor_name
from baselines.gram import gram
from harness.method import Layout, Plane, Run, Trajectory
from harness.snapshots import MemoryTrajectory, block_bounds

POOLED = 250
"""rows of the correlation table; more sampled weights are averaged in squares"""
DRAWN_WEIGHTS = 20_000
"""weights that surrogates are compared on, or all that moved where those are fewer"""
PANELS = 6
"""weights whose reconstruction is shown"""
DRAWN = 64
"""weights drawn for each of those, in search of one in a tensor that is not shown yet"""
MOST = 30
"""dimensions up to which DMD and principal components are shown"""
ALIKE, PER_WEIGHT, FLIPPED = "steps permuted alike", "steps permuted per weight", "signs of steps flipped"
SURROGATES = ALIKE, PER_WEIGHT, FLIPPED
"""what surrogates are called in the tables"""
RUN = "the run itself"
"""what stands beside them"""
TIME_MEAN, POSTHOC_CMD, DMD, PRINCIPAL = "time mean", "post-hoc CMD", "DMD", "principal components"


@dataclass(frozen=True, eq=False)
class Chosen:
    """Weights that tables show, chosen while the correlations of all weights are held; all on the CPU."""

    drawn_R: Tensor
    """int64 indices, ascending, of those that surrogates are compared on"""
    rho_R: Tensor
    """float32 correlations of those with their references"""
    shown: list[int]
    """indices of those whose reconstruction is shown"""
    rho_P: Tensor
    """float32 correlations of those"""

    @classmethod
    def of(cls, cmd: CMD, report: ModeReport, run: Run) -> Chosen:
        """Drawn by the run's own randomness from a fit that has its `rho_N`."""
        drawn_R, shown = draw_moving(cmd, report, run), choose_weights(cmd, report, run.layout, run.rng("cmd/weights"))
        index_P = torch.tensor(shown, dtype=torch.int64)
        rho_R, rho_P = (cmd.rho_N[index.to(cmd.rho_N.device)].cpu() for index in (drawn_R, index_P))
        return cls(drawn_R, rho_R, shown, rho_P)


def analysis(cmd: CMD, report: ModeReport, chosen: Chosen, trajectory: Trajectory, run: Run) -> dict[str, pd.DataFrame]:
    """Tables of a fit to this trajectory of a run; none where no weight moved.

    `rho`: as the report's, with all modes of each surrogate as one of its name. `surrogates`: the mean |rho| of each,
    and of the run, over the same weights. `sample`: one row per sampled weight in the order of `correlation`, its mode,
    index, tensor, and whether it is its mode's reference. `correlation`: |correlation| of the sampled weights, one row
    and column per position. `trajectories`: one row per chosen weight and epoch, with its value in the run (`base`), in
    CMD's model and in DMD's of the same dimension. `errors`: the share of the motion that fits of a kind and dimension
    leave unexplained.
    """
    layout, sample = run.layout, cmd.sample
    if sample is None or sum(map(sum, report.size_LM)) == 0:
        return {}
    surrogates, histograms = compared(cmd, sample, chosen, trajectory, run)
    order_K, corr_KK = clustered(sample)
    errors, dmd_TT = unexplained(cmd, trajectory, layout.N)
    tables = {
        "rho": pd.concat([report.rho(), *histograms], ignore_index=True),
        "surrogates": surrogates,
        "sample": _sample_table(sample, order_K, cmd, layout),
        "correlation": pooled(corr_KK, order_K),
        "errors": errors,
    }
    if chosen.shown:
        tables["trajectories"] = _trajectory_table(cmd, trajectory, layout, chosen, dmd_TT)
    return tables


def clustered(sample: Sample) -> tuple[Tensor, Tensor]:
    """Positions in the sample by mode and then by the leaves of the mode's own linkage, (K,), and |correlations|."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    corr_KK = abs_correlation(sample.x_TK)
    order = []
    for mode in range(int(sample.mode_K.max()) + 1):
        member = torch.nonzero(sample.mode_K == mode).squeeze(1)
        if len(member) > 2:
            tree = linkage(row_distances(corr_KK[member.to(corr_KK.device)]), method="complete")
            member = member[torch.from_numpy(leaves_list(tree)).long()]
        order.append(member)
    return torch.cat(order), corr_KK


def pooled(corr_KK: Tensor, order_K: Tensor) -> pd.DataFrame:
    """Means over squares of the matrix in this order, the last ones smaller, so that at most POOLED rows are left."""
    K, order_K = len(order_K), order_K.to(corr_KK.device)
    step = -(-K // POOLED)
    rows = [corr_KK[part_K][:, order_K] for part_K in torch.split(order_K, step)]
    pool = torch.nn.AvgPool1d(step, ceil_mode=True)
    means = torch.stack([pool(row.mean(0)[None])[0] for row in rows]).cpu().numpy().round(3)
    first = range(0, K, step)
    return pd.DataFrame({"position": first, **{str(at): means[:, column] for column, at in enumerate(first)}})


def _sample_table(sample: Sample, order_K: Tensor, cmd: CMD, layout: Layout) -> pd.DataFrame:
    weights = sample.index_K[order_K].tolist()
    return pd.DataFrame(
        {
            "position": range(len(weights)),
            "mode": sample.mode_K[order_K].numpy(),
            "weight": weights,
            "tensor": [tensor_name(layout, weight) for weight in weights],
            "reference": np.isin(weights, cmd.reference_M.numpy()),
        }
    )


def compared(
    cmd: CMD, sample: Sample, chosen: Chosen, trajectory: Trajectory, run: Run
) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """The table `surrogates`, and the table `rho` of each: CMD of the same sample, judged on weights drawn by chance.

    As many modes are found among the surrogates of the sampled weights as among these themselves, and the drawn weights
    join them. Weights that never moved are not among them. No block of snapshots decides what is drawn.
    """
    drawn_R, rho_R = chosen.drawn_R, chosen.rho_R.abs()
    index = torch.from_numpy(np.union1d(sample.index_K, drawn_R))
    steps_SN = gather(trajectory, index, BLOCK_BYTES).diff(dim=0)
    at_K, at_R = torch.searchsorted(index, sample.index_K), torch.searchsorted(index, drawn_R)
    rows, histograms = [(RUN, float(rho_R.double().mean()), len(drawn_R))], []
    for name in SURROGATES:
        moved_SN = surrogate_steps(steps_SN, name, run.rng(f"cmd/{name}")).cumsum(0)
        W_TN = torch.cat([moved_SN.new_zeros(1, len(index)), moved_SN]).float()
        fit = decompose(MemoryTrajectory(W_TN), len(cmd.reference_M), at_K)
        rho_R = fit.rho_N[at_R.to(fit.rho_N.device)].abs().cpu()
        histograms.append(histogram(rho_R, name))
        rows.append((name, float(rho_R.double().mean()), len(drawn_R)))
    return pd.DataFrame(rows, columns=["steps", "mean_abs_rho", "weights"]), histograms


def draw_moving(cmd: CMD, report: ModeReport, run: Run) -> Tensor:
    """Indices of DRAWN_WEIGHTS weights that moved, all of them where they are fewer, each as likely: ascending."""
    moved = sum(map(sum, report.size_LM))
    rank_R = draw(moved, min(moved, DRAWN_WEIGHTS), run.rng("cmd/surrogates"))
    return _members(cmd, None, rank_R, run.layout.N)


def surrogate_steps(steps_SN: Tensor, name: str, generator: torch.Generator) -> Tensor:
    """The steps of a surrogate: in another order, drawn once or for every weight, or each with a sign of its own."""
    S, N = steps_SN.shape
    if name == ALIKE:
        return steps_SN[torch.randperm(S, generator=generator).to(steps_SN.device)]
    random_SN = torch.rand(S, N, generator=generator).to(steps_SN.device)
    if name == FLIPPED:
        return torch.where(random_SN < 0.5, -steps_SN, steps_SN)
    return steps_SN.gather(0, random_SN.argsort(0))


def histogram(rho_R: Tensor, name: str) -> pd.DataFrame:
    """The table `rho` of these |rho|, under one name."""
    bin_R = (rho_R * BINS).long().clamp_(max=BINS - 1)
    return pd.DataFrame(
        {
            "mode": name,
            "mean_abs_rho": float(rho_R.double().mean()),
            "low": np.arange(BINS) / BINS,
            "high": np.arange(1, BINS + 1) / BINS,
            "weights": torch.bincount(bin_R, minlength=BINS).numpy(),
        }
    )


def unexplained(cmd: CMD, trajectory: Trajectory, N: int) -> tuple[pd.DataFrame, Tensor]:
    """The table `errors`, and what DMD of CMD's dimension makes of the snapshots, as (T, T) coefficients of them.

    The share is sum_it (w^_i(t) - w_i(t))^2 over sum_it (w_i(t) - mean_t w_i)^2: 0 for the run itself, 1 for its time
    average. Principal components bound every linear model of their dimension from below; DMD is bound to linear
    dynamics, CMD to one reference per weight. DMD and principal components are known from the T x T inner products, CMD
    from the squares that its regressions explain. DMD's rank is cut where T snapshots cannot span it.
    """
    gram_TT = gram(trajectory, shift=True)
    T, modes = len(gram_TT), len(cmd.reference_M)
    centred_TT = gram_TT - gram_TT.mean(0) - gram_TT.mean(1)[:, None] + gram_TT.mean()
    total = float(centred_TT.diagonal().sum())
    lines = [(TIME_MEAN, 0, 1.0), (POSTHOC_CMD, modes, 1 - explained(cmd, N) / total)]
    squares_T = torch.linalg.eigvalsh(centred_TT).flip(0).clamp(min=0)
    most = min(MOST, T - 2)
    lines += [(PRINCIPAL, dimension, float(squares_T[dimension:].sum()) / total) for dimension in range(1, most + 1)]
    coefficients = {0: torch.full((T, T), 1 / T, dtype=torch.float64)}
    for rank in range(1, most + 1):
        dynamics = Dynamics.fit(gram_TT, N, rank, 1.0, "constant")
        if dynamics.rank.used < rank:
            break
        c_TT = torch.stack([dynamics.coefficients(z_R) for z_R in dynamics.in_sample()])
        coefficients[rank] = c_TT
        # Each row of coefficients sums to 1, so what is subtracted from the snapshots does not matter.
        rest_TT = torch.eye(T, dtype=torch.float64) - c_TT
        lines.append((DMD, rank, float((rest_TT @ gram_TT @ rest_TT.T).diagonal().sum()) / total))
    chosen = max(rank for rank in coefficients if rank <= modes)
    return pd.DataFrame(lines, columns=["fit", "dimension", "share"]), coefficients[chosen]


def explained(cmd: CMD, N: int) -> float:
    """The sum over N weights and all snapshots of the squared motion of CMD's model about the time average."""
    squares_M = (cmd.references_TM - cmd.mu_M).square().sum(0).to(cmd.a_N.device)
    total = 0.0
    for start, stop in block_bounds(N, 1, COUNT_BYTES):
        a_B = cmd.a_N[start:stop].double()
        total += float((a_B.square() * squares_M[cmd.mode_N[start:stop].long()]).sum())
    return total


def choose_weights(cmd: CMD, report: ModeReport, layout: Layout, generator: torch.Generator) -> list[int]:
    """At most PANELS weights by chance: one of each of the largest modes in turn, where possible of other tensors."""
    size_M = [sum(sizes) for sizes in zip(*report.size_LM, strict=True)]
    # A mode of one weight is its reference, which is its own model
    largest = sorted((mode for mode, size in enumerate(size_M) if size > 1), key=lambda mode: -size_M[mode])
    chosen: list[int] = []
    taken, tensors = set(cmd.reference_M.tolist()), set[str]()
    for turn in range(PANELS if largest else 0):
        mode = largest[turn % len(largest)]
        rank_R = torch.randint(size_M[mode], (DRAWN,), generator=generator)
        free = [weight for weight in _members(cmd, mode, rank_R, layout.N).tolist() if weight not in taken]
        if free:
            fresh = (weight for weight in free if tensor_name(layout, weight) not in tensors)
            chosen.append(next(fresh, free[0]))
            taken.add(chosen[-1])
            tensors.add(tensor_name(layout, chosen[-1]))
    return chosen


def _members(cmd: CMD, mode: int | None, rank_R: Tensor, N: int) -> Tensor:
    """The weights of these ranks among those of a mode, or of all, that moved, in the order of `rank_R`."""
    found_R, before = torch.empty_like(rank_R), 0
    for start, stop in block_bounds(N, 1, COUNT_BYTES):
        own_B = cmd.rho_N[start:stop] != 0
        if mode is not None:
            own_B &= cmd.mode_N[start:stop] == mode
        index = start + torch.nonzero(own_B).squeeze(1).cpu()
        here_R = (rank_R >= before) & (rank_R < before + len(index))
        found_R[here_R] = index[rank_R[here_R] - before]
        before += len(index)
    return found_R


def _trajectory_table(cmd: CMD, trajectory: Trajectory, layout: Layout, chosen: Chosen, dmd_TT: Tensor) -> pd.DataFrame:
    index_P = torch.tensor(chosen.shown, dtype=torch.int64)
    base_TP = gather(trajectory, index_P, BLOCK_BYTES).cpu()
    vectors = (cmd.wbar_N, cmd.a_N, cmd.mode_N)
    wbar_P, a_P, mode_P = (vector_N[index_P.to(vector_N.device)].cpu() for vector_N in vectors)
    motion_TP = (cmd.references_TM - cmd.mu_M)[:, mode_P.long()]
    cmd_TP = wbar_P.double() + a_P.double() * motion_TP
    T = len(trajectory)
    return pd.DataFrame(
        {
            "weight": np.repeat(chosen.shown, T),
            "tensor": np.repeat([tensor_name(layout, weight) for weight in chosen.shown], T),
            "mode": np.repeat(mode_P.long().numpy(), T),
            "rho": np.repeat(chosen.rho_P.double().numpy(), T),
            "epoch": np.tile(trajectory.ts, len(chosen.shown)),
            "base": base_TP.T.reshape(-1).numpy(),
            POSTHOC_CMD: cmd_TP.T.reshape(-1).numpy(),
            DMD: (dmd_TT @ base_TP).T.reshape(-1).numpy(),
        }
    )


def two_mode_plane(cmd: CMD, N: int) -> Plane | None:
    """CMD's model of the last snapshot with the references of the two largest modes free; None where two do not move.

    A unit of either axis is a standard deviation of its reference over the run, counted from its time average.
    """
    if len(cmd.reference_M) < 2:
        return None
    motion_TM = cmd.references_TM - cmd.mu_M
    scale_M = motion_TM.std(0, correction=0)
    if float(scale_M[:2].min()) == 0:
        return None
    x_M = cmd.references_TM[-1].clone()
    x_M[:2] = cmd.mu_M[:2]
    axes_2N = torch.zeros(2, N, device=cmd.a_N.device)
    for axis, scale in enumerate(scale_M[:2].tolist()):
        torch.mul(cmd.a_N[:N] * scale, cmd.mode_N[:N] == axis, out=axes_2N[axis])
    labels = "reference of the largest mode (standard deviations)", "reference of the second mode (standard deviations)"
    return Plane(cmd.decode(x_M)[:N], axes_2N, motion_TM[:, :2] / scale_M[:2], cmd.ts, labels)
