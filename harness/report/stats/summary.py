"""All that is known of every method in every model, dataset and optimizer as one table; the others are drawn from it.

One line per (model, dataset, optimizer, method), and one per method over all of them where there are several.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from harness.report.stats.comparisons import comparisons
from harness.report.stats.cost import costs
from harness.report.stats.curves import curve_table
from harness.report.stats.means import ALL, BESIDE, CONTROLS, Row, entries
from harness.report.stats.progress import MEASURES, areas, curves, target_of, time_to_target
from harness.report.stats.ranks import Ranking, rankings
from harness.results.columns import COSTS, METRICS, ROW, ROW_METHOD

PAIRED = ("mean", "std", "low", "high", "t_low", "t_high", "p_holm", "effect", "n", "wins", "losses", "verdict")
"""What the summary has of every comparison, in columns `<field>_to_<control>`."""


@dataclass(frozen=True)
class Results:
    """A suite's numbers: its frame and history, and what follows from them."""

    frame: pd.DataFrame
    history: pd.DataFrame
    metric: str
    compared: pd.DataFrame
    ranked: Mapping[Row, Ranking]
    curve: pd.DataFrame
    times: pd.DataFrame
    areas: pd.Series[float]
    reconstructions: frozenset[str]
    target: float | None = None

    @cached_property
    def over_seeds(self) -> pd.DataFrame:
        """Curves as means and standard deviations over seeds, see `stats.curves.curve_table`."""
        return curve_table(self.frame, self.history)

    @property
    def target_in_words(self) -> str:
        """The target as figures and page name it."""
        return "what the recalibrated base ends with" if self.target is None else f"{self.target:g} %"

    @property
    def reached(self) -> pd.DataFrame:
        """What every cell spent up to its target, with the area under its curve."""
        return self.times.assign(area=self.times["cell_key"].map(self.areas).astype("float64"))

    @property
    def overall(self) -> Row:
        """The line that speaks for the suite: over all rows, or of its only one."""
        rows = list(self.ranked)
        return rows[-1]


def results(
    frame: pd.DataFrame, history: pd.DataFrame, metric: str = "test_accuracy", target: float | None = None
) -> Results:
    """The statistics of a frame and its history.

    `target` is a validation accuracy in percent, see `progress.target_of`.
    """
    reconstructions = frozenset(frame.attrs.get("reconstructions", ()))
    curve = curves(frame, history, reconstructions)
    return Results(
        frame=frame,
        history=history,
        metric=metric,
        compared=comparisons(frame, metric),
        ranked=rankings(frame, metric),
        curve=curve,
        times=time_to_target(frame, curve, target_of(frame, target), reconstructions),
        areas=areas(frame, curve),
        reconstructions=reconstructions,
        target=target,
    )


def summary(found: Results) -> pd.DataFrame:
    """One line per row and method, with all that is known of it; numbers over all rows are those of pairs alone.

    Columns: model, dataset, optimizer, method, batchnorm, status, n, seeds; `<metric>_mean`, `_std`, `_n`; rank, tied,
    why unranked; PAIRED to every control and to `base`; target, area, `<measure>_to_target` (medians over seeds,
    infinite where most do not reach it), reached; means of COSTS.
    """
    lines = [*_lines(found.frame), *_over_all(found)]
    table = pd.DataFrame(lines).set_index(ROW_METHOD)
    table = table.join(_ranks(found.ranked)).join(_paired(found.compared)).join(_targets(found))
    table = table.join(costs(found.frame).set_index(ROW_METHOD)[list(COSTS)])
    return table.reset_index()


def _lines(frame: pd.DataFrame) -> list[dict[str, object]]:
    by_metric = {metric: entries(frame, metric) for metric in METRICS}
    lines = []
    for row, methods in by_metric["test_accuracy"].items():
        for method, entry in methods.items():
            line: dict[str, object] = {**dict(zip(ROW, row, strict=True)), "method": method}
            line |= {"batchnorm": entry.batchnorm, "status": entry.status, "n": entry.finished, "seeds": entry.seeds}
            for metric, table in by_metric.items():
                spread = table[row][method].spread
                line |= {f"{metric}_mean": spread.mean, f"{metric}_std": spread.std, f"{metric}_n": spread.n}
            lines.append(line)
    return lines


def _over_all(found: Results) -> list[dict[str, object]]:
    if found.overall[0] != ALL:
        return []
    frame = found.frame
    lines = []
    for method, cells in frame.groupby("method", sort=False):
        done = cells["status"] == "done"
        line: dict[str, object] = {**dict.fromkeys(ROW, ALL), "method": method}
        line |= {"batchnorm": "/".join(dict.fromkeys(cells["batchnorm"])), "status": ""}
        lines.append(line | {"n": int(done.sum()), "seeds": cells["base_key"].nunique()})
    return lines


def _ranks(ranked: Mapping[Row, Ranking]) -> pd.DataFrame:
    lines = []
    for row, ranking in ranked.items():
        tied = ranking.tied_with_best
        lines += [(*row, method, rank, method in tied, "") for method, rank in ranking.ranks.items()]
        lines += [(*row, method, np.nan, False, why) for method, why in ranking.unranked.items()]
    return pd.DataFrame(lines, columns=[*ROW_METHOD, "rank", "tied", "unranked"]).set_index(ROW_METHOD)


def _paired(compared: pd.DataFrame) -> pd.DataFrame:
    parts = []
    for control in (*CONTROLS, BESIDE):
        part = compared[compared["control"] == control].set_index(ROW_METHOD)[list(PAIRED)]
        parts.append(part.rename(columns={name: f"{name}_to_{control}" for name in PAIRED}))
    return pd.concat(parts, axis=1)


def _targets(found: Results) -> pd.DataFrame:
    groups = found.reached.groupby(ROW_METHOD, sort=False)
    table = groups[["target", "area"]].mean()
    for measure in MEASURES:
        table[f"{measure}_to_target"] = groups[measure].median()
    table["reached"] = groups["epochs"].agg(lambda epochs: int(np.isfinite(epochs).sum()))
    return table
