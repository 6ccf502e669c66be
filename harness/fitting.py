"""What fits a terminal of any width: of several forms of one thing the first that is no wider."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement

UNBOUNDED = 10_000
"""columns, wider than any terminal"""


class FirstThatFits:
    """Shows the first of several forms that is not wider than the terminal, or else the last; asked at every rendering,
    so that it follows a window that changes its size."""

    def __init__(self, *forms: Callable[[], RenderableType]) -> None:
        self.forms = forms

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for form in self.forms[:-1]:
            made = form()
            if Measurement.get(console, options.update(max_width=UNBOUNDED), made).maximum <= options.max_width:
                yield made
                return
        yield self.forms[-1]()
