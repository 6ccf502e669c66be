"""What passed between server and clients of federations, and what it was worth against federated averaging.

The base's own weights are federated averaging. Two methods are compared after the same rounds, and after the same
bytes, up and down together: then each has the weights of its last evaluated round within what the cheaper of the two
had moved in all. Everything is paired by seed.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from harness.results.columns import ROW

AVERAGING = "base"
"""the method that stands for federated averaging"""
MOVED = ("upload_bytes", "download_bytes")
EQUAL = ("at_equal_rounds", "at_equal_bytes")
NAMES = [
    *(*ROW, "method", "seed", "cell_key", "test_accuracy", "val_accuracy"),
    *("client_accuracy", "client_accuracy_std", "client_accuracy_worst"),
    *(*MOVED, "saved", *EQUAL, "rounds_to_target", "bytes_to_target"),
]


def communicated(frame: pd.DataFrame, history: pd.DataFrame, reached: pd.DataFrame) -> pd.DataFrame:
    """One line per finished cell on a federation: NAMES.

    `saved` is the share of federated averaging's bytes, up and down, that were not moved, in percent; EQUAL are
    differences of validation accuracy to federated averaging in points, NaN where it has none on that seed. `reached`
    says in which round a cell came to its target (`stats.progress.time_to_target`); infinite where it did not.
    """
    if "federation" not in frame:
        return pd.DataFrame(columns=NAMES)
    cells = frame[(frame["status"] == "done") & (frame["federation"] != "none") & frame["upload_bytes"].notna()]
    if cells.empty or not {*MOVED, "val_accuracy"} <= set(history.columns):
        return pd.DataFrame(columns=NAMES)
    rows = history[history["cell_key"].isin(cells["cell_key"])]
    curves = {str(key): _curve(own) for key, own in rows.groupby("cell_key", sort=False)}
    averaging = {
        (*line[: len(ROW)], line[-2]): line[-1]
        for line in cells.loc[cells["method"] == AVERAGING, [*ROW, "seed", "cell_key"]].itertuples(
            index=False, name=None
        )
    }
    rounds = reached.drop_duplicates("cell_key").set_index("cell_key")["epochs"].to_dict()
    lines = []
    for cell in cells.to_dict("records"):
        own = curves[cell["cell_key"]]
        plain = curves.get(averaging.get((*(cell[name] for name in ROW), cell["seed"]), ""))
        goal = rounds.get(cell["cell_key"], math.nan)
        target = {"rounds_to_target": goal, "bytes_to_target": _at(own, goal)}
        lines.append({**{str(name): value for name, value in cell.items()}, **_against(own, plain), **target})
    return pd.DataFrame(lines)[NAMES]


def _curve(rows: pd.DataFrame) -> pd.DataFrame:
    """Round, accuracy and bytes so far, up and down, of the evaluated rounds of one cell."""
    known = rows[rows["val_accuracy"].notna()].sort_values("epoch")
    moved = known["upload_bytes"] + known["download_bytes"]
    return pd.DataFrame({"round": known["epoch"], "val": known["val_accuracy"], "bytes": moved})


def _against(own: pd.DataFrame, plain: pd.DataFrame | None) -> dict[str, Any]:
    if plain is None or own.empty or plain.empty:
        return {name: math.nan for name in ("saved", *EQUAL)}
    ends = own.iloc[-1], plain.iloc[-1]
    within = min(end["bytes"] for end in ends)
    values = [curve.loc[curve["bytes"] <= within, "val"] for curve in (own, plain)]
    both = all(map(len, values))
    return {
        "saved": 100 * (1 - ends[0]["bytes"] / ends[1]["bytes"]) if ends[1]["bytes"] > 0 else math.nan,
        "at_equal_rounds": _at_round(own, plain),
        "at_equal_bytes": values[0].iloc[-1] - values[1].iloc[-1] if both else math.nan,
    }


def _at_round(own: pd.DataFrame, plain: pd.DataFrame) -> float:
    """The difference in the last round that both were evaluated in."""
    both = own.merge(plain, on="round")
    return float(both["val_x"].iloc[-1] - both["val_y"].iloc[-1]) if len(both) else math.nan


def _at(curve: pd.DataFrame, goal: float) -> float:
    """The bytes moved by a round; infinite for one that never came."""
    if not math.isfinite(goal):
        return goal
    found = curve.loc[curve["round"] == goal, "bytes"]
    return float(found.iloc[0]) if len(found) else math.nan
