"""What methods cost, as means over seeds.

Gradients and forward passes are counted in images; training seconds and gradients include the shared prefix, which is
the whole run for methods that only watch it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.results.columns import BUSY, COSTS, KERNEL, ROW_METHOD, SECONDS


def costs(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over the finished seeds of every (model, dataset, optimizer, method), with n: the columns COSTS and KERNEL.

    Own epochs count as epochs in a subspace where gradients were taken there. Beside the means of SECONDS stand their
    medians, `<column>_median`; busy_cells are the seeds that ran while other processes had more than BUSY of the cores,
    unknown_cells those whose records do not say.
    """
    done = frame[frame["status"] == "done"].copy()
    own = done["epochs"] - done["prefix_epochs"]
    done["subspace_epochs"] = own.where(done["gradients_subspace"] > 0, 0.0)
    done["busy_cells"], done["unknown_cells"] = (done["busy"] > BUSY) * 1, done["busy"].isna() * 1
    groups = done.groupby(ROW_METHOD, sort=False)
    means = groups[[*COSTS, *KERNEL]].mean().assign(n=groups.size())
    medians = groups[list(SECONDS)].median().add_suffix("_median")
    table = means.join(medians).join(groups[["busy_cells", "unknown_cells"]].sum())
    return table.reset_index()[[*ROW_METHOD, "n", *COSTS, *KERNEL, *medians.columns, "busy_cells", "unknown_cells"]]


def accuracy_and_cost(cells: pd.DataFrame) -> pd.DataFrame:
    """Means and standard deviations over finished seeds, by method: test accuracy, seconds, gradients; and busy, how
    many of them ran while other processes had more than BUSY of the cores.

    Cells of which one of these is not known are left out.
    """
    seconds = cells["train_seconds"] + cells["method_seconds"]
    gradients = cells["gradients_full"] + cells["gradients_subspace"]
    numbers = cells[["test_accuracy"]].assign(seconds=seconds, gradients=gradients)
    known = numbers[np.isfinite(numbers).all(axis=1)]
    groups = known.groupby(cells["method"], sort=False)
    means, stds = groups.mean().add_suffix("_mean"), groups.std(ddof=1).add_suffix("_std")
    busy = cells["busy"].gt(BUSY).loc[known.index].groupby(cells["method"], sort=False).sum().rename("busy")
    return pd.concat([groups.size().rename("n"), means, stds, busy], axis=1).reset_index()
