"""The curves of a page as data for its script: thinned, rounded, and the methods that are drawn at first."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.report.method_styles import CMD, FAMILIES, OTHERS, style_of
from harness.report.stats.curves import METRICS
from harness.report.stats.means import BESIDE, CONTROLS, Row
from harness.results.columns import ROW_METHOD

POINTS = 100
"""The most evaluated epochs of a curve on the page; the figures' data have all."""
POINTS_IN_ALL = 40_000
"""The most points of all curves together, so that a page stays below 10 MiB; but each has FEWEST of them."""
FEWEST = 20
FIRST = 8
"""The most curves that are drawn before the reader chooses."""


def curve_data(table: pd.DataFrame) -> dict[str, Any]:
    """What the page draws of `stats.curves.curve_table`: rows with their methods' styles and rounded columns, and the
    methods to draw at first; `thinned` is the number of epochs that longer curves are drawn at."""
    names = ["epoch", "n", "seconds", "gradients", *(f"{m}_{part}" for m in METRICS for part in ("mean", "std"))]
    columns = {name: table[name].to_numpy(dtype=np.float64) for name in names}
    rows: dict[Row, list[dict[str, Any]]] = {}
    indices: dict[Any, Any] = table.groupby(ROW_METHOD, sort=False).indices
    most = max(FEWEST, min(POINTS, POINTS_IN_ALL // max(len(indices), 1)))
    for key, places in indices.items():
        model, dataset, optimizer, method = map(str, key)
        style = style_of(method)
        kept = places[np.unique(np.linspace(0, len(places) - 1, min(len(places), most)).round().astype(int))]
        values = {name: _rounded(column[kept]) for name, column in columns.items() if np.isfinite(column[kept]).any()}
        drawn = {n: getattr(style, n) for n in ("label", "family", "colour", "dash", "marker")}
        rows.setdefault((model, dataset, optimizer), []).append({"method": method, **drawn, "values": values})
    for methods in rows.values():
        methods.sort(key=lambda entry: FAMILIES.index(entry["family"]))
    curves = [{"row": list(row), "methods": methods} for row, methods in rows.items()]
    thinned = most if any(len(places) > most for places in indices.values()) else None
    return {"rows": curves, "first": shown_first(table), "thinned": thinned}


def shown_first(table: pd.DataFrame) -> list[str]:
    """The methods whose curves can be told apart together: all where they are few, otherwise the controls, those of
    the reader's own, CMD's, and the best of the others by validation accuracy at the last epoch, over all rows."""
    methods = list(dict.fromkeys(map(str, table["method"])))
    if len(methods) <= FIRST:
        return methods
    last = table.drop_duplicates(ROW_METHOD, keep="last").groupby("method")["val_accuracy_mean"].mean()
    best = sorted(methods, key=lambda method: -last.fillna(-math.inf)[method])
    families = {method: style_of(method).family for method in methods}
    groups = (
        [method for method in CONTROLS if method in methods],
        [method for method in best if families[method] == OTHERS],
        [method for method in best if families[method] == CMD],
        [method for method in best if families[method] not in (OTHERS, CMD) and method not in (*CONTROLS, BESIDE)],
    )
    return list(dict.fromkeys(chain.from_iterable(groups)))[:FIRST]


def _rounded(values: NDArray[np.float64]) -> list[float | int | None]:
    """Five significant digits, None for what is not known."""
    found: list[float | int | None] = []
    for value in values.tolist():
        if not math.isfinite(value):
            found.append(None)
        else:
            short = float(f"{value:.5g}")
            found.append(int(short) if short.is_integer() else short)
    return found
