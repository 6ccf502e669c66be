"""Draw the figures of a suite into suites/<suite>/figures/, with what each shows beside it as CSV.

Figures of results are `<model>-<dataset>-<optimizer>-<figure>` and for the suite `suite-<figure>`; those of what a
method fitted are `<model>-<dataset>-<optimizer>-<method>-<figure>`, of the lowest finished seed that gives the tables,
and `<model>-<dataset>-<optimizer>-<method>.json` says of which cells they are. Eigenvalues of a row share one figure,
and so do the kernels of its lowest seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from harness.report.figures.files import ENDINGS, Drawing, draw_all
from harness.report.figures.kept_points import cells_of_points
from harness.report.figures.registry import FIGURES, LANDSCAPE, MethodFigure, ResultFigure
from harness.report.figures.style import Labels, Look
from harness.report.stats.means import ALL, Row, bare, of_row
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


@dataclass
class _Figure:
    """A figure to be drawn, with its tables by the names of their files, and the cell that it is of."""

    name: str
    drawing: Drawing
    tables: dict[str, pd.DataFrame]
    cell: Mapping[str, object] = field(default_factory=dict)
    said: str = ""
    """The line on it where it is drawn."""


@dataclass
class _Group:
    """Figures that belong together: of a row, or of a method in a row, whose `stem` names a file on their cells."""

    title: str
    figures: list[_Figure | str] = field(default_factory=list)
    """In their order; in the place of one that is not drawn, why."""
    stem: str = ""
    row_method: tuple[str, ...] = ()


def draw_figures(store: Store, found: Results, folder: Path, look: Look = Look()) -> Iterator[str]:  # noqa: B008
    """Draw all figures of a suite but landscapes, and remove those of earlier plans.

    Lines say what is drawn of methods, and what is not drawn and why.
    """
    groups = list(_groups(store, found, folder, look))
    drawings = [figure.drawing for group in groups for figure in group.figures if isinstance(figure, _Figure)]
    wrong = dict(zip((drawing.path for drawing in drawings), draw_all(drawings), strict=True))
    drawn: set[str] = set()
    for group in groups:
        yield from _finish(group, wrong, folder, drawn)
    _remove_outdated(folder, drawn, set(found.frame["cell_key"]))


def _groups(store: Store, found: Results, folder: Path, look: Look) -> Iterator[_Group]:
    """All figures of a suite, in the order of its rows."""
    frame = bare(found.frame)
    rows: list[Row] = list(dict.fromkeys(map(tuple, frame[ROW].astype("str").to_numpy().tolist())))
    for row in rows:
        cells = of_row(frame, row)
        if not (cells["status"] == "done").any():
            yield _Group("", [f"figures: {' '.join(row)}: not drawn, no cell is done"])
            continue
        yield _of_results(found, row, folder, look)
        for method, own in cells.groupby("method", sort=False):
            yield _of_method(store, row, str(method), own, folder, look)
        yield _together(store, row, cells, folder, look)
    yield _of_results(found, (ALL,) * len(ROW), folder, look)


def _of_results(found: Results, row: Row, folder: Path, look: Look) -> _Group:
    """The figures of results of one row or, with `all` in its place, of the suite."""
    whole, group = row[0] == ALL, _Group("figures:")
    title = "all models, data sets and optimizers" if whole else ", ".join(row)
    labels = Labels(marked(title, found.frame), found.metric, found.target_in_words, look)
    for kind in FIGURES:
        if not isinstance(kind, ResultFigure) or ("suite" if whole else "row") not in kind.scopes:
            continue
        data = kind.data(found, row)
        if isinstance(data, str):
            group.figures.append(f"figures: {data}")
        elif len(data):
            name = f"{SUITE if whole else '-'.join(row)}-{kind.name}"
            drawing = Drawing(folder / name, kind.draw, data, labels, f"from {name}.csv")
            group.figures.append(_Figure(kind.name, drawing, {name: data}))
    return group


def _of_method(store: Store, row: Row, method: str, cells: pd.DataFrame, folder: Path, look: Look) -> _Group:
    """The figures of what one method fitted in one row."""
    stem = "-".join([*row, method])
    group = _Group(f"figures: {' '.join(row)}: {method}:", stem=stem, row_method=(*row, method))
    for kind in FIGURES:
        if not isinstance(kind, MethodFigure) or kind.together:
            continue
        chosen = first_with(store, cells, kind.tables)
        if chosen is None:
            continue
        cell, lacking = chosen
        tables = lacking or _read(MethodTables(store, cell["cell_key"]), kind)
        if isinstance(tables, str):
            group.figures.append(f"{group.title} {kind.name} not drawn, {tables}")
            continue
        labels = Labels(f"{', '.join([*row, method])}, seed {cell['seed']}", look=look)
        path, origin = folder / f"{stem}-{kind.name}", f"cell {cell['cell_key']}"
        drawing = Drawing(path, kind.draw, tables, labels, origin, checks=True)
        named = {f"{stem}-{name}": table for name, table in tables.items()}
        group.figures.append(_Figure(kind.name, drawing, named, cell))
    return group


def _together(store: Store, row: Row, cells: pd.DataFrame, folder: Path, look: Look) -> _Group:
    """The figures that all methods and seeds of a row share."""
    group = _Group(f"figures: {' '.join(row)}:")
    for kind in FIGURES:
        if not isinstance(kind, MethodFigure) or not kind.together:
            continue
        parts = []
        done = cells.loc[cells["status"] == "done", [*ORIGIN]]
        if kind.first_seed:
            done = done[done["seed"] == done["seed"].min()]
        for cell in done.to_dict("records"):
            own = MethodTables(store, cell["cell_key"])
            found = _read(own, kind) if own.has(kind.name) else {}
            if isinstance(found, str):
                group.figures.append(
                    f"{group.title} {kind.name} of {cell['method']} seed {cell['seed']} not drawn, {found}"
                )
            elif found:
                parts.append(found[kind.name].assign(**{name: cell[name] for name in ORIGIN}))
        if not parts:
            continue
        table, path = pd.concat(parts, ignore_index=True), folder / "-".join([*row, kind.name])
        table = table[["method", "seed", *(column for column in table if column not in ORIGIN), "cell_key"]]
        origin = f"cells {' '.join(dict.fromkeys(table['cell_key']))}"
        labels = Labels(", ".join(row), look=look)
        drawing = Drawing(path, kind.draw, {kind.name: table}, labels, origin, checks=True)
        what = kind.title.lower() if kind.first_seed else f"{len(table)} {kind.name}"
        said = f"{group.title} {what} of {', '.join(dict.fromkeys(table['method']))}"
        group.figures.append(_Figure(kind.name, drawing, {path.name: table}, said=said))
    return group


def _finish(group: _Group, wrong: Mapping[Path, str | None], folder: Path, drawn: set[str]) -> Iterator[str]:
    """Write the tables of a group's figures that are drawn, add their names to `drawn`, and say what is to be said;
    `wrong` has by its path what is wrong with a figure's data."""
    origins: dict[str, dict[str, object]] = {}
    for figure in group.figures:
        if isinstance(figure, str):
            yield figure
            continue
        what = wrong[figure.drawing.path]
        if what is not None:
            yield f"{group.title} {figure.name} not drawn, {what}"
            continue
        for name, table in figure.tables.items():
            write_csv(table, folder / f"{name}.csv")
            drawn.add(name)
        if figure.said:
            yield figure.said
        if figure.cell:
            origins[figure.name] = {name: figure.cell[name] for name in ("cell_key", "base_key", "seed")}
    if origins:
        named = dict(zip(ROW_METHOD, group.row_method, strict=True))
        write_json(folder / f"{group.stem}.json", named | {"figures": origins})
        drawn.add(group.stem)
        seeds = ", ".join(dict.fromkeys(str(origin["seed"]) for origin in origins.values()))
        yield f"{group.title} {', '.join(origins)} of seed {seeds}"


def _read(own: MethodTables, kind: MethodFigure) -> dict[str, pd.DataFrame] | str:
    """The tables that a figure needs, or what is wrong with them in words."""
    lacking = own.lacking(kind.tables)
    if lacking is not None:
        return lacking
    try:
        tables = {name: own.read(name) for name in kind.tables}
        if kind.check is not None:
            kind.check(tables[kind.name])
        return tables
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
