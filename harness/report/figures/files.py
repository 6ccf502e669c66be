"""The images of a figure, a PNG and a PDF, each whole or not at all, and drawn anew only where they would differ."""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import starmap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from PIL import Image

from harness.processes import METHOD, cores, on_its_own, start_server
from harness.report.figures.style import STYLE, Labels
from harness.storage.files import read_bytes, replacing
from harness.storage.inside import open_read
from harness.validation import reason

ENDINGS = ("png", "pdf", "csv")
"""The endings of a figure's files: two images and the table that it shows."""
REPORT = Path(__file__).parents[1]
"""The code that an image depends on."""
FEW = 8
"""The most figures that are not worth other processes, which import matplotlib first."""
PRELOAD = ("harness.report.figures.registry",)
"""what every process that draws imports"""


@dataclass(frozen=True)
class Drawing:
    """A figure to be drawn: `<path>.png` and `<path>.pdf`, of data in the report's style, that say their origin.

    Images have no date in them, so that one table gives one file.
    """

    path: Path
    draw: Callable[[Any, Labels], Figure]
    data: Any
    labels: Labels
    origin: str
    checks: bool = False
    """Whether what is wrong with the data is said: those of a user's own method hold whatever they hold."""


def draw_all(drawings: Sequence[Drawing]) -> list[str | None]:
    """Draw figures, many of them on all cores; of each what is wrong with its data in words, None where nothing is.

    Where the data are tables alone, what determines the images has a digest, which they say too: whole images of this
    digest are left as they are.
    """
    digests = [_digest(drawing) for drawing in drawings]
    due = [place for place, drawing in enumerate(drawings) if not _is_drawn(drawing, digests[place])]
    given = [(drawings[place], digests[place]) for place in due]
    workers = min(cores(), len(due))
    if len(due) <= FEW or workers == 1:
        said = [*starmap(_draw, given)]
    else:
        start_server(PRELOAD)
        with ProcessPoolExecutor(workers, multiprocessing.get_context(METHOD), _leave_interrupts) as pool:
            try:
                with on_its_own():
                    drawn = [pool.submit(_draw, *one) for one in given]
                said = [one.result() for one in drawn]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    found = dict(zip(due, said, strict=True))
    return [found.get(place) for place in range(len(drawings))]


def _leave_interrupts() -> None:
    """An interrupt is for the process that asked for the figures to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _draw(drawing: Drawing, digest: str | None) -> str | None:
    """Draw a figure and write its images, each drawn once: `Figure.savefig` draws twice what it saves once."""
    with mpl.rc_context(STYLE):
        try:
            figure = drawing.draw(drawing.data, drawing.labels)
            figure.set_dpi(mpl.rcParams["savefig.dpi"])
            with replacing(_image(drawing, "png")) as temporary:
                said = {"Description": drawing.origin, "Comment": digest, "Software": None}
                FigureCanvasAgg(figure).print_png(temporary, metadata=said)  # type: ignore[no-untyped-call]
            figure.set_layout_engine("none")  # found once, it stays
            with replacing(_image(drawing, "pdf")) as temporary:
                said = {"Subject": drawing.origin, "Keywords": digest, "CreationDate": None}
                FigureCanvasPdf(figure).print_pdf(temporary, metadata=said)  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, LookupError) as error:
            if not drawing.checks:
                raise
            return reason(error)
    return None


def _image(drawing: Drawing, kind: str) -> Path:
    return drawing.path.with_name(f"{drawing.path.name}.{kind}")


def _digest(drawing: Drawing) -> str | None:
    """Of all that determines a figure: its tables, its words, and the code that draws it. None of data of other kinds,
    which are quick to draw beside what it took to have them."""
    draw, data = drawing.draw, drawing.data
    given = data if isinstance(data, Mapping) else {"": data}
    tables = {name: table for name, table in given.items() if isinstance(table, pd.DataFrame)}
    if len(tables) < len(given):
        return None
    digest = hashlib.sha256(
        f"{_code()} {draw.__module__}.{draw.__qualname__} {drawing.labels!r} {drawing.origin}".encode()
    )
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


def _is_drawn(drawing: Drawing, digest: str | None) -> bool:
    """Whether both images are there, whole, and of that digest."""
    if digest is None:
        return False
    try:
        with open_read(_image(drawing, "png")) as file, Image.open(file) as image:
            said = image.info.get("Comment")
            image.verify()
        pdf = read_bytes(_image(drawing, "pdf"))
    except (OSError, ValueError, SyntaxError):  # Pillow's word for a damaged PNG
        return False
    return said == digest and digest.encode() in pdf and pdf.rstrip().endswith(b"%%EOF")
