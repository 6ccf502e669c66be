"""What methods cost, as means over seeds.

Gradients and forward passes are counted in images; training seconds and gradients include the shared prefix, which is
the whole run for methods that only watch it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.results.columns import COSTS, ROW_METHOD


def costs(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over the finished seeds of every (model, dataset, optimizer, method), with n: the columns COSTS.

    Own epochs count as epochs in a subspace where gradients were taken there.
    """
    done = frame[frame["status"] == "done"].copy()
    own = done["epochs"] - done["prefix_epochs"]
    done["subspace_epochs"] = own.where(done["gradients_subspace"] > 0, 0.0)
    groups = done.groupby(ROW_METHOD, sort=False)
    means = groups[list(COSTS)].mean()
    return means.assign(n=groups.size()).reset_index()[[*ROW_METHOD, "n", *COSTS]]


def accuracy_and_cost(cells: pd.DataFrame) -> pd.DataFrame:
    """Means and standard deviations over finished seeds, by method: test accuracy, seconds, gradients.

    Cells of which one of these is not known are left out.
    """
    seconds = cells["train_seconds"] + cells["method_seconds"]
    gradients = cells["gradients_full"] + cells["gradients_subspace"]
    spent = cells[["method", "test_accuracy"]].assign(seconds=seconds, gradients=gradients)
    known = np.isfinite(spent[["test_accuracy", "seconds", "gradients"]]).all(axis=1)
    groups = spent[known].groupby("method", sort=False)
    means, stds = groups.mean().add_suffix("_mean"), groups.std(ddof=1).add_suffix("_std")
    return pd.concat([groups.size().rename("n"), means, stds], axis=1).reset_index()
