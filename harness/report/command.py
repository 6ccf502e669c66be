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

from harness.arguments import ReportArguments, read_arguments
from harness.report.compare import compare, printed
from harness.report.cost import budgets, check_budget, write_budget
from harness.report.headline import headline
from harness.report.html import write_page
from harness.report.printing import statistics
from harness.report.rendering import Printed
from harness.report.summary import Results
from harness.report.views import make_views
from harness.report.warnings import warnings
from harness.report.written import write_csv, write_errors, write_printed
from harness.results.frame import read_plan
from harness.storage.store import Store

Say = Callable[[str], None]


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
        given = read_arguments(ReportArguments, "report", overrides)
        return cls(
            suite=given.suite,
            root=Path(given.results_dir),
            columns=given.columns,
            metric=given.metric,
            target=given.target,
            budget=check_budget(given.budget) if given.budget else None,
            compare=given.compare,
            figures=given.figures == "all",
            landscape=given.landscape,
        )


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
