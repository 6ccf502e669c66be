"""A suite against the same one in another results folder, or against published numbers.

Cells pair by model, dataset, optimizer, method and seed; a pair with the same cell key is the same experiment, done
twice. Published numbers are means and standard deviations of unknown runs, so there is a difference and no test.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from harness.config import ConfigError
from harness.report.stats.paired import Paired, holm
from harness.report.stats.published import published
from harness.results.columns import METRICS, ROW, ROW_METHOD
from harness.results.frame import load_frame
from harness.validation import reason, shown

PUBLISHED = "published"
NUMBERS = [*ROW_METHOD, "test_accuracy_mean", "test_accuracy_std"]
"""The columns of a file with means, as the published numbers have them."""


@dataclass(frozen=True)
class Comparison:
    """One line per row and method that both sides have, and what only one has, in words."""

    table: pd.DataFrame
    notes: list[str]
    other: str
    metric: str


def compare(frame: pd.DataFrame, other: str, suite: str, metric: str = "test_accuracy") -> Comparison:
    """A frame compared with `other`: `published`, a CSV with columns NUMBERS, a results folder or a suite's folder.

    Columns of the table: model, dataset, optimizer, method, ours_mean, ours_std, ours_n, theirs_mean, theirs_std,
    theirs_n, difference (ours minus theirs); for folders also pairs, paired (mean difference of the pairs), low, high,
    p, p_holm, and same (pairs with the same cell key). ConfigError where `other` is none of these.
    """
    path = Path(other)
    if other == PUBLISHED:
        return _against_means(frame, published(), other, metric)
    if path.suffix == ".csv" and path.is_file():
        return _against_means(frame, _read_means(path), other, metric)
    if not path.is_dir():
        raise ConfigError(f"compare must be {PUBLISHED}, a results folder or a CSV of means, got {other!r}")
    if (path / "plan.json").is_file() and path.parent.name == "suites":
        return _against_frame(frame, load_frame(path.parent.parent, path.name), other, metric)
    return _against_frame(frame, load_frame(path, suite), other, metric)


def _read_means(path: Path) -> pd.DataFrame:
    """A file of means: UTF-8, fields separated by commas, numbers with a point; ConfigError names what is not so."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # of a row with more fields than the header
            table = pd.read_csv(path, dtype="str", index_col=False, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        raise ConfigError(f"compare must be a CSV of means, got {path} ({reason(error)})") from error
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    missing = [name for name in NUMBERS if name not in table.columns]
    if missing:
        other = next((mark for mark in (";", "\t", "|") if mark in "".join(table.columns)), None)
        hint = "" if other is None else f"; fields must be separated by commas, got {other!r}"
        raise ConfigError(
            f"compare must be a CSV with columns {', '.join(NUMBERS)}, {path} lacks {', '.join(missing)}{hint}"
        )
    for name in NUMBERS:
        table[name] = table[name].fillna("").str.strip()
    for name in ROW_METHOD:
        if (table[name] == "").any():
            raise ConfigError(
                f"compare must have {name} in every row, row {_row(table[name] == '')} of {path} lacks it"
            )
    for name in ("test_accuracy_mean", "test_accuracy_std"):
        table[name] = _numbers(table[name], path)
    if table.duplicated(ROW_METHOD).any():
        twice = table.loc[table.duplicated(ROW_METHOD), ROW_METHOD].iloc[0]
        raise ConfigError(f"compare must have every method once, got {' '.join(map(str, twice))} twice in {path}")
    return table


def _row(wrong: pd.Series) -> int:
    """The first row of a file, its header being row 1, of which something is wrong."""
    return int(np.flatnonzero(wrong)[0]) + 2


def _numbers(texts: pd.Series, path: Path) -> pd.Series:
    """A column's percentages; a deviation may be left out, as of a single run."""
    numbers = pd.to_numeric(texts, errors="coerce").astype("float64")
    left_out = (texts == "") & (texts.name == "test_accuracy_std")
    wrong = ~((numbers >= 0) & (numbers <= 100)) & ~left_out
    if wrong.any():
        row = _row(wrong)
        raise ConfigError(
            f"compare must have numbers from 0 to 100 as {texts.name}, "
            f"got {shown(texts.iloc[row - 2])} in row {row} of {path}"
        )
    return numbers


def _means(frame: pd.DataFrame, metric: str, side: str) -> pd.DataFrame:
    done = frame[(frame["status"] == "done") & np.isfinite(frame[metric].astype("float64"))]
    groups = done.groupby(ROW_METHOD, sort=False)[metric]
    return pd.DataFrame({f"{side}_mean": groups.mean(), f"{side}_std": groups.std(ddof=1), f"{side}_n": groups.size()})


def _both(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Lines that both have, with their difference; and what is only on one side."""
    table = ours.join(theirs, how="inner")
    table["difference"] = table["ours_mean"] - table["theirs_mean"]
    notes = []
    for side, own, rest in (("here", ours, theirs), ("there", theirs, ours)):
        only = [key for key in own.index if key not in rest.index]
        for row in dict.fromkeys(key[:3] for key in only):
            methods = ", ".join(str(key[3]) for key in only if key[:3] == row)
            notes.append(f"only {side}: {' '.join(map(str, row))}: {methods}")
    return table, notes


def _against_means(frame: pd.DataFrame, means: pd.DataFrame, other: str, metric: str) -> Comparison:
    if metric != "test_accuracy":
        raise ConfigError(
            f"compare must be a results folder for {metric}, got {other!r}, which has test accuracies only"
        )
    theirs = means.set_index(ROW_METHOD)[["test_accuracy_mean", "test_accuracy_std"]].copy()
    theirs.columns = pd.Index(["theirs_mean", "theirs_std"])
    rows = set(map(tuple, frame[ROW].astype("str").to_numpy().tolist()))
    theirs = theirs[[key[:3] in rows for key in theirs.index]]
    table, notes = _both(_means(frame, metric, "ours"), theirs)
    if table.empty:
        notes = [f"nothing to compare: {other} has no model, data set and optimizer of this suite"]
    return Comparison(table.reset_index(), notes, other, metric)


def _against_frame(frame: pd.DataFrame, theirs: pd.DataFrame, other: str, metric: str) -> Comparison:
    table, notes = _both(_means(frame, metric, "ours"), _means(theirs, metric, "theirs"))
    cell = [*ROW_METHOD, "seed"]
    done = [side[(side["status"] == "done") & np.isfinite(side[metric].astype("float64"))] for side in (frame, theirs)]
    for side, name in zip(done, ("here", "there"), strict=True):
        if side.duplicated(cell).any():
            twice = " ".join(map(str, side.loc[side.duplicated(cell), cell].iloc[0]))
            raise ConfigError(f"compare must have every cell once {name}, got {twice} on several bases")
    pairs = done[0][[*cell, metric, "cell_key"]].merge(done[1][[*cell, metric, "cell_key"]], on=cell)
    pairs["difference"] = (pairs[f"{metric}_x"] - pairs[f"{metric}_y"]).round(9)
    pairs["same"] = pairs["cell_key_x"] == pairs["cell_key_y"]
    lines = {}
    for key, own in pairs.groupby(ROW_METHOD, sort=False):
        paired = Paired.of(own["difference"].to_numpy(dtype=np.float64), METRICS[metric].higher_is_better)
        lines[key] = (paired.n, paired.mean, paired.low, paired.high, paired.p, int(own["same"].sum()))
    names = ["pairs", "paired", "low", "high", "p", "same"]
    found = pd.DataFrame.from_dict(lines, orient="index", columns=names)
    found.index = pd.MultiIndex.from_tuples(list(lines), names=ROW_METHOD) if lines else table.index[:0]
    table = table.join(found)
    table["p_holm"] = holm(table["p"].to_numpy(dtype=np.float64))
    return Comparison(table.reset_index(), notes, other, metric)
