"""What a reader of a suite's table must know before believing it, one line each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from harness.causes import short_path
from harness.results.columns import BUSY, ROW
from harness.results.frame import UNFINISHED

MOVING = 0.99
"""The least share of weights with a gradient that goes without saying."""
PARTIAL = ("left", "stale", "failed", "skipped")
"""The statuses of cells without which a view is partial."""
BUSY_MARK = "†"
"""The mark behind seconds that were measured while other work had a part of the machine."""


def marks(frame: pd.DataFrame) -> list[str]:
    """`fast` and `partial`, where a view is: the smallest version of what was asked for; without all of its cells."""
    partial = frame["status"].isin(PARTIAL).any()
    return [*(["fast"] if frame.attrs.get("fast") else []), *(["partial"] if partial else [])]


def marked(title: str, frame: pd.DataFrame) -> str:
    """A title with the marks of a view behind it."""
    found = ", ".join(marks(frame))
    return f"{title} ({found})" if found else title


def standing(frame: pd.DataFrame) -> Iterator[str]:
    """What the marks of a view mean, a line each."""
    if "fast" in marks(frame):
        yield "fast: the smallest version of everything, to try it out: its numbers say nothing of the methods"
    counts = frame["status"].value_counts()
    found = [f"{counts[status]} {status}" for status in PARTIAL if counts.get(status)]
    if found:
        yield f"partial: {', '.join(found)} of {len(frame)} cells"


def warnings(frame: pd.DataFrame, results: Path | None = None) -> list[str]:
    """What a reader of the table must know and where there is more to see, one line each.

    What makes a view fast or partial, seeds still missing, seeds that stand for several bases in one row, weights that
    never had a gradient, mixed versions, devices or thread counts, seconds measured beside other work, the cells that
    failed, diverged or were skipped, and a plan that does not say which methods see the whole run. Logs are named as
    they are found from the working folder where `results` is the results folder, and from that where it is None.
    """
    of_rows = (*standing(frame), *_missing(frame), *_pooled(frame), *_unmoved(frame))
    return [*of_rows, *_mixed(frame), *_busy(frame), *_explained(frame, results), *_kindless(frame)]


def _unmoved(frame: pd.DataFrame) -> Iterator[str]:
    """Per row of the table, the largest share of a base's weights that never had a gradient."""
    for row, cells in frame.groupby(ROW, sort=False):
        moving = cells["moving"].min()
        if moving < MOVING:
            still = f"{100 * (1 - moving):.0f} % of the weights of {' '.join(map(str, row))} never had a gradient"
            yield (
                f"unmoved: {still}: methods that model, freeze or embed weights are told apart by the others alone "
                "(column moving of the frame)"
            )


def _busy(frame: pd.DataFrame) -> Iterator[str]:
    """How many finished cells have seconds that other work on the machine made longer."""
    done = frame[frame["status"] == "done"]
    busy = done[done["busy"] > BUSY]
    if len(busy):
        share = f"more than {100 * BUSY:.0f} % of the cores (up to {100 * busy['busy'].max():.0f} %)"
        yield (
            f"busy: {len(busy)} of {len(done)} cells ran while other processes had {share}: their seconds are marked "
            f"{BUSY_MARK}; compare gradients instead (column busy of the frame)"
        )


def _kindless(frame: pd.DataFrame) -> Iterator[str]:
    if not frame.attrs.get("kinds", True):
        yield (
            "plan: written by an older version, which did not say which methods see the whole run: their times to a "
            "target stand among the others'; running the suite again writes it anew"
        )


def _missing(frame: pd.DataFrame) -> Iterator[str]:
    """Per row of the table, the methods that lack the same seeds on one line."""
    for row, cells in frame.groupby(ROW, sort=False):
        seeds = set(cells["seed"])
        lacking: dict[tuple[int, ...], list[str]] = {}
        for method, of_method in cells.groupby("method", sort=False):
            missing = tuple(sorted(seeds - set(of_method.loc[of_method["status"] != "left", "seed"])))
            if missing:
                lacking.setdefault(missing, []).append(str(method))
        for missing, methods in lacking.items():
            yield f"missing: {' '.join(map(str, row))}: seeds {', '.join(map(str, missing))} of {', '.join(methods)}"


def _pooled(frame: pd.DataFrame) -> Iterator[str]:
    """Bases that differ in more than a table's row names (say, in epochs) would be averaged as if they were seeds."""
    bases = frame.groupby([*ROW, "seed"], sort=False)["base_key"].nunique()
    for row in dict.fromkeys(key[:3] for key in bases[bases > 1].index):
        said = "several bases share a seed; the mean is over all of them (column base_key of the frame)"
        yield f"pooled: {' '.join(map(str, row))}: {said}"


def _mixed(frame: pd.DataFrame) -> Iterator[str]:
    """Devices, thread counts and package versions of which the finished cells have more than one."""
    done = frame[frame["status"] == "done"]
    versions = pd.DataFrame(done["versions"].map(json.loads).tolist(), dtype="str")
    packages = [(f"{name} version", "versions", versions[name]) for name in versions]
    for name, column, values in (("device", "device", done["device"]), *packages):
        counts = values.fillna("unknown").value_counts()
        if len(counts) > 1:
            counted = ", ".join(f"{value} ({count} cells)" for value, count in counts.items())
            yield f"mixed: {name}: {counted} (column {column} of the frame)"
    threads = frame.attrs.get("threads", {})
    if len(threads) > 1:
        counted = ", ".join(f"{value} ({count} cells)" for value, count in sorted(threads.items()))
        yield f"mixed: threads, between which sums in float32 differ: {counted} (threads in the cells' record.json)"


def unfinished(frame: pd.DataFrame) -> list[str]:
    """Failed, diverged and skipped cells by name and with their reason, a line for those of one base that have it in
    common."""
    return [line for line, *_ in _unfinished(frame)]


def _explained(frame: pd.DataFrame, results: Path | None) -> Iterator[str]:
    """The lines of `unfinished` with the line of code that is at fault and the log to read."""
    for line, where, log in _unfinished(frame):
        place = log and (log if results is None else short_path(results / log))
        yield "; ".join([line, *([f"at {where}"] if where else []), *([f"log: {place}"] if place else [])])


def _unfinished(frame: pd.DataFrame) -> Iterator[tuple[str, str | None, str | None]]:
    """Lines of cells that did not end well, each with the line of code at fault and a log, where these are known."""
    causes = frame.attrs.get("causes", {})
    for status in UNFINISHED[:-1]:
        for key, cells in frame[frame["status"] == status].groupby([*ROW, "seed"], sort=False):
            *row, seed = map(str, key)
            alike: dict[tuple[str | None, str | None], list[tuple[str, str | None]]] = {}
            for method, cell_key in zip(cells["method"], cells["cell_key"], strict=True):
                reason, where, log = causes.get(cell_key, (None, None, None))
                alike.setdefault((reason, where), []).append((method, log))
            for (reason, where), own in alike.items():
                methods = ", ".join(method for method, _ in own)
                said = f"{status}: {' '.join(row)} seed {seed}: {methods}"
                yield f"{said}: {reason}" if reason else said, where, own[0][1]
