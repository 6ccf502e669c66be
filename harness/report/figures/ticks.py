"""What stands beside the ticks of every figure: each label, read as a number, is its tick's own value.

matplotlib moves a common offset or power of ten to the end of an axis, where the reader of one label misses it, and a
format with a fixed number of decimals rounds ticks to what they are not. So the axes of numbers of every figure, colour
bars among them, are labelled here, with as many decimals as their ticks need.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.category import StrCategoryFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import (
    AutoLocator,
    FixedFormatter,
    FixedLocator,
    Formatter,
    FuncFormatter,
    LogFormatter,
    MaxNLocator,
    NullFormatter,
)
from numpy.typing import NDArray

ROUNDING = 1e-14
"""How far the sums that give ticks may be from round numbers, as a share of the largest."""
LONG = 7
"""The most characters of a text that never gets an exponent."""
BETWEEN = 2
"""The least distance between two labels of a horizontal axis, in characters."""
WIDTH_OF_DIGIT = 0.64
"""As a share of the height of a font."""
MOST_DIGITS = 17
"""No float64 needs more to be told from all others."""
MOST_DECIMALS = 340
"""No float64 needs more decimals to show MOST_DIGITS."""


def number_texts(values: Iterable[float]) -> list[str]:
    """The values of one axis or of one scale as texts that say each of them and so tell all of them apart.

    Decimals are as few as that takes, and the same for values at even distances; thousands have commas, and what is
    much shorter with an exponent has one (`2.5e9`). The minus sign is U+2212. A value that is not finite has an empty
    text.
    """
    given = np.asarray(list(values), dtype=np.float64)
    finite = given[np.isfinite(given)]
    even = _are_even(finite)
    near = _near(finite, even)
    finite[np.abs(finite) <= near] = 0.0  # a rest of rounding, which would be a minus zero
    plain = own = [_plain(value, room) for value, room in zip(finite.tolist(), near.tolist(), strict=True)]
    short = [_with_exponent(value, room) for value, room in zip(finite.tolist(), near.tolist(), strict=True)]
    if even:
        decimals = max(len(text.partition(".")[2]) for text in own)
        plain = [f"{value:,.{decimals}f}" for value in finite.tolist()]
    longest = max(plain, key=len, default="")
    if len(longest) > LONG and _is_shorter(max(short, key=len), longest):
        plain = [brief if _is_shorter(brief, text) else text for brief, text in zip(short, own, strict=True)]
    texts = iter(plain)
    return [next(texts).replace("-", "\N{MINUS SIGN}") if known else "" for known in np.isfinite(given)]


def _are_even(values: NDArray[np.float64]) -> bool:
    """Whether there are several values at even distances, as far as sums are exact."""
    distances = np.diff(np.unique(values))
    return len(distances) > 0 and bool(np.ptp(distances) <= 4 * ROUNDING * np.abs(values).max())


def _near(values: NDArray[np.float64], even: bool) -> NDArray[np.float64]:
    """How far the text of each value may be from it: what is a rest of sums at even distances, or of itself."""
    size, distinct = np.abs(values), np.unique(values)
    rests = ROUNDING * (np.full(len(values), size.max()) if even else size)
    distances = np.minimum(np.diff(distinct, prepend=-np.inf), np.diff(distinct, append=np.inf))
    return np.minimum(rests, distances[np.searchsorted(distinct, values)] / 4)


def _plain(value: float, near: float) -> str:
    """A value with the fewest decimals that come `near` to it."""
    texts = (f"{value:,.{decimals}f}" for decimals in range(MOST_DECIMALS + 1))
    return next(text for text in texts if abs(float(text.replace(",", "")) - value) <= near)


def _with_exponent(value: float, near: float) -> str:
    """A value as `2.5e9`, with the fewest digits that come `near` to it."""
    texts = (f"{value:.{digits}e}" for digits in range(MOST_DIGITS))
    mantissa, _, exponent = next(text for text in texts if abs(float(text) - value) <= near).partition("e")
    return f"{mantissa}e{int(exponent)}" if int(exponent) else mantissa


def _is_shorter(brief: str, text: str) -> bool:
    return len(brief) < len(text) - 2


def rounded_apart(values: Iterable[float]) -> NDArray[np.float64]:
    """Increasing values with as few significant digits as keep each near to where it was between its neighbours.

    For borders of bins and levels, so that they are what their labels say; values that are equal become one.
    """
    given = np.unique(np.asarray(list(values), dtype=np.float64))
    room = np.minimum(*(np.diff(given, prepend=-np.inf), np.diff(given, append=np.inf))) / 20
    rounded = (np.array([float(f"{value:.{digits}g}") for value in given]) for digits in range(2, MOST_DIGITS + 1))
    return next(values for values in rounded if np.all(np.abs(values - given) <= room))


class ValueFormatter(Formatter):
    """Labels the ticks of a linear axis with their values."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The text of one tick among those of its axis."""
        return number_texts([*self.locs, x])[-1]

    def format_ticks(self, values: Any) -> list[str]:
        """The texts of all ticks."""
        self.set_locs(values)
        return number_texts(values)


class FittingLocator(MaxNLocator):
    """At most `most` ticks at round numbers of a horizontal linear axis, as many as their labels have room for."""

    def __init__(self, most: int = 9, integer: bool = False) -> None:
        super().__init__(most, integer=integer, steps=[1, 2, 2.5, 5, 10])
        self._most = most

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """The ticks from `vmin` to `vmax`, an array."""
        low, high = sorted((vmin, vmax))
        # matplotlib's space for a tick is three times as wide as its label is high
        room = 3 * (self._most if self.axis is None else self.axis.get_tick_space()) / WIDTH_OF_DIGIT
        for bins in range(self._most, 0, -1):
            self.set_params(nbins=bins)
            values = np.asarray(super().tick_values(vmin, vmax))
            shown = values[(low <= values) & (values <= high)]
            if len(shown) * (max(map(len, number_texts(values)), default=0) + BETWEEN) <= room:
                break
        return values


class LogValueFormatter(LogFormatter):
    """Labels the ticks of a logarithmic axis that matplotlib would label, with their values."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The text of one tick; empty where there is no room for it."""
        return number_texts([x])[0] if super().__call__(x, pos) else ""


def label_ticks(figure: Figure) -> Figure:
    """Have the ticks of all axes of numbers say their values, colour bars' and secondary axes' too; the same figure.

    Horizontal ones get no more ticks than there is room for. What was given by hand stays: names beside ticks, and
    locators. To be called when the axes have their scales.
    """
    for axes in figure.findobj(Axes):
        assert isinstance(axes, Axes)
        if type(axes.xaxis.get_major_locator()) is AutoLocator:
            axes.xaxis.set_major_locator(FittingLocator())
        for axis in (axes.xaxis, axes.yaxis):
            log = axis.get_scale() == "log"
            if not _by_hand(axis.get_major_locator(), axis.get_major_formatter()):
                axis.set_major_formatter(LogValueFormatter(labelOnlyBase=False) if log else ValueFormatter())
            if not _by_hand(axis.get_minor_locator(), axis.get_minor_formatter()):
                axis.set_minor_formatter(LogValueFormatter(labelOnlyBase=False) if log else ValueFormatter())
    return figure


def _by_hand(locator: Any, formatter: Formatter) -> bool:
    """Whether an axis has names beside its ticks, or nothing."""
    named = isinstance(formatter, FuncFormatter) and isinstance(locator, FixedLocator)
    return named or isinstance(formatter, FixedFormatter | NullFormatter | StrCategoryFormatter)
