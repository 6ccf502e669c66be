"""The views of a results folder: what each consists of, which is the latest, and how a plan joins the one of its name.

A view is a folder suites/<name>/ with a plan.json; its frame, tables, figures and page are made of the records of that
plan's cells. A run adds its cells to the view and takes out only those that stand where its own do with other settings.
"""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.storage import inside
from harness.storage.checked import read_plan_file
from harness.storage.files import CorruptFile
from harness.storage.paths import plan_files
from harness.storage.store import Record, Store
from harness.validation import ConfigError, nearest, shown

ROW = ("model", "dataset", "optimizer")
CHOSEN = ("name", "results_dir", "tracker", "engine", "trajectory", "save", "redo", "trials", "tune", "tuned", "seeds")
"""keys of a configuration in which commands of one view may differ"""
NAMED = 3
"""differences and methods that a line names"""
ANNEALED_END = 0.1
"""the factor that the rate falls to, at most, where it is called annealed"""
Say = Callable[[str], object]
Cell = Mapping[str, Any]


def _plans(results_dir: Path | str) -> list[Path]:
    inside.known(Path(results_dir))
    return plan_files(Path(results_dir))


def view_names(results_dir: Path | str) -> list[str]:
    """The views of a results folder, the latest first."""
    found = []
    for path in _plans(results_dir):
        try:
            created = str(read_plan_file(path)["created"])
        except (OSError, CorruptFile):
            created = ""
        found.append((created, path.stat().st_mtime_ns, path.parent.name))
    return [name for *_, name in sorted(found, reverse=True)]


def chosen_view(results_dir: Path | str, name: str | None) -> str:
    """The view of that name, or the latest where there is none; ConfigError, naming the views there are."""
    known = view_names(results_dir) if name is None else [path.parent.name for path in _plans(results_dir)]
    if name is None and known:
        return known[0]
    if name in known:
        return name
    asked = "" if name is None else f", got {shown(name)}"
    if not known:
        raise ConfigError(f"name must be a view in {results_dir}{asked}; it holds none: run makes one")
    raise ConfigError(f"name must be a view in {results_dir}{asked}{nearest(str(name), known)}")


def said_view(results_dir: Path, name: str | None, say: Say) -> str:
    """As `chosen_view`; which is the latest is said."""
    found = chosen_view(results_dir, name)
    if name is None:
        say(f"view {found}, the latest in {results_dir}")
    return found


def read_plan(results_dir: Path | str, name: str | None = None) -> Record:
    """The plan of a view, of the latest where no name is given; ConfigError where there is none or it is damaged."""
    name = chosen_view(results_dir, name)
    path = Path(results_dir) / "suites" / name / "plan.json"
    try:
        return read_plan_file(path)
    except CorruptFile as error:
        text = str(error).removeprefix(f"{path}: ")
        raise ConfigError(f"{path} must be a plan: {text}; the run of {name} writes it anew") from error


def is_fast(plan: Record) -> bool:
    """Whether cells of a plan are of the smallest version of what was asked for."""
    return bool(plan.get("fast", plan.get("config", {}).get("fast", False)))


@dataclass(frozen=True)
class Joined:
    """A plan as the view of its name shows it."""

    plan: Record
    line: str | None
    """what becomes of the cells that were there, None where all are asked for again"""


def join(store: Store, plan: Record) -> Joined:
    """A plan joined with the stored one of its name, which is left as it is."""
    path = store.suite_folder(plan["suite"]) / "plan.json"
    try:
        stored: Record = read_plan_file(path)
        cells, bases = stored["cells"], stored["bases"]
        differs = _difference(stored, plan)
        stays = [cell for cell in cells if not differs(cell)]
    except (OSError, ValueError, KeyError, TypeError):
        return Joined(plan, None)  # there is none, or none that can be read
    asked = {cell["cell_key"] for cell in plan["cells"]}
    others = [cell for cell in stays if cell["cell_key"] not in asked]
    gone = [
        cell for cell in cells if differs(cell) and inside.is_file(store.cell_folder(cell["cell_key"]) / "record.json")
    ]
    line = _line(stored, plan, gone, others)
    if not others:
        return Joined(plan, line)
    kept = {cell["base_key"] for cell in others}
    planned = {base["base_key"] for base in plan["bases"]}
    whole = {
        **plan,
        "commands": _commands(stored, plan),
        "fast": is_fast(plan) or is_fast(stored),
        "primary": _primary(stored, plan, others),
        "bases": [*(b for b in bases if b["base_key"] in kept - planned), *plan["bases"]],
        "cells": _in_order([*stays], plan["cells"]),
    }
    set_twins(whole)
    return Joined(whole, line)


