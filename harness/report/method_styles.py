"""The style of a method in every figure and on the page: one colour, line and marker per method.

Known methods share a hue by family and differ within it in lightness, line and marker, so that they can be told apart
without colour too; hues are Okabe and Ito's (Color Universal Design, 2008), which colour-blind readers can tell apart.
A method that is not known here has its style from its name alone, so it does not depend on what it is compared with.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class MethodStyle:
    """A method's name in prose, its family, and how it is drawn; `dash` and `marker` in plotly's words."""

    label: str
    family: str
    colour: str
    dash: str
    marker: str

    @property
    def line(self) -> str | tuple[float, tuple[float, ...]]:
        """The dash as matplotlib's line style."""
        return LINES[self.dash]

    @property
    def point(self) -> str:
        """The marker in matplotlib's words."""
        return POINTS[self.marker]


PLAIN, AVERAGES, CMD, CONTROL, DMD, LOW, FROZEN, EXCHANGES, ROUNDS, OTHERS = (
    "plain training",
    "averages",
    "CMD",
    "controls of CMD",
    "DMD",
    "subspaces",
    "frozen weights",
    "fewer bytes",
    "federated optimizers",
    "others",
)
FAMILIES = (PLAIN, AVERAGES, CMD, CONTROL, DMD, LOW, FROZEN, EXCHANGES, ROUNDS, OTHERS)
"""The families in the order of panels and legends."""

KNOWN = {
    "base": MethodStyle("Base, as it is", PLAIN, "#000000", "solid", "circle"),
    "base_recalibrated": MethodStyle("Base, recalibrated", PLAIN, "#767676", "dash", "square"),
    "cooldown": MethodStyle("Cooldown", PLAIN, "#444444", "longdash", "triangle-up"),
    "ema": MethodStyle("EMA", AVERAGES, "#0072B2", "solid", "circle"),
    "swa": MethodStyle("SWA", AVERAGES, "#56B4E9", "solid", "square"),
    "lawa": MethodStyle("LAWA", AVERAGES, "#1B3A6B", "dash", "triangle-up"),
    "time_mean": MethodStyle("Time mean", AVERAGES, "#7C93C3", "dot", "diamond"),
    "epoch_ema": MethodStyle("Epoch EMA", AVERAGES, "#3A5FA8", "longdash", "triangle-down"),
    "ema_short": MethodStyle("EMA, short", AVERAGES, "#4A90C2", "dot", "square"),
    "ema_long": MethodStyle("EMA, long", AVERAGES, "#00456E", "dashdot", "diamond"),
    "power_ema": MethodStyle("Power EMA", AVERAGES, "#2E8BC0", "dash", "star"),
    "posthoc_ema": MethodStyle("Post-hoc EMA", AVERAGES, "#145DA0", "dashdot", "star"),
    "lawa_steps": MethodStyle("LAWA, steps", AVERAGES, "#5B7BB5", "solid", "triangle-up"),
    "lawa_steps_short": MethodStyle("LAWA, steps, short", AVERAGES, "#90A8D8", "dot", "triangle-up"),
    "two_tailed": MethodStyle("Two-tailed", AVERAGES, "#2A6F7F", "solid", "diamond"),
    "uniform_soup": MethodStyle("Uniform soup", AVERAGES, "#6BA3A8", "dash", "cross"),
    "greedy_soup": MethodStyle("Greedy soup", AVERAGES, "#1F4E5F", "dot", "cross"),
    "rna": MethodStyle("RNA", AVERAGES, "#6A5ACD", "dash", "triangle-down"),
    "lookahead": MethodStyle("Lookahead", AVERAGES, "#3FB8AF", "dashdot", "cross"),
    "schedule_free": MethodStyle("Schedule-free", AVERAGES, "#0B6E75", "longdash", "triangle-down"),
    "schedule_free_radam": MethodStyle("Schedule-free RAdam", AVERAGES, "#4FA3A5", "dashdot", "square"),
    "cmd_online": MethodStyle("Online CMD", CMD, "#D55E00", "solid", "circle"),
    "cmd_posthoc": MethodStyle("Post-hoc CMD", CMD, "#E69F00", "dash", "star"),
    "cmd_embedded": MethodStyle("Embedded CMD", CMD, "#8A2A00", "dashdot", "square"),
    "cmd_references_mean": MethodStyle("CMD, mean references", CONTROL, "#F0B840", "dot", "diamond"),
    "cmd_references_principal": MethodStyle("CMD, principal references", CONTROL, "#B8621B", "longdash", "triangle-up"),
    "cmd_references_all": MethodStyle("CMD, all references", CONTROL, "#5C3A00", "dash", "triangle-down"),
    "cmd_mean_kernel": MethodStyle("CMD's mean kernel", CONTROL, "#7A5C00", "dash", "square"),
    "random_references": MethodStyle("Random references", CONTROL, "#C9A227", "dot", "diamond"),
    "clock": MethodStyle("Clock", CONTROL, "#5C6B3C", "solid", "cross"),
    "clock_online": MethodStyle("Clock, online", CONTROL, "#94A36F", "dashdot", "triangle-up"),
    "pca_equal_storage": MethodStyle("PCA (equal storage)", CONTROL, "#8C564B", "solid", "circle"),
    "pca2": MethodStyle("PCA (rank 2)", CONTROL, "#B07A6E", "dash", "star"),
    "pca_equal_modes": MethodStyle("PCA (as many as modes)", CONTROL, "#5A2E25", "longdash", "triangle-down"),
    "persistence": MethodStyle("Persistence", DMD, "#9C6B8A", "longdash", "cross"),
    "dmd": MethodStyle("DMD", DMD, "#CC79A7", "solid", "circle"),
    "cmd_dmd": MethodStyle("DMD of CMD's references", DMD, "#7B2D8B", "dash", "square"),
    "dmd_reconstruction": MethodStyle("DMD reconstruction", DMD, "#B497D6", "dot", "star"),
    "dmd_jumps": MethodStyle("DMD jumps", DMD, "#4B1D6B", "dashdot", "triangle-up"),
    "p_sgd": MethodStyle("P-SGD", LOW, "#009E73", "solid", "circle"),
    "p_bfgs_equal": MethodStyle("P-BFGS (equal budget)", LOW, "#6BC6A4", "dash", "square"),
    "p_bfgs_long": MethodStyle("P-BFGS (long budget)", LOW, "#00533C", "dashdot", "triangle-up"),
    "twa": MethodStyle("TWA", LOW, "#8F9B00", "longdash", "diamond"),
    "fed_cmd": MethodStyle("Federated CMD", EXCHANGES, "#C54905", "solid", "circle"),
    "fed_frozen_random": MethodStyle("Frozen at random (fed.)", EXCHANGES, "#9B6712", "dash", "cross"),
    "fed_frozen_least_moved": MethodStyle("Frozen, least moved (fed.)", EXCHANGES, "#75581C", "dot", "cross"),
    "apf": MethodStyle("APF", EXCHANGES, "#303880", "solid", "square"),
    "a_apf": MethodStyle("Aggressive APF", EXCHANGES, "#7E77CB", "dash", "square"),
    "fed_half": MethodStyle("Half precision", EXCHANGES, "#8A8786", "dot", "diamond"),
    "fedpaq": MethodStyle("FedPAQ", EXCHANGES, "#05855C", "solid", "triangle-up"),
    "top_k": MethodStyle("Top-k", EXCHANGES, "#47B694", "dashdot", "triangle-down"),
    "fedprox": MethodStyle("FedProx", ROUNDS, "#B25C86", "dash", "diamond"),
    "fedavgm": MethodStyle("FedAvgM", ROUNDS, "#66157A", "longdash", "triangle-up"),
    "fedadam": MethodStyle("FedAdam", ROUNDS, "#42125D", "dashdot", "star"),
    "scaffold": MethodStyle("SCAFFOLD", ROUNDS, "#5F1352", "longdash", "star"),
    "frozen_random": MethodStyle("Frozen at random", FROZEN, "#A6761D", "dash", "cross"),
    "frozen_least_moved": MethodStyle("Frozen where least moved", FROZEN, "#5E430F", "dot", "triangle-down"),
}
SPARE = ("#882255", "#3D5AFE", "#4CAF00", "#B000B5", "#BB5566", "#117733", "#C62828", "#332288")
"""The colours of methods that are not known: far from those of all that are."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")

LINES: dict[str, str | tuple[float, tuple[float, ...]]] = {
    "solid": "-",
    "dash": (0, (4, 1.6)),
    "dot": (0, (1, 1.4)),
    "dashdot": (0, (5, 1.4, 1, 1.4)),
    "longdash": (0, (8, 1.8)),
}
"""The line styles of matplotlib by plotly's dashes."""
POINTS = {
    "circle": "o",
    "square": "s",
    "triangle-up": "^",
    "triangle-down": "v",
    "diamond": "D",
    "cross": "P",
    "star": "*",
}
"""The markers of matplotlib by plotly's."""


