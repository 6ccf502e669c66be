"""The figures of a suite on its page: which there are, what they show in words, and where their data are."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

KINDS = {
    "differences": (
        "Differences by seed",
        "Difference of every method to its control on each seed, with the mean and its 95 % interval.",
    ),
    "curves": (
        "Learning curves",
        "Validation accuracy and loss by epoch: means, and bands of one standard deviation over seeds.",
    ),
    "cost": (
        "Accuracy against cost",
        "Test accuracy against seconds and gradient evaluations: means and standard deviations over seeds.",
    ),
    "profile": (
        "Performance profile",
        "Share of bases on which a method reaches the target within a ratio of the fastest method's cost.",
    ),
    "ranks": (
        "Average ranks",
        "Average ranks over models, data sets and optimizers; bars join methods that cannot be told apart.",
    ),
    "weights": (
        "Single weights and their models",
        "Trajectories of single weights in training and in the models of them.",
    ),
    "errors": (
        "Reconstruction error",
        "Share of the weights' motion that models of it leave unexplained.",
    ),
    "correlation": (
        "Correlation of sampled weights",
        "Absolute correlation between the trajectories of sampled weights, ordered by CMD's modes.",
    ),
    "layers": ("Modes of every layer", "Share of every mode among the weights of each layer that moved."),
    "rho": (
        "Correlation within the modes",
        "Histogram of the correlation of weights with their mode's reference, against random walks.",
    ),
    "landscape": (
        "Loss landscape",
        "Validation loss over the plane of the two largest modes, with the path of training.",
    ),
    "eigenvalues": ("Eigenvalues", "Eigenvalues of the fitted dynamics in the complex plane."),
}
"""title and description by what a file's name ends in"""


@dataclass(frozen=True)
class Shown:
    """A figure: where its files are (relative to the page), and what it shows."""

    name: str
    title: str
    of: str
    alt: str
    image: str
    links: list[tuple[str, str]]


def gather_figures(folder: Path, target: Path) -> list[Shown]:
    """Copy the figures of a suite beside its page, in the order of KINDS; others come last under their own name."""
    found = []
    for path in sorted(folder.glob("*.png")):
        stem, _, kind = path.stem.rpartition("-")
        title, alt = KINDS.get(kind, (path.stem, "A figure of this suite."))
        links = []
        target.mkdir(parents=True, exist_ok=True)
        for ending in ("png", "pdf", "csv"):
            file = path.with_suffix(f".{ending}")
            if file.exists():
                shutil.copyfile(file, target / file.name)
                links.append((ending.upper(), f"figures/{file.name}"))
        of = "" if stem == "suite" else stem
        found.append(Shown(path.stem, title, of, alt, f"figures/{path.name}", links))
    order = list(KINDS)
    return sorted(found, key=lambda f: _place(f.name.rpartition("-")[2], order))


def _place(kind: str, order: list[str]) -> int:
    return order.index(kind) if kind in order else len(order)