def write_joined(store: Store, plan: Record) -> None:
    """Make a plan that of its view, joined with what is there."""
    store.root.mkdir(parents=True, exist_ok=True)
    with inside.lock(store.root / ".store.lock"):
        whole = join(store, plan).plan
        store.write_plan({**whole, "named": _named(store, whole)})


def resting_on(store: Store, bases: set[str], planned: set[str]) -> dict[str, int]:
    """How many cells of each view have a record, stand on one of `bases`, and are not among the cells `planned`."""
    found: dict[str, int] = {}
    for path in plan_files(store.root) if bases else ():
        with contextlib.suppress(OSError, CorruptFile):  # a view that cannot be read shows none
            cells = {c["cell_key"] for c in read_plan_file(path)["cells"] if c["base_key"] in bases} - planned
            if count := sum(inside.is_file(store.cell_folder(key) / "record.json") for key in cells):
                found[path.parent.name] = count
    return found


def _named(store: Store, plan: Record) -> Record | None:
    """Since when a view has its primary comparisons: whether they are `stated` in the configuration, and how many of
    its cells were `done` when they first were what they are now. None where an earlier version did not say."""
    path = store.suite_folder(plan["suite"]) / "plan.json"
    try:
        stored = read_plan_file(path)
        if stored["primary"] == plan["primary"]:
            said: Record | None = stored.get("named")
            return said
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is none, or none that can be read
    stated = (plan["config"].get("statistics") or {}).get("primary") is not None
    done = [cell for cell in plan["cells"] if inside.is_file(store.cell_folder(cell["cell_key"]) / "record.json")]
    return {"stated": stated, "done": len(done)}


def _row(cell: Cell) -> tuple[Any, ...]:
    return tuple(cell[name] for name in ROW)


def _difference(stored: Record, plan: Record) -> Callable[[Cell], bool]:
    """Whether a stored cell stands where cells of a plan stand with other settings.

    Cells of one row share a base but for its seed, and those of one method in a row its settings. Plans of earlier
    versions do not say these: there keys are compared, and where no seed is shared, nothing is taken for the same.
    """
    settings = {base["base_key"]: base.get("settings") for base in (*stored["bases"], *plan["bases"])}
    bases: dict[Any, set[Any]] = defaultdict(set)
    lines: dict[Any, set[Any]] = defaultdict(set)
    for cell in plan["cells"]:
        bases[_row(cell)] |= {cell["base_key"], settings[cell["base_key"]]}
        lines[_row(cell), cell["method"]] |= {cell["cell_key"], cell["settings"]}
    same_rows = {_row(cell) for cell in stored["cells"] if cell["base_key"] in bases.get(_row(cell), ())}
    same_lines = {
        (_row(cell), cell["method"])
        for cell in stored["cells"]
        if cell["cell_key"] in lines.get((_row(cell), cell["method"]), ())
    }

    def differs(cell: Cell) -> bool:
        row, line = _row(cell), (_row(cell), cell["method"])
        if row not in bases:
            return False
        own = settings.get(cell["base_key"])
        if own not in bases[row] if own is not None else row not in same_rows:
            return True
        if line not in lines:
            return False
        own = cell.get("settings")
        return own not in lines[line] if own is not None else line not in same_lines

    return differs


def _in_order(stays: Iterable[Cell], new: Iterable[Cell]) -> list[Cell]:
    """The cells of both, the new ones where they stand for an earlier one; those of a base beside each other."""
    fresh = {cell["cell_key"]: cell for cell in new}
    cells = [fresh.pop(cell["cell_key"], cell) for cell in stays]
    cells += fresh.values()
    rows = {row: place for place, row in enumerate(dict.fromkeys(map(_row, cells)))}
    methods = {method: place for place, method in enumerate(dict.fromkeys(cell["method"] for cell in cells))}
    return sorted(cells, key=lambda cell: (rows[_row(cell)], cell["seed"], methods[cell["method"]]))


