"""The images of a figure, a PNG and a PDF, each whole or not at all, and drawn anew only where they would differ."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from harness.report.figures.style import STYLE, Labels
from harness.storage.files import read_bytes, replacing
from harness.storage.inside import open_read

ENDINGS = ("png", "pdf", "csv")
"""The endings of a figure's files: two images and the table that it shows."""
REPORT = Path(__file__).parents[1]
"""The code that an image depends on."""
Data = TypeVar("Data")


def draw_to(path: Path, draw: Callable[[Data, Labels], Figure], data: Data, labels: Labels, origin: str) -> None:
    """Draw data in the report's style and write `<path>.png` and `<path>.pdf`, which say their origin.

    They have no date in them, so that one table gives one file. Where the data are tables alone, what determines the
    images has a digest, which they say too: whole images of this digest are left as they are.
    """
    digest = _digest(draw, data, labels, origin)
    images = {kind: path.with_name(f"{path.name}.{kind}") for kind in ("png", "pdf")}
    if digest is not None and _are_drawn(images, digest):
        return
    metadata: dict[str, dict[str, Any]] = {
        "png": {"Description": origin, "Comment": digest, "Software": None},
        "pdf": {"Subject": origin, "Keywords": digest, "CreationDate": None},
    }
    with mpl.rc_context(STYLE):
        figure = draw(data, labels)
        for kind, values in metadata.items():
            with replacing(images[kind]) as temporary:
                figure.savefig(temporary, format=kind, metadata=values)
            figure.set_layout_engine("none")  # found once, it stays


def _digest(draw: Callable[..., Figure], data: object, labels: Labels, origin: str) -> str | None:
    """Of all that determines a figure: its tables, its words, and the code that draws it. None of data of other kinds,
    which are quick to draw beside what it took to have them."""
    given = data if isinstance(data, Mapping) else {"": data}
    tables = {name: table for name, table in given.items() if isinstance(table, pd.DataFrame)}
    if len(tables) < len(given):
        return None
    digest = hashlib.sha256(f"{_code()} {draw.__module__}.{draw.__qualname__} {labels!r} {origin}".encode())
    for name, table in tables.items():
        digest.update(f"{name} {sorted(table.attrs.items())!r} {table.dtypes.to_dict()!r}".encode())
        digest.update(table.to_csv().encode())
    return digest.hexdigest()


@cache
def _code() -> str:
    """A digest of the report's code, and the version of matplotlib."""
    digest = hashlib.sha256(mpl.__version__.encode())
    for path in sorted(REPORT.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _are_drawn(images: Mapping[str, Path], digest: str) -> bool:
    """Whether both images are there, whole, and of that digest."""
    try:
        with open_read(images["png"]) as file, Image.open(file) as image:
            said = image.info.get("Comment")
            image.verify()
        pdf = read_bytes(images["pdf"])
    except (OSError, ValueError, SyntaxError):  # Pillow's word for a damaged PNG
        return False
    return said == digest and digest.encode() in pdf and pdf.rstrip().endswith(b"%%EOF")
