"""The kernels of a view's linear methods, and which of them are nearly the same.

Of every row the cells of its lowest seed that gives any kernel, whose methods saw one and the same run.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pandas as pd

from harness.kernel import COLUMNS, KERNEL, checked, distance
from harness.report.stats.means import Row, of_row
from harness.results.columns import ROW
from harness.results.method_tables import MethodTables
from harness.storage.store import Store

NEAR = 0.1
"""the largest `harness.kernel.distance` of kernels that are nearly the same"""
RATIO = 1.25
"""the largest ratio of their effective numbers of snapshots"""
PAIR = ("method", "other", "distance", "near")


@dataclass(frozen=True)
class Kernels:
    """The linear methods of one row."""

    row: Row
    seed: int
    methods: pd.DataFrame
    """method, modes (kernels that it has), age, n_eff"""
    pairs: pd.DataFrame
    """PAIR, each pair once: whether it is near, by NEAR and RATIO"""

    def nearest(self, method: str) -> tuple[str, float] | None:
        """The method whose kernel is nearest to another's, and how far it is; None where it is alone."""
        own = self.pairs[(self.pairs["method"] == method) | (self.pairs["other"] == method)]
        if own.empty:
            return None
        pair = own.sort_values("distance", kind="stable").iloc[0]
        return str(pair["other"] if pair["method"] == method else pair["method"]), float(pair["distance"])

    @property
    def near(self) -> dict[frozenset[str], float]:
        """The distances of the pairs that are near."""
        lines = self.pairs[self.pairs["near"]].to_dict("records")
        return {frozenset((str(line["method"]), str(line["other"]))): float(line["distance"]) for line in lines}

    def alike(self) -> list[tuple[list[str], float]]:
        """Groups of methods of which each is near to all others, by age, with the largest distance within."""
        near, groups = self.near, list[list[str]]()
        methods = [str(method) for method in self.methods.sort_values("age", kind="stable")["method"]]
        for method in methods:
            home = next((group for group in groups if all(frozenset((method, one)) in near for one in group)), None)
            if home is None:
                groups.append([method])
            else:
                home.append(method)
        pairs = (itertools.combinations(group, 2) for group in groups)
        widest = [max((near[frozenset(pair)] for pair in own), default=0.0) for own in pairs]
        return [(group, far) for group, far in zip(groups, widest, strict=True) if len(group) > 1]


def kernels(store: Store, frame: pd.DataFrame) -> list[Kernels]:
    """The kernels of every row that has any; a table that is damaged or none (`harness.kernel.checked`) counts as no
    table, as where it was made."""
    known = frame[(frame["status"] == "done") & frame["age"].notna()]
    rows: list[Row] = list(dict.fromkeys(map(tuple, known[ROW].astype("str").to_numpy().tolist())))
    found = (_of_row(store, row, of_row(known, row)) for row in rows)
    return [one for one in found if one is not None]


def _of_row(store: Store, row: Row, cells: pd.DataFrame) -> Kernels | None:
    seed = int(cells["seed"].min())
    tables, lines = {}, []
    for cell in cells[cells["seed"] == seed].to_dict("records"):
        own = MethodTables(store, cell["cell_key"])
        if own.lacking({KERNEL: COLUMNS}) is not None:
            continue
        try:
            table = checked(own.read(KERNEL))
        except ValueError:
            continue
        tables[cell["method"]] = table
        modes = table["mode"].nunique()
        lines.append({"method": cell["method"], "modes": modes, "age": cell["age"], "n_eff": cell["n_eff"]})
    if not tables:
        return None
    number = {line["method"]: line["n_eff"] for line in lines}
    pairs = []
    for one, other in itertools.combinations(tables, 2):
        far = distance(tables[one], tables[other])
        ratio = max(number[one] / number[other], number[other] / number[one])
        pairs.append((one, other, far, far <= NEAR and ratio <= RATIO))
    return Kernels(row, seed, pd.DataFrame(lines), pd.DataFrame(pairs, columns=list(PAIR)))


def in_words(found: Kernels) -> str:
    """Which methods of a row have nearly the same kernel, in a line."""
    alike = found.alike()
    what = f"kernels: {' '.join(found.row)}, seed {found.seed}: of {len(found.methods)} linear methods"
    if not alike:
        return f"{what} no two have nearly the same (distance at most {NEAR:g})"
    said = "; ".join(f"{' = '.join(group)} ({far:.3f})" for group, far in alike)
    return f"{what} nearly the same: {said} (distance at most {NEAR:g})"
