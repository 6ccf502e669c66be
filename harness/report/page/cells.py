"""One page per cell of a suite: what it is and reached, its configuration, what it cost, and its history."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from harness.report.method_styles import style_of
from harness.results.columns import COLUMNS, Column
from harness.storage.store import Record, Store
from harness.validation import seen


def write_cell_pages(
    store: Store,
    plan: dict[str, Any],
    history: pd.DataFrame,
    templates: jinja2.Environment,
    folder: Path,
) -> None:
    """Write `<cell key>.html` for every cell of the plan, also for those that are left."""
    folder.mkdir(parents=True)
    template = templates.get_template("cell.html")
    places = history.groupby("cell_key", sort=False).indices
    # Arrays and not a DataFrame, whose rows are slow to take for thousands of cells.
    numbers = {str(name): history[name].to_numpy(dtype=np.float64) for name in history.columns if name != "cell_key"}
    siblings: dict[str, list[tuple[str, str]]] = {}
    for cell in plan["cells"]:
        siblings.setdefault(cell["base_key"], []).append((cell["method"], f"{cell['cell_key']}.html"))
    for cell in plan["cells"]:
        key = cell["cell_key"]
        rows = {name: column[places[key]] for name, column in numbers.items()} if key in places else None
        page = template.render(
            cell=cell,
            label=style_of(cell["method"]).label,
            suite=plan["suite"],
            kind=KINDS.get(cell.get("kind")),
            siblings=siblings[cell["base_key"]],
            history=None if rows is None else history_table(rows),
            **_contents(store.record(key), cell),
        )
        (folder / f"{key}.html").write_text(page, encoding="utf-8")


KINDS = {
    "observer": "watches its base's training run",
    "reconstruction": "models its base's training run once it is over",
    "brancher": "trains on its own from an epoch of its base on",
}
"""What a method does, by its kind in the plan."""
OTHER_COLUMNS = {
    "epoch": Column("epoch", "history", title="epoch"),
    "lr": Column("lr", "history", title="learning rate"),
    "train_accuracy": Column("train_accuracy", "history", title="training accuracy", unit="%"),
}
"""Columns of histories that no table of a suite has."""


def _contents(record: Record | None, cell: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says, ready to be shown; the plan's cell says what is not run yet."""
    if record is None:
        nothing: dict[str, Any] = dict.fromkeys(("reason", "where", "log", "traceback", "config"))
        shown = {"reached": [], "costs": [], "others": [], "facts": [], "settings": list(_settings({}, cell))}
        return {"status": "left", **nothing, **shown}
    facts = {"device": record["device"], "threads": record.get("threads"), "W&B run": record.get("run_id")}
    facts |= {
        f"git of {name}": _commit(said) for name, said in (record.get("environment") or {}).get("git", {}).items()
    }
    cost = {name: value for name, value in record["cost"].items() if name in COLUMNS}
    return {
        "status": record["status"],
        **{name: seen(record.get(name) or "") for name in ("reason", "where", "log", "traceback")},
        "reached": [
            _with_unit(COLUMNS[name], record["summary"][name]) for name in REACHED if name in record["summary"]
        ],
        "costs": [_with_unit(COLUMNS[name], value) for name, value in cost.items()],
        "others": [
            (name, _number(value))
            for part in ("summary", "cost")
            for name, value in record[part].items()
            if name not in (*REACHED, *cost)
        ],
        "facts": [*facts.items(), *record["versions"].items()],
        "settings": list(_settings(record["config"], cell)),
        "config": json.dumps(record["config"], indent=1, sort_keys=True),
    }


REACHED = ("test_accuracy", "val_accuracy", "test_loss", "val_loss")
"""The metrics of a cell in the order of its page."""


def _settings(config: Mapping[str, Any], cell: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a cell was run with, as names and values, as far as the record says."""
    base = config.get("base", {})
    parameters = ", ".join(f"{name} {value}" for name, value in cell["parameters"].items())
    policy = {"recalibrate": "recalibrated", "as_is": "as training left it"}.get(cell["batchnorm"], cell["batchnorm"])
    yield "method", f"{cell['method']} ({parameters or 'no parameters'})"
    yield "BatchNorm", policy
    yield "model", cell["model"]
    data = base.get("dataset", {})
    sizes = {"training": data.get("train_size"), "validation": data.get("val_size"), "test": data.get("test_size")}
    images = ", ".join(f"{size:,} {name} images" for name, size in sizes.items() if isinstance(size, int))
    yield "data", cell["dataset"] + (f" ({images})" if images else "")
    optimizer = base.get("optimizer", {})
    rates = ", ".join(f"{name} {value}" for name, value in optimizer.get("params", {}).items())
    schedule = optimizer.get("schedule", {}).get("name")
    words = "; ".join(part for part in (rates, schedule and f"{schedule} rate") if part)
    yield "optimizer", cell["optimizer"] + (f" ({words})" if words else "")
    epochs, batches, size = (base.get(name) for name in ("epochs", "batches_per_epoch", "batch_size"))
    if epochs is not None:
        of = f" of {batches:,} batches" if isinstance(batches, int) else ""
        yield "length", f"{epochs:,} epochs{of}" + (f" of {size:,} images" if isinstance(size, int) else "")
    yield "seed", str(cell["seed"])


def _with_unit(column: Column, value: Any) -> tuple[str, str]:
    """The name of a column in prose, and a value of it with its unit."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return column.title, _number(value)
    if column.unit == "share":
        return column.title, f"{100 * value:.1f} %"
    digits = column.digits if column.digits or float(value * column.scale).is_integer() else 1
    return column.title, f"{value * column.scale:,.{digits}f} {column.unit}".rstrip()


def _commit(said: dict[str, Any] | None) -> str:
    """What a record says of a git commit."""
    if not said or said["commit"] is None:
        return (said or {}).get("note") or "not asked"
    return f"{said['commit'][:12]}, tree {'clean' if said['clean'] else 'not clean'}"


def _number(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "not finite"
    return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def history_table(columns: Mapping[str, NDArray[np.float64]]) -> Markup:
    """The epochs of one cell as an HTML table, five significant digits, columns without any number left out."""
    known = {
        name: OTHER_COLUMNS.get(name) or COLUMNS.get(name) or Column(name, "history", title=name) for name in columns
    }
    shown = {
        known[name].label: (column * known[name].scale).tolist()
        for name, column in columns.items()
        if not np.isnan(column).all()
    }
    head = "".join(f'<th scope="col">{label}</th>' for label in map(Markup.escape, shown))
    form = "<tr>" + "<td>%.5g</td>" * len(shown) + "</tr>\n"
    body = "".join([form % row for row in zip(*shown.values(), strict=True)])
    return Markup(f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body.replace('<td>nan</td>', '<td></td>')}</tbody>")
