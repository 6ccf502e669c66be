"""The printed table of kernels: where in time the weights of every linear method lie, and what it is nearest to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from harness.report.stats.kernels import NEAR, RATIO, Kernels
from harness.report.tables.printed import EQUAL, Printed
from harness.report.tables.write import write_or_remove, write_printed
from harness.results.columns import ROW

CAPTION = (
    "Linear methods propose w = sum of c(t) w(t) over the base's snapshots: c is their kernel. Age: epochs that it "
    "lies behind the last one, sum of c(t) (T - t). n_eff: how many snapshots it averages, 1 / sum of c(t)^2. "
    "Distance: half the sum over epochs of |c - c'|, steps added within their epoch; the weights of two methods with "
    "one kernel each differ by at most this times the largest distance between two snapshots. Of methods with a kernel "
    "per mode it is "
    f"the mean over pairs of modes. {EQUAL}: nearly the same, distance at most {NEAR:g} and n_eff within a factor of "
    f"{RATIO:g}. Of the lowest seed."
)


def printed(found: Sequence[Kernels]) -> list[Printed]:
    """One table per row, methods by age."""
    tables, text = [], CAPTION
    for one in found:
        lines = []
        for line in one.methods.sort_values("age", kind="stable").to_dict("records"):
            method, nearest = str(line["method"]), one.nearest(str(line["method"]))
            mark = f" {EQUAL}" if nearest is not None and frozenset((method, nearest[0])) in one.near else ""
            lines.append(
                {
                    "method": method,
                    "kernels": f"{line['modes']}",
                    "age (epochs)": f"{line['age']:.2f}",
                    "n_eff (snapshots)": f"{line['n_eff']:.2f}",
                    "nearest": "–" if nearest is None else nearest[0] + mark,
                    "distance": "–" if nearest is None else f"{nearest[1]:.3f}",
                }
            )
        title, label = f"{', '.join(one.row)}, seed {one.seed}", "-".join(["kernels", *one.row])
        short = "Kernels of linear methods"
        tables.append(Printed(text, pd.DataFrame(lines), title=title, label=label, short_caption=short, note=CAPTION))
        text = "As above."
    return tables


def write_kernels(found: Sequence[Kernels], folder: Path) -> list[Printed]:
    """Write kernels.{md,tex} and, with every pair, kernels.csv, or remove them where there are none; the tables."""
    tables = printed(found)
    write_printed(tables, folder, "kernels")
    parts = [one.pairs.assign(**dict(zip(ROW, one.row, strict=True)), seed=one.seed) for one in found]
    pairs = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    write_or_remove(pairs[[*ROW, "seed", *found[0].pairs.columns]] if parts else pairs, folder / "kernels.csv")
    return tables
