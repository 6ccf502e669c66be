"""How a method looks in every figure and on the page: one colour, line and marker per method, wherever it appears.

Known methods share a hue by family and differ within it in lightness, line and marker, so that they can be told apart
without colour too; hues are Okabe and Ito's (Color Universal Design, 2008), which colour-blind readers can tell apart.
A method that is not known here has its looks from its name alone, so they do not depend on what it is compared with.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """A method's name in prose, its family, and how it is drawn; `dash` and `marker` in plotly's words."""

    label: str
    family: str
    colour: str
    dash: str
    marker: str


PLAIN, AVERAGES, CMD, DMD, LOW, FROZEN, OTHERS = (
    "plain training",
    "averages",
    "CMD",
    "DMD",
    "subspaces",
    "frozen weights",
    "others",
)
FAMILIES = (PLAIN, AVERAGES, CMD, DMD, LOW, FROZEN, OTHERS)
"""in the order of panels and legends"""

KNOWN = {
    "base": Look("Base, as it is", PLAIN, "#000000", "solid", "circle"),
    "base_recalibrated": Look("Base, recalibrated", PLAIN, "#767676", "dash", "square"),
    "ema": Look("EMA", AVERAGES, "#0072B2", "solid", "circle"),
    "swa": Look("SWA", AVERAGES, "#56B4E9", "solid", "square"),
    "lawa": Look("LAWA", AVERAGES, "#1B3A6B", "dash", "triangle-up"),
    "time_mean": Look("Time mean", AVERAGES, "#7C93C3", "dot", "diamond"),
    "lookahead": Look("Lookahead", AVERAGES, "#3FB8AF", "dashdot", "cross"),
    "schedule_free": Look("Schedule-free", AVERAGES, "#0B6E75", "longdash", "triangle-down"),
    "cmd_online": Look("Online CMD", CMD, "#D55E00", "solid", "circle"),
    "cmd_posthoc": Look("Post-hoc CMD", CMD, "#E69F00", "dash", "star"),
    "cmd_embedded": Look("Embedded CMD", CMD, "#8A2A00", "dashdot", "square"),
    "dmd": Look("DMD", DMD, "#CC79A7", "solid", "circle"),
    "cmd_dmd": Look("DMD of CMD's references", DMD, "#7B2D8B", "dash", "square"),
    "dmd_reconstruction": Look("DMD reconstruction", DMD, "#B497D6", "dot", "star"),
    "dmd_jumps": Look("DMD jumps", DMD, "#4B1D6B", "dashdot", "triangle-up"),
    "p_sgd": Look("P-SGD", LOW, "#009E73", "solid", "circle"),
    "p_bfgs_equal": Look("P-BFGS (equal budget)", LOW, "#6BC6A4", "dash", "square"),
    "p_bfgs_long": Look("P-BFGS (long budget)", LOW, "#00533C", "dashdot", "triangle-up"),
    "twa": Look("TWA", LOW, "#8F9B00", "longdash", "diamond"),
    "frozen_random": Look("Frozen at random", FROZEN, "#A6761D", "dash", "cross"),
    "frozen_least_moved": Look("Frozen where least moved", FROZEN, "#5E430F", "dot", "triangle-down"),
}
SPARE = ("#882255", "#44AA99", "#DDAA33", "#004488", "#BB5566", "#117733", "#AA3377", "#332288")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")

LINES = {
    "solid": "-",
    "dash": (0, (4, 1.6)),
    "dot": (0, (1, 1.4)),
    "dashdot": (0, (5, 1.4, 1, 1.4)),
    "longdash": (0, (8, 1.8)),
}
"""matplotlib's line styles"""
POINTS = {
    "circle": "o",
    "square": "s",
    "triangle-up": "^",
    "triangle-down": "v",
    "diamond": "D",
    "cross": "P",
    "star": "*",
}
"""matplotlib's markers"""


def look(method: str) -> Look:
    """The looks of a method, from its name alone."""
    if method in KNOWN:
        return KNOWN[method]
    digest = hashlib.sha256(method.encode()).digest()
    return Look(
        label=method,
        family=OTHERS,
        colour=SPARE[digest[0] % len(SPARE)],
        dash=DASHES[digest[1] % len(DASHES)],
        marker=MARKERS[digest[2] % len(MARKERS)],
    )


def by_family(methods: list[str]) -> dict[str, list[str]]:
    """The families that occur, each with its methods in the given order."""
    found = {family: [m for m in methods if look(m).family == family] for family in FAMILIES}
    return {family: members for family, members in found.items() if members}
