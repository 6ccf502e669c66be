"""`traindyn report`: frame, tables, figures and page of a suite from its records, and what is said of them."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.arguments import ReportArguments, read_arguments
from harness.planning.methods import make_importable
from harness.report.page.write import write_page
from harness.report.stats.budget import at_budget, budgets, check_budget
from harness.report.stats.headline import headline
from harness.report.stats.kernels import in_words, kernels
from harness.report.stats.other_results import compare
from harness.report.stats.summary import Results
from harness.report.tables.budget import budget_tables
from harness.report.tables.comparison import comparison_tables
from harness.report.tables.kernels import write_kernels
from harness.report.tables.printed import Printed, markdown
from harness.report.tables.suite import statistics
from harness.report.tables.write import error_shares, write_csv, write_errors, write_printed
from harness.report.views import make_views
from harness.report.warnings import warnings
from harness.storage.store import Store
from harness.storage.views import read_plan, said_view

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What was asked for, checked; the names of columns are checked against the frame, later."""

    view: str | None
    """Its name, None for the latest."""
    root: Path
    columns: str
    metric: str | None
    target: float | None
    budget: str | int | None
    compare: str
    figures: bool
    landscape: int
    width: str = "auto"
    title: bool = True
    config_dirs: tuple[Path, ...] = ()
    """Folders with a user's own methods, which landscapes fit anew."""

    @classmethod
    def of(cls, overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> Options:
        """The options in `key=value` texts; ConfigError for another key or a value out of bounds."""
        given = read_arguments(ReportArguments, "report", overrides)
        make_importable(config_dirs)
        return cls(
            view=given.view,
            root=Path(given.results_dir),
            columns=given.columns,
            metric=given.metric,
            target=given.target,
            budget=check_budget(given.budget) if given.budget else None,
            compare=given.compare,
            figures=given.figures == "all",
            landscape=given.landscape,
            width=given.width,
            title=given.title,
            config_dirs=tuple(config_dirs),
        )


@dataclass(frozen=True)
class Report:
    """What was made, for the terminal."""

    found: Results
    page: Path
    tables: list[Printed]
    """The chosen columns and comparisons, to be printed."""
    texts: list[str]


def make_report(options: Options, say: Say) -> Report:
    """Write all that a view shows and its page; `say` hears which it is where none is named, and of every figure."""
    store = Store(options.root, say)
    name = said_view(options.root, options.view, say)
    plan = read_plan(store.root, name)
    folder = store.suite_folder(name) / "tables"
    views = make_views(store, name, options.metric, options.target, options.columns)
    found = views.found
    chosen: list[Printed] = statistics(found, views.summary, views.choice) if options.columns else []
    compared: list[Printed] = []
    texts: list[str] = []
    if options.compare:
        comparison = compare(found.frame, options.compare, name, found.metric, views.correct)
        write_csv(comparison.table, folder / "compare.csv")
        compared = comparison_tables(comparison, views.choice)
        write_printed(compared, folder, "compare")
        texts += comparison.notes
    if options.budget is not None:
        reached = at_budget(found.frame, found.history, budgets(store, found.frame, options.budget))
        write_csv(reached, folder / "budget.csv")
        write_printed(budget_tables(reached), folder, "budget")
        texts.append(markdown(budget_tables(reached)))
    write_errors(error_shares(store, found.frame), folder)
    linear = kernels(store, found.frame)
    compared_kernels = write_kernels(linear, folder)
    for line in map(in_words, linear):
        say(line)
    if options.figures:
        for line in draw(store, name, options, found):
            say(line)
    page = write_page(store, plan, found, views.summary, warnings(found.frame), compared, compared_kernels)
    return Report(found, page, [*chosen, *compared], texts)


def draw(store: Store, name: str, options: Options, found: Results) -> Iterator[str]:
    """Draw all figures of a view, with one line for what the reader must know of each."""
    from harness.report.figures.draw import draw_figures
    from harness.report.figures.style import WIDTHS, Look

    folder, look = store.suite_folder(name) / "figures", Look(WIDTHS.get(options.width), options.title)
    yield from draw_figures(store, found, folder, look)
    if options.landscape:
        from harness.report.figures.landscape import draw_landscapes  # imports timm: seconds

        yield from draw_landscapes(store, found.frame, folder, options.landscape, options.config_dirs, look)


def open_page(page: Path, environment: Mapping[str, str] = os.environ) -> bool:
    """Show the page in a browser where there is a screen; otherwise leave it to the reader."""
    screen = sys.platform in ("darwin", "win32") or any(environment.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))
    return screen and webbrowser.open(page.resolve().as_uri())


def sentences(found: Results) -> str:
    """The headline, one sentence a line."""
    return "\n".join(headline(found))
