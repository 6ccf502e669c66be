"""The style of all figures: widths, colours and matplotlib's settings, for one or two columns of a paper.

Colours of modes are Paul Tol's muted scheme, which colour-blind readers can tell apart, ordered so that neighbours
differ in lightness too and survive a grey print. Colours of methods are those of `harness.report.method_styles`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report.method_styles import style_of

WIDTH = 3.4
"""The width of one column of a paper, in inches."""
WIDE = 7.0
"""The width of two columns of a paper, in inches."""
STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
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
class Labels:
    """What a figure says beside its data: the title's second line, the metric compared, the target in words."""

    title: str
    metric: str = "test_accuracy"
    target: str = ""


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """What the labels of one pair of axes mean, for the whole figure."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, handlelength=1.6, columnspacing=1.2
    )
