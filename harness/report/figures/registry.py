"""All figures of a report, in the order of its page: what each is called, what it shows, its data, and how it is drawn.

A new figure is one entry here and one function that draws it. A method has the figures of the tables that it gives:

- `trajectories`, one line per weight and epoch: weight, tensor, mode, rho (its correlation with the mode's reference),
  epoch, base (its value in training), then a column for every model of it, named as the model is called in prose.
- `errors`, one line per fit and dimension: fit (in prose), dimension, share (of the weights' motion that is left
  unexplained, from 0 to 1).
- `correlation`, symmetric: position (the first of a square of sampled weights), then |correlation| in one column per
  position, named by it; and `sample`, one line per sampled weight in that order: position, mode, weight, tensor,
  reference (whether it is its mode's).
- `layers`, one line per tensor and mode: tensor, mode, weights (that moved), share (percent of those of the tensor).
- `rho`, one line per mode and bin: mode (a number as text, or in words what it is compared with, such as a surrogate),
  mean_abs_rho (of the mode), low and high (the bin's ends), weights (in it).
- `eigenvalues`, one line each: real, imaginary.
- `clients`, one line per client: client, images, accuracy (percent), and `class_<c>` for every class, its images. The
  harness gives it for every cell on a federation.
- `kernel`, one line per mode and snapshot: mode, epoch, coefficient, and maybe share, snapshots and squares, as
  `harness.method` has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd
from matplotlib.figure import Figure

from harness.kernel import checked
from harness.report.figures.communication import (
    CLIENTS,
    bytes_data,
    draw_bytes,
    draw_clients,
    draw_transmitted,
    transmitted_data,
)
from harness.report.figures.cost import cost_data, draw_cost
from harness.report.figures.curves import curves_data, draw_curves
from harness.report.figures.differences import differences_data, draw_differences
from harness.report.figures.eigenvalues import draw_eigenvalues
from harness.report.figures.kernels import draw_kernels
from harness.report.figures.models import NAMED, draw_errors, draw_trajectories
from harness.report.figures.modes import draw_correlation, draw_layers, draw_rho
from harness.report.figures.profile import draw_profile, profile_data
from harness.report.figures.ranks import draw_ranks, ranks_data
from harness.report.figures.style import Labels
from harness.report.stats.means import Row
from harness.report.stats.summary import Results
from harness.report.tables.write import ERRORS

LANDSCAPE = "landscape"


@dataclass(frozen=True)
class FigureKind:
    """A kind of figure: the name that its files end in, its title, and one sentence on what it shows."""

    name: str
    title: str
    description: str


@dataclass(frozen=True)
class ResultFigure(FigureKind):
    """A figure of a suite's results.

    `data` gives the table to draw, of a row (model, dataset, optimizer) or for `suite` of all together: an empty one
    where there is nothing to draw, or the reason in words. `draw` draws it from the table alone.
    """

    data: Callable[[Results, Row], pd.DataFrame | str]
    draw: Callable[[pd.DataFrame, Labels], Figure]
    scopes: tuple[Literal["row", "suite"], ...] = ("row",)


@dataclass(frozen=True)
class MethodFigure(FigureKind):
    """A figure of what a method fitted, drawn from the tables that the method gives (`Method.tables`) and nothing else.

    `tables` names the tables, the first one with the figure's own name, and the columns that must be there. With
    `together` all methods and seeds of a row share one figure, or with `first_seed` those of the lowest seed; their
    tables are joined, with the columns method, seed and cell_key added.
    """

    draw: Callable[[Mapping[str, pd.DataFrame], Labels], Figure]
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    together: bool = False
    first_seed: bool = False
    check: Callable[[pd.DataFrame], object] | None = None
    """raises ValueError where one method's table cannot be drawn, which leaves it out of a figure of several"""


FIGURES: tuple[FigureKind, ...] = (
    ResultFigure(
        "differences",
        "Differences by seed",
        "Difference of every method to each control on each seed, with the mean and its 95 % interval.",
        differences_data,
        draw_differences,
        ("row", "suite"),
    ),
    ResultFigure(
        "curves",
        "Learning curves",
        "Validation accuracy and loss by epoch: means, and bands of one standard deviation over seeds.",
        curves_data,
        draw_curves,
    ),
    ResultFigure(
        "cost",
        "Accuracy against cost",
        "Test accuracy against seconds and gradient evaluations: means and standard deviations over seeds.",
        cost_data,
        draw_cost,
    ),
    ResultFigure(
        "bytes",
        "Accuracy against bytes",
        "Validation accuracy against the bytes that passed between server and clients: means over seeds.",
        bytes_data,
        draw_bytes,
    ),
    ResultFigure(
        "transmitted",
        "Bytes of a round",
        "What of federated averaging's bytes each round moves: means over seeds.",
        transmitted_data,
        draw_transmitted,
    ),
    ResultFigure(
        "profile",
        "Performance profile",
        "Share of bases on which a method reaches the target within a ratio of the fastest method's cost.",
        profile_data,
        draw_profile,
        ("suite",),
    ),
    ResultFigure(
        "ranks",
        "Average ranks",
        "Average ranks over models and data sets; bars join methods that cannot be told apart.",
        ranks_data,
        draw_ranks,
        ("suite",),
    ),
    MethodFigure(
        "clients",
        "Clients",
        "How right every client of a federation is by method, and which images it has, by class.",
        draw_clients,
        {"clients": CLIENTS},
        together=True,
        first_seed=True,
    ),
    MethodFigure(
        "trajectories",
        "Single weights and their models",
        "Trajectories of single weights in training and in the models of them.",
        draw_trajectories,
        {"trajectories": NAMED},
    ),
    MethodFigure(
        "errors",
        "Reconstruction error",
        "Share of the weights' motion that models of it leave unexplained.",
        draw_errors,
        {"errors": ERRORS},
    ),
    MethodFigure(
        "correlation",
        "Correlation of sampled weights",
        "Absolute correlation between the trajectories of sampled weights, ordered by mode.",
        draw_correlation,
        {"correlation": ("position",), "sample": ("position", "mode", "weight", "tensor", "reference")},
    ),
    MethodFigure(
        "layers",
        "Modes of every layer",
        "Share of every mode among the weights of each layer that moved.",
        draw_layers,
        {"layers": ("tensor", "mode", "weights", "share")},
    ),
    MethodFigure(
        "rho",
        "Correlation within the modes",
        "Histogram of the correlation of weights with their mode's reference, against surrogates of their motion.",
        draw_rho,
        {"rho": ("mode", "mean_abs_rho", "low", "high", "weights")},
    ),
    MethodFigure(
        "kernel",
        "Kernels",
        "Coefficients of the base's snapshots in the last weights of every linear method: bars over all weights, and "
        "lines for each mode.",
        draw_kernels,
        {"kernel": ("mode", "epoch", "coefficient")},
        together=True,
        first_seed=True,
        check=checked,
    ),
    FigureKind(
        LANDSCAPE,
        "Loss landscape",
        "Validation loss over a plane of the method's model, with the path of training.",
    ),
    MethodFigure(
        "eigenvalues",
        "Eigenvalues",
        "Eigenvalues of the fitted dynamics in the complex plane.",
        draw_eigenvalues,
        {"eigenvalues": ("real", "imaginary")},
        together=True,
    ),
)
