"""Does a method beat what one would do anyway? Every method on a constant base beside the plain annealed run.

The rival of a method on a base of constant rate is `base_recalibrated` on the base's twin: the same model, data set,
length and seed, trained with an annealed rate. The plan names the twin's optimizer. The two are different training
runs, so the difference has the luck of both, and is paired by seed for the data's order and the first weights alone.
The comparisons are exploratory (see `stats.comparisons`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.report.stats.comparisons import EXPLORATORY, Key, judged, line_of, paired
from harness.report.stats.images import TestImages
from harness.report.stats.means import CONTROL, Spread
from harness.results.columns import ROW, ROW_METHOD
from harness.results.frame import MARGIN

TWIN = ["model", "dataset", "twin", "seed"]
"""What a rival's row and seed are called in the cells that it is the rival of."""


def rivals(frame: pd.DataFrame, metric: str = "test_accuracy", images: TestImages | None = None) -> pd.DataFrame:
    """Every method in a row that has a twin against the plain annealed run, in the order of the plan.

    One line per row and method: the columns of `stats.comparisons.comparisons`, twin (the rival's optimizer), and
    method_mean, method_std, rival_mean, rival_std over the seeds that both have. Empty where no row has a twin.
    """
    pairs = rival_pairs(frame, metric)
    lines, means = [], []
    planned = frame.groupby(ROW_METHOD)["base_key"].nunique().to_dict()
    for names, own in pairs.groupby(ROW_METHOD, sort=False):
        *row, method = map(str, names)
        key = Key(tuple(row), method, CONTROL)
        lines.append(line_of(own, key, EXPLORATORY, planned[names], metric, images))
        ours, theirs = (Spread.of(own[name].to_numpy(dtype=np.float64)) for name in ("value", "rival"))
        means.append((own["twin"].iloc[0], ours.mean, ours.std, theirs.mean, theirs.std))
    table = judged(lines, metric, 0, float(frame.attrs.get("margin", MARGIN)))
    sides = pd.DataFrame(means, columns=["twin", "method_mean", "method_std", "rival_mean", "rival_std"])
    return pd.concat([table, sides], axis=1)


def rival_pairs(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The lines of `stats.comparisons.pairs` against rivals, with twin, value and rival (the two numbers compared)."""
    done = frame[(frame["status"] == "done") & np.isfinite(frame[metric].astype("float64"))]
    plain = done[done["method"] == CONTROL].drop_duplicates([*ROW, "seed"], keep=False)
    by_twin = plain.set_index(_joined(plain, [*ROW, "seed"]))
    ours = done[done["twin"].notna()].drop_duplicates([*ROW_METHOD, "seed"], keep=False)
    keys = _joined(ours, TWIN)
    ours, keys = ours[keys.isin(by_twin.index)], keys[keys.isin(by_twin.index)]
    return paired(ours, keys, by_twin, metric).assign(
        twin=ours["twin"],
        value=ours[metric].astype("float64"),
        rival=keys.map(by_twin[metric]).astype("float64"),
    )


def _joined(cells: pd.DataFrame, names: list[str]) -> pd.Series[str]:
    """The columns named as one text per cell."""
    texts = [cells[name].astype("str").tolist() for name in names]
    return pd.Series([" ".join(parts) for parts in zip(*texts, strict=True)], index=cells.index, dtype="str")
