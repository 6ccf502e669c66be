"""One page per cell of a suite: how it ended, its configuration, what it cost, and its history."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from harness.report.method_styles import style_of
from harness.results.columns import ROW
from harness.storage.store import Record, Store
from harness.validation import seen


def write_cell_pages(
    store: Store,
    plan: dict[str, Any],
    frame: pd.DataFrame,
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
            title=" ".join([*(str(cell[name]) for name in ROW), f"seed {cell['seed']}", cell["method"]]),
            siblings=siblings[cell["base_key"]],
            history=None if rows is None else history_table(rows),
            **_contents(store.record(key)),
        )
        (folder / f"{key}.html").write_text(page, encoding="utf-8")


def _contents(record: Record | None) -> dict[str, Any]:
    """What a record says, ready to be shown."""
    if record is None:
        nothing = dict.fromkeys(("reason", "where", "log", "traceback", "config"))
        return {"status": "left", "numbers": [], "facts": [], **nothing}
    facts = {"device": record["device"], "threads": record.get("threads"), "W&B run": record.get("run_id")}
    facts |= {
        f"git of {name}": _commit(said) for name, said in (record.get("environment") or {}).get("git", {}).items()
    }
    return {
        "status": record["status"],
        **{name: seen(record.get(name) or "") for name in ("reason", "where", "log", "traceback")},
        "numbers": [(name, _number(value)) for part in ("summary", "cost") for name, value in record[part].items()],
        "facts": [*facts.items(), *record["versions"].items()],
        "config": json.dumps(record["config"], indent=1, sort_keys=True),
    }


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
    shown = {name: column.tolist() for name, column in columns.items() if not np.isnan(column).all()}
    head = "".join(f'<th scope="col">{name}</th>' for name in map(Markup.escape, shown))
    form = "<tr>" + "<td>%.5g</td>" * len(shown) + "</tr>\n"
    body = "".join([form % row for row in zip(*shown.values(), strict=True)])
    return Markup(f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body.replace('<td>nan</td>', '<td></td>')}</tbody>")
