"""Which snapshots of a base stay: one rule for planning, for running and for upkeep.

While cells are open, a base also has the snapshots that these read (`BasePlan.snapshots`). Once no suite's last plan
has an open cell on it, those stay that some plan keeps.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from harness.storage import inside
from harness.storage.checked import read_plan_file
from harness.storage.files import CorruptFile
from harness.storage.leases import lease_name
from harness.storage.paths import plan_files, snapshot_path, stored_ts
from harness.storage.store import Store

LEFTOVERS = (".redo", ".old")
"""ends of folders that a base has beside its own while it is trained anew"""


def kept_ts(keep: str, epochs: int, warmup: int) -> set[int]:
    """The epochs t whose snapshots stay by `trajectory.keep`.

    All of 0..epochs, those up to `warmup`, the last that a causal method reads, or none.
    """
    last = {"all": epochs, "warmup": warmup, "none": -1}[keep]
    return set(range(last + 1))


class Retention:
    """What the last plans of all suites of a results folder ask of its bases."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._plans: list[dict[str, Any]] = []
        self._whole = True
        """whether every plan could be read; what a damaged one keeps is not known"""
        for path in plan_files(store.root):
            try:
                plan = read_plan_file(path, "PlanKeys")
                self._plans.append({"bases": plan["bases"], "cells": plan["cells"]})
            except (OSError, CorruptFile):
                self._whole = False

    def is_open(self, base_key: str) -> bool:
        """Whether a planned cell of the base has no whole record, so that its snapshots may still be read."""
        cells = [c["cell_key"] for plan in self._plans for c in plan["cells"] if c["base_key"] == base_key]
        return not self._whole or not all(self._has_record(key) for key in dict.fromkeys(cells))

    def _has_record(self, cell_key: str) -> bool:
        folder, name = self.store.cell_folder(cell_key), "record.json"
        return inside.is_file(folder / name) and self.store.problem(folder, name) is None

    def unneeded(self, base_key: str, kept: Collection[int] = ()) -> list[int]:
        """The epochs t of stored snapshots of a base that is not open which neither a plan nor `kept` keeps."""
        stored = stored_ts(self.store.base_folder(base_key) / "trajectory")
        planned = (base["keeps"] for plan in self._plans for base in plan["bases"] if base["base_key"] == base_key)
        return sorted(set(stored).difference(kept, *planned))


def prune(store: Store, base_key: str, kept: Collection[int]) -> None:
    """Drop the snapshots of a base that neither a plan nor `kept` keeps, and what its training anew left.

    A base that is open, or that another process works at, stays as it is.
    """
    folder = store.base_folder(base_key)
    leftovers = [path for end in LEFTOVERS if inside.is_folder(path := store.base_folder(f"{base_key}{end}"))]
    if set(stored_ts(folder / "trajectory")) <= set(kept) and not leftovers:
        return
    retention = Retention(store)
    if retention.is_open(base_key):
        return
    lease = store.leases.take(lease_name(store.root, folder))
    if lease is None:  # whoever works there prunes it
        return
    with lease:
        for t in retention.unneeded(base_key, kept):
            inside.remove(snapshot_path(folder / "trajectory", t))
    for leftover in leftovers:
        inside.remove_folder(leftover, ignore_errors=True)
