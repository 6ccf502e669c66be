"""What a page says of how a suite was run: settings, machines, versions, and the cells that did not end well."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pandas as pd

from harness.results.frame import CAUSE, UNFINISHED
from harness.storage.store import Store
from harness.validation import seen

NAMED = 3
"""The most models and data sets that a title names; of more it says how many."""


def subject(frame: pd.DataFrame) -> str:
    """What is compared, as a title: `test_resnet, test_vit on fashion_mnist: 14 methods, 5 seeds`."""
    models, datasets = (list(dict.fromkeys(map(str, frame[name]))) for name in ("model", "dataset"))
    what = ", ".join(models) if len(models) <= NAMED else f"{len(models)} models"
    on = ", ".join(datasets) if len(datasets) <= NAMED else f"{len(datasets)} data sets"
    methods, seeds = frame["method"].nunique(), frame["seed"].nunique()
    return f"{what} on {on}: {_count(methods, 'method')}, {_count(seeds, 'seed')}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def facts(frame: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """What was run, as names and values."""
    for name, title in (("model", "models"), ("dataset", "data sets"), ("optimizer", "optimizers"), ("seed", "seeds")):
        yield title, ", ".join(map(str, dict.fromkeys(frame[name])))
    yield "methods", ", ".join(dict.fromkeys(frame["method"]))
    epochs = frame.loc[(frame["method"] == "base") & frame["epochs"].notna(), "epochs"]
    if len(epochs):
        yield "epochs", ", ".join(f"{value:.0f}" for value in dict.fromkeys(epochs))
    yield "device", ", ".join(dict.fromkeys(frame["device"].dropna())) or "none yet"
    seconds = (
        frame.drop_duplicates("base_key")["train_seconds"].sum() + frame[["method_seconds", "eval_seconds"]].sum().sum()
    )
    yield "seconds spent", f"{seconds:,.0f} in training bases, methods and evaluation"


def machines(store: Store, frame: pd.DataFrame) -> list[str]:
    """What one finished cell of every base ran on, in words; what else ran meanwhile is said of the seconds."""
    found: dict[str, None] = {}
    for key in frame[frame["status"] == "done"].drop_duplicates("base_key")["cell_key"]:
        record = store.record(key)
        machine = record.get("machine") if record is not None else None
        if machine:
            found[", ".join(f"{name} {value}" for name, value in machine.items() if name != "load")] = None
    return list(found)


def versions(frame: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Packages with all their versions that occur."""
    found: dict[str, dict[str, None]] = {}
    for text in frame["versions"].dropna().unique():
        for name, version in json.loads(text).items():
            found.setdefault(name, {})[version] = None
    yield from ((name, ", ".join(values)) for name, values in found.items())


def failures(store: Store, frame: pd.DataFrame) -> Iterator[dict[str, str]]:
    """Cells that did not end well, each with its reason, the line of code at fault and its log below the results
    folder, empty where its record has none."""
    for cell in frame[frame["status"].isin(UNFINISHED[:-1])].to_dict("records"):
        record = store.record(cell["cell_key"])
        known = dict(zip(CAUSE, frame.attrs.get("causes", {}).get(cell["cell_key"], ()), strict=False))
        said = {name: seen((record or {}).get(name) or known.get(name) or "") for name in CAUSE}
        yield {**{str(k): str(v) for k, v in cell.items()}, **said}