def style_of(method: str) -> MethodStyle:
    """The style of a method, which follows from its name alone."""
    if method in KNOWN:
        return KNOWN[method]
    digest = hashlib.sha256(method.encode()).digest()
    return MethodStyle(
        label=method,
        family=OTHERS,
        colour=SPARE[digest[0] % len(SPARE)],
        dash=DASHES[digest[1] % len(DASHES)],
        marker=MARKERS[digest[2] % len(MARKERS)],
    )


_BY_LABEL = {style.label.lower(): style for style in KNOWN.values()} | {
    "principal components": MethodStyle("principal components", OTHERS, "#222222", "dash", "circle")
}


def style_of_model(label: str) -> MethodStyle:
    """The style of what a method's table names in prose, such as `post-hoc CMD`: a known method's, or its own."""
    return _BY_LABEL.get(label.lower()) or style_of(label)


TOGETHER = 7
"""The most methods that can be told apart in one panel."""


def panels_of(methods: list[str]) -> list[tuple[str, list[str]]]:
    """Titles and methods of panels: one for all where they are few, otherwise one per family with plain training."""
    families = by_family(methods)
    if len(methods) <= TOGETHER:
        return [("", [method for members in families.values() for method in members])]
    plain = families.pop(PLAIN, [])
    return [(family, [*plain, *members]) for family, members in families.items()]


def by_family(methods: list[str]) -> dict[str, list[str]]:
    """The families that occur, each with its methods in the given order."""
    found = {family: [m for m in methods if style_of(m).family == family] for family in FAMILIES}
    return {family: members for family, members in found.items() if members}
