"""Checks of what a user's loop gives: each ValueError is one line that names the argument, its bound and the value."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

from harness.validation import shown


def check_whole_number(name: str, value: Any, least: int) -> int:
    """`value` as a plain number; ValueError unless it is a whole one of at least `least`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole:
        raise ValueError(f"{name} must be a whole number, got {shown(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def check_every(every: Any) -> None:
    """`every` must be `epoch` or a number of optimizer steps."""
    if every != "epoch":
        if isinstance(every, str):
            raise ValueError(f"every must be epoch or a number of optimizer steps, got {shown(every)}")
        check_whole_number("every", every, 1)


def check_again(name: str, batches: Any) -> None:
    """`batches` must be None or give its batches every time anew, which an iterator does not."""
    if batches is not None and (not hasattr(batches, "__iter__") or hasattr(batches, "__next__")):
        raise ValueError(f"{name} must give its batches every time anew, as a DataLoader does, got {shown(batches)}")


def as_epoch(epoch: Any) -> float | None:
    """Completed epochs as a number, whole where they are; ValueError where it is none that is 0 or more."""
    if epoch is None:
        return None
    if isinstance(epoch, bool) or not isinstance(epoch, numbers.Real) or not math.isfinite(epoch) or epoch < 0:
        raise ValueError(f"epoch must be a finite number of at least 0, got {shown(epoch)}")
    completed = float(epoch)
    return int(completed) if completed.is_integer() else completed


def as_metrics(name: str, metrics: Mapping[str, Any] | None) -> dict[str, float]:
    """Metrics as plain numbers; ValueError where they are no mapping, or naming one that is no number."""
    if metrics is not None and not isinstance(metrics, Mapping):
        raise ValueError(f"{name} must map names to numbers, got {shown(metrics)}")
    found: dict[str, float] = {}
    for metric, value in (metrics or {}).items():
        try:
            found[str(metric)] = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"{name} must map names to numbers, got {metric} = {shown(value)}") from None
    return found
