"""Checks of what a user's loop gives: each ValueError is one line that names the argument, its bound and the value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness.validation import shown


def check_whole_number(name: str, value: Any, least: int) -> None:
    """`value` must be a whole number of at least `least`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole:
        raise ValueError(f"{name} must be a whole number, got {shown(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_every(every: Any) -> None:
    """`every` must be `epoch` or a number of optimizer steps."""
    if every != "epoch":
        if isinstance(every, str):
            raise ValueError(f"every must be epoch or a number of optimizer steps, got {shown(every)}")
        check_whole_number("every", every, 1)


def as_epoch(epoch: Any) -> float | None:
    """Completed epochs as a number, whole where they are; ValueError where it is none that is 0 or more."""
    if epoch is None:
        return None
    if isinstance(epoch, bool) or not isinstance(epoch, int | float) or not math.isfinite(epoch) or epoch < 0:
        raise ValueError(f"epoch must be a finite number of at least 0, got {shown(epoch)}")
    return int(epoch) if float(epoch).is_integer() else float(epoch)


def as_metrics(metrics: Mapping[str, Any] | None) -> dict[str, float | None]:
    """Metrics as plain numbers, None for one that is not finite; ValueError naming one that is no number."""
    found: dict[str, float | None] = {}
    for name, value in (metrics or {}).items():
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"metrics must be numbers, got {name} = {shown(value)}") from None
        found[str(name)] = number if math.isfinite(number) else None
    return found
