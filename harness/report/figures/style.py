"""The style of all figures: widths, fonts, colours and matplotlib's settings, for one or two columns of a paper.

All text is of SIZE points where a figure is set at its own width. Colours of modes are Paul Tol's muted scheme, which
colour-blind readers can tell apart, ordered so that neighbours differ in lightness too and survive a grey print.
Colours of methods are those of `harness.report.method_styles`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.ft2font import LoadFlags
from matplotlib.textpath import TextPath

from harness.report.method_styles import style_of

WIDTH = 3.25
"""The width of one column of a paper, in inches."""
WIDE = 6.75
"""The width of its text, which is that of two columns, in inches."""
WIDTHS = {"column": WIDTH, "text": WIDE}
"""The widths of figures by the names that `figures.width` takes."""
PANEL = 1.6
"""The least width of one of several panels beside each other, in inches."""
SIZE = 7
"""The size of all text, in points."""
STYLE: dict[Any, Any] = {
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize", "figure.titlesize"), SIZE),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), SIZE),
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
}
"""The settings of matplotlib while a figure is made and saved; fonts are embedded as text."""

COLOURS = (
    "#332288", "#88CCEE", "#117733", "#DDCC77", "#882255", "#44AA99", "#AA4499", "#999933", "#CC6677", "#BBBBBB"
)  # fmt: skip
LINE = "#222222"
WALK = "#666666"
MARK = style_of("cmd_posthoc").colour


@dataclass(frozen=True)
class Look:
    """What a reader of the report chose of how all figures look."""

    width: float | None = None
    """The width of every figure in inches; None for the one that suits it, one column or the text."""
    titled: bool = True
    """Whether a figure has a title; a paper says that in its caption."""


@dataclass(frozen=True)
class Labels:
    """What a figure says beside its data: the title's second line, the metric compared, the target in words."""

    title: str
    metric: str = "test_accuracy"
    target: str = ""
    look: Look = field(default=Look())

    def width(self, own: float) -> float:
        """The figure's width in inches: the one chosen, otherwise its `own`."""
        return own if self.look.width is None else self.look.width


@cache
def inches(text: str) -> float:
    """How wide a text of SIZE is, in inches: the longest of its lines, formulas by what they are drawn as."""
    return max(map(_points, filter(str.strip, text.split("\n"))), default=0.0) / 72


def _points(line: str) -> float:
    """How wide a line of text is, in points."""
    font = FontProperties(size=SIZE)
    if "$" in line:
        return float(TextPath((0, 0), line, prop=font).get_extents().x1)
    face = get_font(fontManager.findfont(font))
    face.set_size(SIZE, 72)
    face.set_text(line, 0, flags=LoadFlags.NO_HINTING)
    return float(face.get_width_height()[0]) / 64


def fitted(text: str, room: float) -> str:
    """A text in lines of at most `room` inches, broken behind spaces, commas, underscores or dots if it can be."""
    lines: list[str] = []
    for given in text.split("\n"):
        line = ""
        for piece in re.split(r"(?<=[ ,_])(?![ ,])|(?<=\.)(?!\d)", given):
            for part in [piece] if inches(piece) <= room else piece:
                if line and inches(line + part) > room:
                    lines.append(line.rstrip())
                    line = ""
                line += part
        lines.append(line.rstrip())
    return "\n".join(lines)


def height_of(text: str) -> float:
    """How high a text of SIZE is with all its lines, in inches."""
    return 1.25 * SIZE / 72 * (text.count("\n") + 1)


def entitle(figure: Figure, labels: Labels, title: str) -> None:
    """Give a figure its title, and below it what it is of, in as many lines as its width takes; and room for them."""
    if not labels.look.titled:
        return
    text = fitted("\n".join(part for part in (title, labels.title) if part), figure.get_figwidth() - 0.15)
    figure.set_figheight(figure.get_figheight() + height_of(text))
    figure.suptitle(text)


FEW = 6
"""The most labels of which a long one may take a legend's whole width."""
HANDLE = 2.4
"""The length of a line in a legend, in units of SIZE."""


def legend_below(figure: Figure, axes: Axes) -> None:
    """What the labels of one pair of axes mean, for the whole figure."""
    handles, labels = axes.get_legend_handles_labels()
    legend_of(figure, handles, [str(label) for label in labels])


def legend_of(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """A legend below a figure, in as many columns as its width takes; the figure gets the room for it."""
    if not labels:
        return
    beside = (HANDLE + 0.8 + 1.2) * SIZE / 72
    whole = figure.get_figwidth() - 0.2
    room = whole if len(labels) <= FEW else whole / int(figure.get_figwidth() // PANEL)
    texts = [fitted(label, room - beside) for label in labels]
    columns = max(1, min(len(texts), int(whole // (max(map(inches, texts)) + beside))))
    below = np.array_split(np.array([height_of(text) + 0.03 for text in texts]), columns)
    figure.set_figheight(figure.get_figheight() + max(float(heights.sum()) for heights in below))
    figure.legend(
        handles, texts, loc="outside lower center", ncols=columns, frameon=False, handlelength=HANDLE,
        columnspacing=1.2, labelspacing=0.3,
    )  # fmt: skip


def legend_height(labels: Sequence[str], room: float) -> float:
    """The height of the legend of one panel in inches, its labels as `panel_legend` sets them."""
    return sum(height_of(fitted(label, _beside(room))) + 0.03 for label in labels) + 0.1


def panel_legend(axes: Axes, room: float) -> None:
    """What the labels of one panel mean, below its x axis, in lines of at most `room` inches."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        axes.legend(
            handles, [fitted(str(label), _beside(room)) for label in labels], loc="upper center",
            bbox_to_anchor=(0.5, -0.42), frameon=False, handlelength=HANDLE, labelspacing=0.3, borderpad=0,
        )  # fmt: skip


def _beside(room: float) -> float:
    """What a legend of `room` inches leaves beside its handles."""
    return max(room - (HANDLE + 0.8) * SIZE / 72, 0.5)