def _commands(stored: Record, plan: Record) -> list[str]:
    """The commands that the cells of a view are of, each once, in their order."""
    earlier = stored.get("commands") or [stored.get("command", "")]
    return [*(command for command in earlier if command != plan["command"]), plan["command"]]


def _primary(stored: Record, plan: Record, others: Iterable[Cell]) -> list[dict[str, str]]:
    """What is tested: the plan's own, and of methods that it does not have what was where nothing is stated."""
    if ((plan["config"].get("statistics") or {}).get("primary")) is not None:
        return list(plan["primary"])
    methods = {cell["method"] for cell in others}
    earlier = [pair for pair in stored.get("primary") or [] if pair["method"] in methods]
    return [*plan["primary"], *(pair for pair in earlier if pair not in plan["primary"])]


def set_twins(plan: Record) -> None:
    """Give every cell on a base at a constant rate its `twin`: the optimizer's preset of the annealed base whose rate
    falls lowest, the first of equals, with the same `alike`: model, data set, seed, length and class of optimizer.
    Cells of earlier versions, whose bases do not say what they are like, keep theirs; where they do not say how low
    their rate falls, it counts as 0."""
    alike = {base["base_key"]: json.dumps(base["alike"]) for base in plan["bases"] if "alike" in base}
    annealed: dict[str, str] = {}
    for cell in sorted(plan["cells"], key=_rate_end):
        if cell["base_key"] in alike and cell["schedule"] != "constant" and _rate_end(cell) <= ANNEALED_END:
            annealed.setdefault(alike[cell["base_key"]], cell["optimizer"])
    for cell in plan["cells"]:
        if cell["base_key"] in alike:
            constant = cell["schedule"] == "constant"
            cell["twin"] = annealed.get(alike[cell["base_key"]]) if constant else None


def _rate_end(cell: Cell) -> float:
    return cell.get("rate_end") or 0.0


def _line(stored: Record, plan: Record, gone: list[Cell], others: list[Cell]) -> str | None:
    """What becomes of the cells of a view that are not asked for, in one line."""
    name, stay = plan["suite"], f"{_cells(len(others))} of earlier commands {'stays' if len(others) == 1 else 'stay'}"
    if not gone:
        return f"view {name}: {stay} beside these" if others else None
    changes = list(_changes(_leaves(stored.get("config") or {}), _leaves(plan["config"])))
    because = f"with other settings ({_listed(changes)})" if changes else _otherwise(stored, plan, gone)
    beside = f"; {stay}" if others else ""
    return (
        f"view {name}: {len(gone)} of its {_cells(len(stored['cells']))} will be taken out, made {because}: "
        f"{_listed(dict.fromkeys(cell['method'] for cell in gone))}{beside}; "
        "another name=... makes a view beside this one, and their records stay in any case"
    )


def _otherwise(stored: Record, plan: Record, gone: list[Cell]) -> str:
    """How the cells `gone` were made where no setting differs: what else their keys hold is data and sources."""
    settings = {base["base_key"]: base.get("settings") for base in stored["bases"]}
    own = {settings[cell["base_key"]] for cell in gone}
    if None in own:
        return "in another version of a method or of the data"
    if own <= {base["settings"] for base in plan["bases"]}:
        return "by other sources of these methods than now"
    return "from other data or pretrained weights than now"


def _cells(count: int) -> str:
    return f"{count} cell{'' if count == 1 else 's'}"


def _listed(words: Iterable[str]) -> str:
    known = list(words)
    more = f" and {len(known) - NAMED} more" if len(known) > NAMED else ""
    return ", ".join(known[:NAMED]) + more


def _leaves(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        here = (*path, str(key))
        if here[0] in CHOSEN or here[2:3] in (("search",), ("fast",), ("rates",)):
            continue
        if isinstance(value, Mapping):
            yield from _leaves(value, here)
        else:
            yield ".".join(here), value


def _changes(before: Iterable[tuple[str, Any]], after: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """The keys of both that have other values."""
    known = dict(before)
    for key, value in after:
        if key in known and known[key] != value:
            yield f"{key}={_value(value)}, was {_value(known[key])}"


def _value(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else shown(value).strip("'")
