"""`traindyn report`: frame, tables, figures and page of a suite from its records, and what is said of them."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pandas as pd

from harness.config import ConfigError, check_choice
from harness.report.compare import compare, printed
from harness.report.cost import budgets, check_budget, write_budget
from harness.report.headline import headline
from harness.report.html import write_page
from harness.report.printing import statistics
from harness.report.rendering import Printed
from harness.report.summary import Results
from harness.report.tables import METRICS
from harness.report.views import make_views
from harness.report.warnings import warnings
from harness.report.written import write_csv, write_errors, write_printed
from harness.results.frame import read_plan
from harness.storage.store import Store

Say = Callable[[str], None]

DEFAULTS = {
    "suite": "adhoc",
    "results_dir": "results",
    "tables.columns": "",
    "tables.metric": "test_accuracy",
    "tables.target": "",
    "tables.budget": "",
    "compare": "",
    "figures": "all",
    "figures.landscape": "0",
}
"""what `report` takes, and what it is where it is not given"""
FIGURES = ("all", "none")
GRID = 61
"""most points of a loss landscape along one direction"""


@dataclass(frozen=True)
class Options:
    """What was asked for, checked; column names are checked against the frame, later."""

    suite: str
    root: Path
    columns: str
    metric: str
    target: float | None
    budget: str | int | None
    compare: str
    figures: bool
    landscape: int

    @classmethod
    def of(cls, overrides: Sequence[str]) -> Options:
        """From `key=value` texts; ConfigError for another key or a value out of bounds."""
        values = dict(DEFAULTS)
        for text in overrides:
            key, _, value = text.partition("=")
            if key not in values:
                raise ConfigError(f"report takes {', '.join(f'{name}=' for name in values)} only, got {text!r}")
            values[key] = value
        check_choice("tables.metric", values["tables.metric"], METRICS)
        check_choice("figures", values["figures"], FIGURES)
        return cls(
            suite=values["suite"],
            root=Path(values["results_dir"]),
            columns=values["tables.columns"],
            metric=values["tables.metric"],
            target=_percent("tables.target", values["tables.target"]),
            budget=check_budget(values["tables.budget"]) if values["tables.budget"] else None,
            compare=values["compare"],
            figures=values["figures"] == "all",
            landscape=_points(values["figures.landscape"]),
        )


def _percent(key: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 100:
        raise ConfigError(f"{key} must be above 0 and at most 100 percent of validation accuracy, got {text!r}")
    return value


def _points(text: str) -> int:
    if not text.isdecimal() or not (text == "0" or 3 <= int(text) <= GRID):
        raise ConfigError(f"figures.landscape must be 0 or 3 to {GRID} points along each direction, got {text!r}")
    return int(text)


@dataclass(frozen=True)
class Report:
    """What was made, for the terminal."""

    found: Results
    page: Path
    tables: list[Printed]
    """chosen columns and comparisons, to be printed"""
    texts: list[str]


def make_report(options: Options, say: Say) -> Report:
    """Write all views of a suite and its page; `say` hears of every figure."""
    store = Store(options.root, say)
    plan = read_plan(store.root, options.suite)
    folder = store.suite_folder(options.suite)
    views = make_views(store, options.suite, options.metric, options.target, options.columns)
    tables: list[Printed] = []
    texts: list[str] = []
    if options.columns:
        tables += statistics(views.found, views.summary, views.choice)
    shown: list[Printed] = []
    if options.compare:
        comparison = compare(views.found.frame, options.compare, options.suite, options.metric)
        write_csv(comparison.table, folder / "tables" / "compare.csv")
        shown = printed(comparison, views.choice)
        write_printed(shown, folder / "tables", "compare")
        tables += shown
        texts += comparison.notes
    if options.budget is not None:
        frame, own = views.found.frame, budgets(store, views.found.frame, options.budget)
        texts.append(write_budget(frame, views.history, own, folder / "tables"))
    if options.figures:
        for line in draw(store, options, views.found, views.history):
            say(line)
        write_errors(folder / "figures", folder / "tables")
    found_warnings = warnings(views.found.frame)
    page = write_page(store, plan, views.found, views.history, views.summary, found_warnings, shown)
    return Report(views.found, page, tables, texts)


def draw(store: Store, options: Options, found: Results, history: pd.DataFrame) -> Iterator[str]:
    """All figures of a suite, one line for what the reader must know of each."""
    from harness.report import eigenvalues
    from harness.report.figures import draw_figures
    from harness.report.resultfigures import draw_results

    folder = store.suite_folder(options.suite) / "figures"
    yield from chain(
        draw_results(found, history, folder),
        draw_figures(store, options.suite),
        eigenvalues.draw_all(store, options.suite),
    )
    if options.landscape:
        from harness.report.landscape import draw_landscapes

        yield from draw_landscapes(store, options.suite, options.landscape)


def open_page(page: Path, environment: Mapping[str, str] = os.environ) -> bool:
    """Show the page in a browser where there is a screen; otherwise leave it to the reader."""
    screen = sys.platform in ("darwin", "win32") or any(environment.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))
    return screen and webbrowser.open(page.resolve().as_uri())


def sentences(found: Results) -> str:
    """The headline, one sentence a line."""
    return "\n".join(headline(found))
