"""The figures of a suite on its page: which there are, what they show in words, and where their data are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.report.figures.draw import SUITE
from harness.report.figures.files import ENDINGS
from harness.report.figures.registry import FIGURES, FigureKind
from harness.storage.inside import copy_file, entries, is_file, open_read

WIDEST_COLUMN = 1500
"""pixels"""


@dataclass(frozen=True)
class PageFigure:
    """A figure as the page shows it; addresses are relative to the page."""

    name: str
    title: str
    shows: str
    """The model, data set, optimizer and method that it shows; empty for the suite."""
    description: str
    image: str
    wide: bool
    """drawn for both columns of a paper"""
    links: list[tuple[str, str]]


def gather_figures(folder: Path, target: Path) -> list[PageFigure]:
    """Copy the figures of a suite beside its page, in the order of the registry; others come last as they are named."""
    kinds = {kind.name: place for place, kind in enumerate(FIGURES)}
    found = []
    for path in [path for path in entries(folder, "*.png") if is_file(path)]:
        stem, _, name = path.stem.rpartition("-")
        kind = FIGURES[kinds[name]] if name in kinds else FigureKind(name, path.stem, "A figure of this suite.")
        links = []
        target.mkdir(parents=True, exist_ok=True)
        for ending in ENDINGS:
            file = path.with_suffix(f".{ending}")
            if is_file(file):
                copy_file(file, target / file.name)
                links.append((ending.upper(), f"figures/{file.name}"))
        shows = "" if stem == SUITE else stem
        image = f"figures/{path.name}"
        figure = PageFigure(path.stem, kind.title, shows, kind.description, image, is_wide(path), links)
        found.append((kinds.get(name, len(kinds)), figure))
    return [figure for _, figure in sorted(found, key=lambda placed: placed[0])]


def is_wide(path: Path) -> bool:
    """Whether an image in PNG has more pixels side by side than a column's; False for anything else."""
    with open_read(path) as file:
        beginning = file.read(24)
    return beginning[:4] == b"\x89PNG" and int.from_bytes(beginning[16:20], "big") > WIDEST_COLUMN
