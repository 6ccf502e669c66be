"""All that is known of every method in every model, dataset and optimizer as one table; the others are drawn from it.

One line per (model, dataset, optimizer, method), and one per method over all of them where there are several.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from harness.report.stats.comparisons import comparisons
from harness.report.stats.cost import costs
from harness.report.stats.curves import curve_table
from harness.report.stats.images import TestImages, mcnemar
from harness.report.stats.means import BESIDE, CONTROLS, OWN, Row, entries, over_rows, plain_of
from harness.report.stats.progress import MEASURES, areas, curves, target_of, time_to_target
from harness.report.stats.rivals import rivals
from harness.results.columns import METRICS, ROW, ROW_METHOD
from harness.results.frame import MARGIN

PAIRED = (
    *("mean", "std", "low", "high", "p_holm", "p_equivalence", "effect", "n", "wins", "losses"),
    *("images", "findable", "family", "verdict"),
)
"""What the summary has of every comparison, in columns `<field>_to_<control>`."""


@dataclass(frozen=True)
class Results:
    """A suite's numbers: its frame and history, and what follows from them."""

    frame: pd.DataFrame
    history: pd.DataFrame
    metric: str
    compared: pd.DataFrame
    rivals: pd.DataFrame
    images: pd.DataFrame
    """McNemar's test of every pair, see `stats.images.mcnemar`."""
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
    def rows(self) -> list[Row]:
        """The models, data sets and optimizers in the order of the plan."""
        return list(dict.fromkeys(zip(*(self.frame[name].astype("str").tolist() for name in ROW), strict=True)))

    @property
    def several(self) -> bool:
        """Whether there is more than one row, and so lines over all of them."""
        return len(self.rows) > 1

    @property
    def plain(self) -> str:
        """The method that stands for plain training."""
        return plain_of(self.frame)

    @property
    def primary(self) -> bool:
        """Whether there are primary comparisons."""
        return bool(self.frame.attrs.get("primary"))

    @property
    def margin(self) -> float:
        """The points of accuracy within which methods count as equivalent."""
        return float(self.frame.attrs.get("margin", MARGIN))


def results(
    frame: pd.DataFrame,
    history: pd.DataFrame,
    metric: str = "test_accuracy",
    target: float | None = None,
    correct: pd.DataFrame | None = None,
) -> Results:
    """The statistics of a frame and its history.

    `target` is a validation accuracy in percent, see `progress.target_of`; `correct` says which test images every cell
    got right, see `harness.results.correct.correct_table`, without which intervals cover seeds alone.
    """
    images = TestImages(correct)
    reconstructions = frozenset(frame.attrs.get("reconstructions", ()))
    curve = curves(frame, history, reconstructions)
    return Results(
        frame=frame,
        history=history,
        metric=metric,
        compared=comparisons(frame, metric, images),
        rivals=rivals(frame, metric, images),
        images=mcnemar(_pairs_of_cells(frame), images),
        curve=curve,
        times=time_to_target(frame, curve, target_of(frame, target), reconstructions),
        areas=areas(frame, curve),
        reconstructions=reconstructions,
        target=target,
    )


def _pairs_of_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """Every finished cell beside the recalibrated base and beside its own control, as `mcnemar` takes them."""
    done = frame[frame["status"] == "done"]
    parts = []
    for control in (pd.Series(plain_of(frame), index=done.index, dtype="str"), done["control"]):
        cells = done.assign(control=control)[control.notna() & (control != done["method"])]
        sides = done[["base_key", "method", "cell_key"]].set_axis(["base_key", "control", "control_cell"], axis=1)
        parts.append(cells.merge(sides, on=["base_key", "control"])[[*ROW_METHOD, *_PAIR]])
    return pd.concat(parts, ignore_index=True).drop_duplicates(["cell_key", "control_cell"], ignore_index=True)


_PAIR = ("seed", "control", "cell_key", "control_cell")


def summary(found: Results) -> pd.DataFrame:
    """One line per row and method, with all that is known of it; numbers over all rows are those of pairs alone.

    Columns: model, dataset, optimizer, method, batchnorm, status, n, seeds; `<metric>_mean`, `_std`, `_n`; PAIRED to
    every control, to `base` and to `control`, the method's own, which the column `control` names; target, area,
    `<measure>_to_target` (medians over seeds, infinite where most do not reach it), reached; means of COSTS, medians of
    the seconds, and busy_cells and unknown_cells (see `stats.cost.costs`).
    """
    lines = [*_lines(found.frame), *_over_all(found)]
    table = pd.DataFrame(lines).set_index(ROW_METHOD)
    table = table.join(_paired(found)).join(_targets(found))
    return table.join(costs(found.frame).set_index(ROW_METHOD).drop(columns="n")).reset_index()


def _lines(frame: pd.DataFrame) -> list[dict[str, object]]:
    by_metric = {metric: entries(frame, metric) for metric in METRICS if metric in frame}
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
    lines = []
    for row, rows in over_rows(found.frame).items():
        frame = found.frame[pd.MultiIndex.from_frame(found.frame[ROW].astype("str")).isin(rows)]
        for method, cells in frame.groupby("method", sort=False):
            line: dict[str, object] = {**dict(zip(ROW, row, strict=True)), "method": method}
            line |= {"batchnorm": "/".join(dict.fromkeys(cells["batchnorm"])), "status": ""}
            done = cells.loc[cells["status"] == "done", "base_key"].nunique()
            lines.append(line | {"n": int(done), "seeds": cells["base_key"].nunique()})
    return lines


def own_controls(frame: pd.DataFrame) -> pd.Series[str]:
    """The control that the preset of every method names, by the columns of ROW_METHOD, also over several rows.

    NaN where it names none, or where bases name several.
    """
    named = frame[[*ROW_METHOD, "control"]]
    keys = pd.MultiIndex.from_frame(frame[ROW].astype("str"))
    together = over_rows(frame).items()
    parts = [named[keys.isin(rows)].assign(**dict(zip(ROW, row, strict=True))) for row, rows in together]
    whole = pd.concat([named, *parts])
    groups = whole.groupby(ROW_METHOD, sort=False)["control"]
    return groups.first().where(groups.nunique(dropna=False) == 1)


def _paired(found: Results) -> pd.DataFrame:
    compared, own = found.compared, own_controls(found.frame)
    parts: list[pd.DataFrame | pd.Series[str]] = [own.rename("control")]
    to_own = compared["control"] == own.reindex(pd.MultiIndex.from_frame(compared[ROW_METHOD])).to_numpy()
    for name, lines in (*((c, compared["control"] == c) for c in (*CONTROLS, BESIDE)), (OWN, to_own)):
        part = compared[lines].set_index(ROW_METHOD)[list(PAIRED)]
        parts.append(part.rename(columns={field: f"{field}_to_{name}" for field in PAIRED}))
    return pd.concat(parts, axis=1)


def _targets(found: Results) -> pd.DataFrame:
    groups = found.reached.groupby(ROW_METHOD, sort=False)
    table = groups[["target", "area"]].mean()
    for measure in MEASURES:
        table[f"{measure}_to_target"] = groups[measure].median()
    table["reached"] = groups["epochs"].agg(lambda epochs: int(np.isfinite(epochs).sum()))
    return table
