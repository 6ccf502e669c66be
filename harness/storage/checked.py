"""Files of a results folder, held to what their kind may hold (`harness.storage.schemas`, which is imported when the
first is read, and pydantic with it)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

KEY = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$"
"""of what names a folder: the key of a base or a cell, a suite, or a run"""
STATUSES = ("done", "failed", "diverged", "skipped")


def read_as(kind: str, value: Any) -> dict[str, Any]:
    """As `schemas.read_as`, by the name of a class."""
    from harness.storage import schemas

    return schemas.read_as(getattr(schemas, kind), value)


def read_plan_file(path: Path, kind: str = "PlanRecord") -> dict[str, Any]:
    """As `schemas.read_plan_file`, by the name of a class."""
    from harness.storage import schemas

    return schemas.read_plan_file(path, getattr(schemas, kind))
