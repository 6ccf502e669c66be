"""The images of a figure, a PNG and a PDF, each whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
from matplotlib.figure import Figure

from harness.report.figures.style import STYLE, Labels
from harness.storage.files import replacing

ENDINGS = ("png", "pdf", "csv")
"""The endings of a figure's files: two images and the table that it shows."""
Data = TypeVar("Data")


def draw_to(path: Path, draw: Callable[[Data, Labels], Figure], data: Data, labels: Labels, origin: str) -> None:
    """Draw data in the report's style and write `<path>.png` and `<path>.pdf`, which say their origin.

    They have no date in them, so that one table gives one file.
    """
    metadata: dict[str, dict[str, Any]] = {
        "png": {"Description": origin, "Software": None},
        "pdf": {"Subject": origin, "CreationDate": None},
    }
    with mpl.rc_context(STYLE):
        figure = draw(data, labels)
        for kind, values in metadata.items():
            with replacing(path.with_name(f"{path.name}.{kind}")) as temporary:
                figure.savefig(temporary, format=kind, metadata=values)
            figure.set_layout_engine("none")  # found once, it stays
