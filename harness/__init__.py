"""traindyn: a benchmark harness for neural-network training dynamics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.results.frame import load_frame, load_history
    from harness.results.load_model import load_model

__all__ = ["load_frame", "load_history", "load_model"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command's help stays light."""
    if name in ("load_frame", "load_history"):
        from harness.results import frame

        return getattr(frame, name)
    if name == "load_model":
        from harness.results.load_model import load_model

        return load_model
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
