"""Whether two results folders hold the same numbers to the last bit, and the word of it for keys.

    python benchmarks/same_numbers.py before after [--declare]

Bases are compared by the digests of their weights after every epoch, cells by their history, summary, cost and kept
weights (`save=final`); seconds, memory and where it ran are left out, and a method's own tables are named where they
differ, but held against nothing. Exit code 1: a number differs, or is in one folder only.

With `--declare`, sources that gave the same numbers are entered in harness/storage/same_numbers.json, so that keys and
records of `before` stay good: run it after a change that must not change numbers, on a suite that covers what was
changed, with `after` made by the sources as they are now.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from harness.storage.keys import SAME_NUMBERS, content_digest, harness_content_digest
from harness.storage.store import Record, Store

TIMES = ("seconds", "memory_bytes")


def cells(root: Path) -> dict[tuple[str, str], list[Record]]:
    """Records of finished cells by base and method: their keys may have changed."""
    store, found = Store(root), dict[tuple[str, str], list[Record]]()
    for record in (store.record(path.name) for path in sorted((root / "cells").iterdir())):
        if record is not None:
            found.setdefault((record["base_key"], record["method"]), []).append(record)
    return found


def counterpart(old: Record, records: list[Record]) -> Record | None:
    """The record with the parameters of an earlier one, and maybe others that came later."""
    given = old["parameters"].items()
    return next((new for new in records if given <= new["parameters"].items()), None)


def timeless(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not name.endswith(TIMES)}


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    return {path.stem: pd.read_parquet(path) for path in sorted((folder / "tables").glob("*.parquet"))}


def differing(before: Store, after: Store, old: Record, new: Record) -> Iterator[str]:
    """In what two records of one cell differ."""
    for name in ("status", "base_digest", "holds"):
        if old[name] != new[name]:
            yield name
    for part in ("summary", "cost"):
        known = timeless(old[part])  # what is measured or counted since then is no difference
        if repr(known) != repr({name: new[part].get(name) for name in known}):
            yield part
    histories = [store.history(record["cell_key"]) for store, record in ((before, old), (after, new))]
    kept = [table[sorted(timeless(dict.fromkeys(table.columns)))] for table in histories if table is not None]
    columns = list(kept[0]) if kept else []
    if len(kept) != 2 or not set(columns) <= set(kept[1]) or not kept[0].equals(kept[1][columns]):
        yield "history"
    folders = before.cell_folder(old["cell_key"]), after.cell_folder(new["cell_key"])
    for path in folders[0].glob("*.safetensors"):
        other = folders[1] / path.name
        if not other.exists():
            yield f"{path.name} is gone"
        elif path.name == "weights.safetensors" and not same_tensors(path, other):
            yield path.name


def came_later(pairs: list[tuple[Record, Record]]) -> dict[str, Any]:
    """The parameters that earlier records of a method lack, with the value that all later ones have."""
    later: dict[str, Any] = {}
    for old, new in pairs:
        for name in new["parameters"].keys() - old["parameters"].keys():
            value = later.setdefault(name, new["parameters"][name])
            if value != new["parameters"][name]:
                raise SystemExit(f"{new['method']}: {name} must be one value in all cells, got others")
    return later


def other_tables(before: Store, after: Store, old: Record, new: Record) -> list[str]:
    """The tables that one of two records of a cell lacks or has otherwise."""
    olds, news = (tables(s.cell_folder(r["cell_key"])) for s, r in ((before, old), (after, new)))
    same = {name for name in olds.keys() & news.keys() if olds[name].equals(news[name])}
    return sorted((olds.keys() | news.keys()) - same)


def same_tensors(a: Path, b: Path) -> bool:
    from safetensors.torch import load_file

    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all(
        torch.equal(first[name].view(torch.uint8), second[name].view(torch.uint8))
        if first[name].ndim
        else torch.equal(first[name], second[name])
        for name in first
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--declare", action="store_true")
    arguments = parser.parse_args()
    before, after = Store(arguments.before), Store(arguments.after)
    wrong = 0
    keys = sorted(path.name for path in (arguments.before / "bases").iterdir())
    for key in keys:
        old, new = before.base(key), after.base(key)
        if old is None or new is None or old["digests"] != new["digests"]:
            wrong += 1
            print(f"base {key}: {'missing' if new is None else 'its weights differ'}")
    old_cells, new_cells = cells(arguments.before), cells(arguments.after)
    same: dict[str, list[tuple[Record, Record]]] = {}
    for old in (record for records in old_cells.values() for record in records):
        new = counterpart(old, new_cells.get((old["base_key"], old["method"]), []))
        found = ["missing"] if new is None else list(differing(before, after, old, new))
        if found:
            wrong += 1
            print(f"cell {old['model']} seed {old['seed']} {old['method']}: {', '.join(found)}")
        elif new is not None:
            if others := other_tables(before, after, old, new):
                print(f"{old['model']} seed {old['seed']} {old['method']}: same numbers, other tables {others}")
            same.setdefault(new["config"]["method"]["target"], []).append((old, new))
    compared = sum(map(len, old_cells.values()))
    print(f"{len(keys)} bases and {compared} cells compared, {wrong} differ")
    if arguments.declare and not wrong:
        known = json.loads(SAME_NUMBERS.read_text())
        known["harness"][harness_content_digest()] = next(iter(old_cells.values()))[0]["sources"]["harness"]
        for target, pairs in sorted(same.items()):
            source = pairs[0][0]["sources"]["method"]
            # keys of today name no module, those of sources that are known already what these are known by
            modules = [known_as["module"] for known_as in known["methods"].values() if known_as["source"] == source]
            entry: dict[str, Any] = {"module": modules[0] if modules else None, "source": source}
            digest = content_digest(target.rpartition(".")[0])
            if later := known["methods"].get(digest, {}).get("later", {}) | came_later(pairs):
                entry["later"] = later
            if digest != entry["source"]:  # an entry of unchanged sources would give their cells other keys
                known["methods"][digest] = entry
        SAME_NUMBERS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        print(f"declared in {SAME_NUMBERS}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
