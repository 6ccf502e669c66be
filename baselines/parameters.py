"""Checks of a method's parameters: each ValueError is one line that names parameter, bound and value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

MOST = 10**6
"""of what is counted one by one, such as epochs, modes or steps: more is a slip of the keyboard"""


def check_whole(name: str, value: Any, least: int, most: int = MOST) -> None:
    """`value` must be a whole number from `least` to `most`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole:
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    if value > most:
        raise ValueError(f"{name} must be at most {most}, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_between(name: str, value: Any, low: float, high: float = math.inf) -> None:
    """`value` must be a finite number strictly between `low` and `high`."""
    if not _is_number(value) or not low < value < high:
        bound = f"a finite number above {low:g}" if math.isinf(high) else f"above {low:g} and below {high:g}"
        raise ValueError(f"{name} must be {bound}, got {value!r}")


def check_from(name: str, value: Any, low: float, below: float = math.inf) -> None:
    """`value` must be a finite number of at least `low`, and below `below`."""
    if not _is_number(value) or not low <= value < below:
        bound = f"at least {low:g}" + ("" if math.isinf(below) else f" and below {below:g}")
        raise ValueError(f"{name} must be {bound}, got {value!r}")


def check_share(name: str, value: Any, whole: float = 1) -> None:
    """`value` must be a number above 0 and at most `whole`."""
    if not _is_number(value) or not 0 < value <= whole:
        raise ValueError(f"{name} must be above 0 and at most {whole:g}, got {value!r}")


def check_bool(name: str, value: Any) -> None:
    """`value` must be true or false."""
    if value is not True and value is not False:
        raise ValueError(f"{name} must be true or false, got {value!r}")


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """`value` must be one of `choices`."""
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")
