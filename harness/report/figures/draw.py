"""Draw the figures of a suite into suites/<suite>/figures/, with what each shows beside it as CSV.

Figures of results are `<model>-<dataset>-<optimizer>-<figure>` and for the suite `suite-<figure>`; those of what a
method fitted are `<model>-<dataset>-<optimizer>-<method>-<figure>`, of the lowest finished seed that gives the tables,
and `<model>-<dataset>-<optimizer>-<method>.json` says of which cells they are. Eigenvalues of a row share one figure,
and so do the kernels of its lowest seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from harness.report.figures.files import ENDINGS, draw_to
from harness.report.figures.kept_points import cells_of_points
from harness.report.figures.registry import FIGURES, LANDSCAPE, MethodFigure, ResultFigure
from harness.report.figures.style import Labels, Look
from harness.report.stats.means import ALL, Row, of_row
from harness.report.stats.summary import Results
from harness.report.tables.write import write_csv
from harness.report.warnings import marked
from harness.results.columns import ROW, ROW_METHOD
from harness.results.method_tables import MethodTables, first_with
from harness.storage.files import write_json
from harness.storage.inside import entries, is_file, remove
from harness.storage.store import Store
from harness.validation import reason

SUITE = "suite"
"""What the names of figures over all rows begin with."""
ORIGIN = ("method", "seed", "cell_key")
"""The columns that a table gets where cells share a figure."""


def draw_figures(store: Store, found: Results, folder: Path, look: Look = Look()) -> Iterator[str]:  # noqa: B008
    """Draw all figures of a suite but landscapes, and remove those of earlier plans.

    Lines say what is drawn of methods, and what is not drawn and why.
    """
    drawn: set[str] = set()
    rows: list[Row] = list(dict.fromkeys(map(tuple, found.frame[ROW].astype("str").to_numpy().tolist())))
    for row in rows:
        cells = of_row(found.frame, row)
        if not (cells["status"] == "done").any():
            yield f"figures: {' '.join(row)}: not drawn, no cell is done"
            continue
        yield from _draw_results(found, row, folder, drawn, look)
        for method, own in cells.groupby("method", sort=False):
            yield from _draw_method(store, row, str(method), own, folder, drawn, look)
        yield from _draw_together(store, row, cells, folder, drawn, look)
    yield from _draw_results(found, (ALL,) * len(ROW), folder, drawn, look)
    _remove_outdated(folder, drawn, set(found.frame["cell_key"]))


def _draw_results(found: Results, row: Row, folder: Path, drawn: set[str], look: Look) -> Iterator[str]:
    """Draw the figures of results of one row or, with `all` in its place, of the suite."""
    whole = row[0] == ALL
    title = "all models, data sets and optimizers" if whole else ", ".join(row)
    labels = Labels(marked(title, found.frame), found.metric, found.target_in_words, look)
    for kind in FIGURES:
        if not isinstance(kind, ResultFigure) or ("suite" if whole else "row") not in kind.scopes:
            continue
        data = kind.data(found, row)
        if isinstance(data, str):
            yield f"figures: {data}"
        elif len(data):
            name = f"{SUITE if whole else '-'.join(row)}-{kind.name}"
            write_csv(data, folder / f"{name}.csv")
            draw_to(folder / name, kind.draw, data, labels, f"from {name}.csv")
            drawn.add(name)


def _draw_method(
    store: Store, row: Row, method: str, cells: pd.DataFrame, folder: Path, drawn: set[str], look: Look
) -> Iterator[str]:
    """Draw the figures of what one method fitted in one row."""
    stem, title = "-".join([*row, method]), f"figures: {' '.join(row)}: {method}:"
    origins: dict[str, dict[str, object]] = {}
    for kind in FIGURES:
        if not isinstance(kind, MethodFigure) or kind.together:
            continue
        chosen = first_with(store, cells, kind.tables)
        if chosen is None:
            continue
        cell, lacking = chosen
        tables = lacking or _read(MethodTables(store, cell["cell_key"]), kind)
        labels = Labels(f"{', '.join([*row, method])}, seed {cell['seed']}", look=look)
        wrong = _draw_tables(kind, tables, labels, folder / f"{stem}-{kind.name}", f"cell {cell['cell_key']}")
        if wrong is not None or isinstance(tables, str):
            yield f"{title} {kind.name} not drawn, {wrong}"
            continue
        for name, table in tables.items():
            write_csv(table, folder / f"{stem}-{name}.csv")
            drawn.add(f"{stem}-{name}")
        origins[kind.name] = {name: cell[name] for name in ("cell_key", "base_key", "seed")}
    if origins:
        write_json(folder / f"{stem}.json", dict(zip(ROW_METHOD, [*row, method], strict=True)) | {"figures": origins})
        drawn.add(stem)
        seeds = ", ".join(dict.fromkeys(str(origin["seed"]) for origin in origins.values()))
        yield f"{title} {', '.join(origins)} of seed {seeds}"


def _draw_together(
    store: Store, row: Row, cells: pd.DataFrame, folder: Path, drawn: set[str], look: Look
) -> Iterator[str]:
    """Draw the figures that all methods and seeds of a row share."""
    for kind in FIGURES:
        if not isinstance(kind, MethodFigure) or not kind.together:
            continue
        parts, title = [], f"figures: {' '.join(row)}:"
        done = cells[cells["status"] == "done"]
        if kind.first_seed:
            done = done[done["seed"] == done["seed"].min()]
        for cell in done.to_dict("records"):
            own = MethodTables(store, cell["cell_key"])
            found = _read(own, kind) if own.has(kind.name) else {}
            if isinstance(found, str):
                yield f"{title} {kind.name} of {cell['method']} seed {cell['seed']} not drawn, {found}"
            elif found:
                parts.append(found[kind.name].assign(**{name: cell[name] for name in ORIGIN}))
        if not parts:
            continue
        table, path = pd.concat(parts, ignore_index=True), folder / "-".join([*row, kind.name])
        table = table[["method", "seed", *(column for column in table if column not in ORIGIN), "cell_key"]]
        keys = " ".join(dict.fromkeys(table["cell_key"]))
        wrong = _draw_tables(kind, {kind.name: table}, Labels(", ".join(row), look=look), path, f"cells {keys}")
        if wrong is not None:
            yield f"{title} {kind.name} not drawn, {wrong}"
            continue
        write_csv(table, path.with_name(f"{path.name}.csv"))
        drawn.add(path.name)
        what = kind.title.lower() if kind.first_seed else f"{len(table)} {kind.name}"
        yield f"{title} {what} of {', '.join(dict.fromkeys(table['method']))}"


def _draw_tables(
    kind: MethodFigure, tables: Mapping[str, pd.DataFrame] | str, labels: Labels, path: Path, origin: str
) -> str | None:
    """Draw a figure of methods' tables; what is wrong with these, in words, where it cannot be drawn."""
    if isinstance(tables, str):
        return tables
    try:
        draw_to(path, kind.draw, tables, labels, origin)
    except (ValueError, TypeError, LookupError) as error:  # whatever a user's own table holds
        return reason(error)
    return None


def _read(own: MethodTables, kind: MethodFigure) -> dict[str, pd.DataFrame] | str:
    """The tables that a figure needs, or what is wrong with them in words."""
    lacking = own.lacking(kind.tables)
    if lacking is not None:
        return lacking
    try:
        return {name: own.read(name) for name in kind.tables}
    except ValueError as error:
        return reason(error)


def _remove_outdated(folder: Path, drawn: set[str], cell_keys: set[str]) -> None:
    """Delete figures that this report did not draw, and landscapes of cells that the plan no longer has."""
    ours = {name for kind in FIGURES if isinstance(kind, MethodFigure) for name in kind.tables}
    ours |= {kind.name for kind in FIGURES}
    for path in filter(is_file, entries(folder, "*.*")):
        kind = path.stem.rpartition("-")[2]
        if path.stem in drawn or not (kind in ours or path.suffix == ".json"):
            continue
        if kind != LANDSCAPE:
            remove(path)
    for points in filter(is_file, entries(folder, f"*-{LANDSCAPE}.csv")):
        if not cells_of_points(points) <= cell_keys:
            for ending in ENDINGS:
                remove(points.with_suffix(f".{ending}"))
