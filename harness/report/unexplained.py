"""How much of the weights' motion models of different dimension leave unexplained, in-sample, from inner products.

The share is sum_it (w^_i(t) - w_i(t))^2 over sum_it (w_i(t) - mean_t w_i)^2: 0 for the run itself, 1 for its time
average. Principal components bound every linear model of that dimension from below; DMD is bound to linear dynamics,
CMD to one reference per weight. Nothing of size T x N is held: DMD and principal components are known from the
T x T inner products, CMD from the squares that its regressions explain.

Shape suffixes: N weights, T snapshots, M modes, B a block of weights.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from baselines.cmd import posthoc
from baselines.dmd.dynamics import Dynamics
from baselines.gram import gram
from harness.method import Trajectory
from harness.snapshots import block_bounds

TIME_MEAN, CMD, DMD, PRINCIPAL = "time mean", "post-hoc CMD", "DMD", "principal components"
MOST = 30
"""dimensions up to which DMD and principal components are shown"""


def unexplained(trajectory: Trajectory, model: posthoc.CMD) -> tuple[pd.DataFrame, Tensor]:
    """Shares by kind of fit and dimension, and what DMD of CMD's dimension makes of the snapshots: (T, T) coefficients.

    Columns: fit, dimension, share. DMD's rank is cut where T snapshots cannot span it.
    """
    gram_TT = gram(trajectory, shift=True)
    T, N = len(gram_TT), len(model.wbar_N)
    centred_TT = gram_TT - gram_TT.mean(0) - gram_TT.mean(1)[:, None] + gram_TT.mean()
    total = float(centred_TT.diagonal().sum())
    modes = len(model.reference_M)
    lines = [(TIME_MEAN, 0, 1.0), (CMD, modes, 1 - explained(model) / total)]
    squares_T = torch.linalg.eigvalsh(centred_TT).flip(0).clamp(min=0)
    most = min(MOST, T - 2)
    for dimension in range(1, most + 1):
        lines.append((PRINCIPAL, dimension, float(squares_T[dimension:].sum()) / total))
    coefficients = {}
    for rank in range(1, most + 1):
        dynamics = Dynamics.fit(gram_TT, N, rank, 1.0, "constant")
        if dynamics.rank.used < rank:
            break
        c_TT = torch.stack([dynamics.coefficients(z_R) for z_R in dynamics.in_sample()])
        coefficients[rank] = c_TT
        # Each row of coefficients sums to 1, so what is subtracted from the snapshots does not matter.
        rest_TT = torch.eye(T, dtype=torch.float64) - c_TT
        lines.append((DMD, rank, float((rest_TT @ gram_TT @ rest_TT.T).diagonal().sum()) / total))
    chosen = max((rank for rank in coefficients if rank <= modes), default=None)
    c_TT = torch.full((T, T), 1 / T, dtype=torch.float64) if chosen is None else coefficients[chosen]
    return pd.DataFrame(lines, columns=["fit", "dimension", "share"]), c_TT


def explained(model: posthoc.CMD) -> float:
    """Sum over weights and snapshots of the squared motion of CMD's model about the time average."""
    motion_TM = model.references_TM - model.mu_M
    squares_M = motion_TM.square().sum(0)
    total = 0.0
    for start, stop in block_bounds(len(model.a_N), 1, 1 << 22):
        a_B = model.a_N[start:stop].double()
        total += float((a_B.square() * squares_M[model.mode_N[start:stop].long()]).sum())
    return total
