"""The kernel of a linear method: the coefficients with which it combines snapshots into weights.

A method that is linear in the snapshots proposes w^ = sum_t c(t) w(t) with sum_t c(t) = 1: averages, a line in time and
principal components have one c for all weights, CMD has one per mode. Two numbers tell methods apart, or show that they
are one another in disguise: the age sum_t c(t) (T - t), how many epochs the proposal lies behind the last snapshot, and
the effective number of snapshots 1 / sum_t c(t)^2, by which independent noise in them is averaged down.

Shape suffixes: T snapshots, M modes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

ALL = "all"
"""what stands in the column `mode` where all weights have one kernel"""
MOST = 1000
"""rows of a mode's kernel"""


def row_of(ts: Sequence[int], t: int) -> int:
    """Where the epoch t stands among those of the snapshots; ValueError unless it is one of them."""
    if t not in ts:
        raise ValueError(f"t must be in {ts[0]}..{ts[-1]}, got {t}")
    return ts.index(t)


def kernel_table(c_MT: Tensor, ts: Sequence[int] | Sequence[float], size_M: Tensor | None = None) -> pd.DataFrame:
    """The table `kernel`: one row per mode (a number as text, or `all` where there is one) and snapshot, with c.

    `ts` are the snapshots' epochs, with a fraction for states within an epoch; `size_M` counts the weights of every
    mode, whose shares stand in the column `share`. Of more than MOST snapshots neighbours share a row, see
    `harness.method`.
    """
    M, T = c_MT.shape
    names = [ALL] if M == 1 else [str(mode) for mode in range(M)]
    c_MT = c_MT.double().cpu()
    columns: dict[str, object] = {"mode": np.repeat(names, T), "epoch": np.tile(np.asarray(ts), M)}
    table = pd.DataFrame(columns | {"coefficient": c_MT.flatten().numpy()})
    if size_M is not None and M > 1:
        table["share"] = np.repeat(shares(size_M).numpy(), T)
    return table if T <= MOST else _shortened(table, T)


def _shortened(table: pd.DataFrame, T: int) -> pd.DataFrame:
    """The rows of every stretch of neighbouring snapshots as one, the stretches as long as MOST rows per mode ask for.

    It stands at their mean epoch by |c|, which where all coefficients have one sign keeps the age as it is.
    """
    stretch = np.arange(T) // -(-T // MOST)
    weight = table["coefficient"].abs() + np.finfo(np.float64).tiny
    kept = table.assign(
        stretch=np.tile(stretch, len(table) // T), weight=weight, moment=weight * table["epoch"], snapshots=1,
        squares=table["coefficient"] ** 2,
    )  # fmt: skip
    groups = kept.groupby(["mode", "stretch"], sort=False)
    first = [name for name in ("share",) if name in table]
    summed = groups[["coefficient", "weight", "moment", "snapshots", "squares"]].sum().join(groups[first].first())
    summed["epoch"] = summed["moment"] / summed["weight"]
    return summed.reset_index()[["mode", "epoch", "coefficient", *first, "snapshots", "squares"]]


def kernel_scalars(c_MT: Tensor, ts: Sequence[int], size_M: Tensor | None = None) -> dict[str, float]:
    """Age in epochs and effective number of snapshots, over modes by the weights in each where given.

    The age is their mean, and the number of snapshots one over the mean of sum_t c(t)^2: the noise that is left of all.
    """
    c_MT = c_MT.double().cpu()
    age_M = c_MT @ (ts[-1] - torch.tensor(ts, dtype=torch.float64))
    share_M = shares(torch.ones(len(c_MT)) if size_M is None else size_M)
    return {"kernel_age": float(share_M @ age_M), "kernel_n_eff": 1 / float(share_M @ c_MT.square().sum(1))}


def shares(size_M: Tensor) -> Tensor:
    """The modes' shares of all weights, float64; equal ones where no weight is in any."""
    size_M = size_M.double()
    return size_M / size_M.sum() if float(size_M.sum()) > 0 else torch.full_like(size_M, 1 / len(size_M))
