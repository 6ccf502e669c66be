"""The loss over the plane of CMD's two largest modes: how validation loss changes where only these two move.

A point (u, v) is CMD's model of the run's last epoch with the references of the two largest modes at u and v standard
deviations from their means, BatchNorm recalibrated; the path is that of training in the same plane. Every point is
kept as soon as it is evaluated, so that an interrupted drawing goes on where it stopped. Needs the data set.

Shape suffixes: N weights, T snapshots, M modes, G points along one direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from baselines.cmd.posthoc import BLOCK_BYTES, CMD, decompose
from baselines.cmd.sampling import sample_trajectories
from harness.config import ConfigError, EvaluateConfig
from harness.method import Proposal, Snapshot
from harness.problem.splits import load_split
from harness.randomness import generator
from harness.report.drawing import LINE, STYLE, WIDTH
from harness.report.figures import LANDSCAPE, chosen, decomposed, layout_of, stored_window, write_figure
from harness.report.written import write_csv
from harness.results.frame import read_plan
from harness.results.load_model import base_from_record
from harness.storage.files import CorruptFile
from harness.storage.store import Record, Store
from harness.training.evaluate import Evaluator

VAL_IMAGES = 512
"""of the validation split's fixed order"""
MARGIN = 0.3
"""beyond the path, as a share of its width"""
IDENTITY = ("cell_key", "points", "images")


@dataclass(frozen=True)
class Plane:
    """CMD's model with two modes free, and the path of training in their plane."""

    model: CMD
    path_T2: Tensor
    """the two references, standardised over the run"""
    ts: tuple[int, ...]

    @classmethod
    def of(cls, model: CMD, ts: tuple[int, ...]) -> Plane:
        """ValueError where fewer than two modes have a reference that moves."""
        if len(model.reference_M) < 2:
            raise ValueError("a landscape needs 2 modes, CMD found 1")
        motion_T2 = model.references_TM[:, :2] - model.mu_M[:2]
        return cls(model, motion_T2 / motion_T2.std(0, correction=0).clamp(min=1e-30), ts)

    def theta(self, u: float, v: float) -> Tensor:
        """theta_N where the first two references are u and v standard deviations from their means."""
        x_M = self.model.references_TM[-1].clone()
        scale_2 = (self.model.references_TM[:, :2] - self.model.mu_M[:2]).std(0, correction=0)
        x_M[:2] = self.model.mu_M[:2] + scale_2 * torch.tensor([u, v], dtype=torch.float64)
        return self.model.decode(x_M)

    def grid(self, points: int) -> tuple[np.ndarray, np.ndarray]:
        """Values of u and of v, a margin beyond the path, rounded to what a CSV keeps."""
        sides = []
        for path_T in self.path_T2.T.numpy():
            margin = MARGIN * float(np.ptp(path_T))
            sides.append(np.linspace(path_T.min() - margin, path_T.max() + margin, points).round(6))
        return sides[0], sides[1]


def draw_landscapes(store: Store, suite: str, points: int) -> Iterator[str]:
    """Evaluate and draw `points` x `points` for every model, dataset and optimizer, with a line before and after.

    Points of an earlier, interrupted drawing of the same cell are taken up.
    """
    folder = store.suite_folder(suite) / "figures"
    for row, record in chosen(store, decomposed(read_plan(store.root, suite))):
        title = f"landscape: {' '.join(row)}:"
        if isinstance(record, str):
            yield f"{title} not drawn, {record}"
            continue
        try:
            yield from (
                f"{title} {line}" for line in _draw(store, record, points, folder / "-".join([*row, LANDSCAPE]))
            )
        except (CorruptFile, ConfigError, ValueError) as error:
            yield f"{title} not drawn, {error}"


def _draw(store: Store, record: Record, points: int, path: Path) -> Iterator[str]:
    import matplotlib as mpl

    window = stored_window(store, record)
    plane = Plane.of(_fit(record, window), tuple(window.ts))
    identity = {"cell_key": record["cell_key"], "points": points, "images": VAL_IMAGES}
    kept = Kept(path.with_name(f".{path.name}.partial.csv"), path.with_name(f"{path.name}.csv"), identity)
    known = kept.known()
    wanted = [(u, v) for v in plane.grid(points)[1] for u in plane.grid(points)[0] if (u, v) not in known]
    yield f"{len(wanted)} of {points * points} points to evaluate on {VAL_IMAGES} validation images"
    if wanted:
        evaluator = _evaluator(record)
        last = window[len(window) - 1]
        for u, v in wanted:
            known[u, v] = _loss(evaluator, last, plane.theta(u, v))
            kept.add(u, v, known[u, v])
    table = kept.finish(known)
    title = f"{', '.join(record[name] for name in ('model', 'dataset', 'optimizer'))}, seed {record['seed']}"
    with mpl.rc_context(STYLE):
        write_figure(draw_landscape(table, plane.path_T2.numpy(), plane.ts, title), path, f"cell {record['cell_key']}")
    yield f"drawn, loss {table['val_loss'].min():.4f} to {table['val_loss'].max():.4f}"


@dataclass(frozen=True)
class Kept:
    """Points of one landscape: appended to `partial` one by one, moved to `whole` at the end."""

    partial: Path
    whole: Path
    identity: dict[str, Any]

    def known(self) -> dict[tuple[float, float], float]:
        """Losses by point of the same landscape; another one's are dropped."""
        found: dict[tuple[float, float], float] = {}
        for path in (self.whole, self.partial):
            try:
                table = pd.read_csv(path, dtype="str", on_bad_lines="skip")
                same = (table[list(IDENTITY)] == list(map(str, self.identity.values()))).all(axis=1)
                points = table.loc[same, ["u", "v", "val_loss"]].astype("float64")
            except (OSError, ValueError, KeyError):
                continue
            found |= {(u, v): loss for u, v, loss in points.to_numpy().tolist()}
        return found

    def add(self, u: float, v: float, loss: float) -> None:
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        fresh = not self.partial.exists()
        with open(self.partial, "a") as file:
            if fresh:
                file.write(",".join(["u", "v", "val_loss", *IDENTITY]))
            # A line begins with its break, so that one that a killed process left unfinished spoils no other.
            file.write("\n" + ",".join(map(str, [float(u), float(v), loss, *self.identity.values()])))

    def finish(self, known: dict[tuple[float, float], float]) -> pd.DataFrame:
        lines = [(u, v, loss, *self.identity.values()) for (u, v), loss in sorted(known.items())]
        table = pd.DataFrame(lines, columns=["u", "v", "val_loss", *IDENTITY])
        write_csv(table, self.whole)
        self.partial.unlink(missing_ok=True)
        return table


def _fit(record: Record, window: Any) -> CMD:
    layout = layout_of(record)
    rng = generator(record["seed"], "method/cmd/sample")
    parameters = record["parameters"]
    sample_K, x_TK = sample_trajectories(window, layout.N, layout, parameters["samples"], rng, BLOCK_BYTES)
    return decompose(window, parameters["modes"], sample_K, x_TK, layout)


def _evaluator(record: Record) -> Evaluator:
    base = base_from_record(record)
    config = EvaluateConfig(**record["config"]["evaluate"])
    train = load_split(base.dataset, "train")
    return Evaluator(base, config, train, torch.device("cpu"), with_test=False, val_images=VAL_IMAGES)


def _loss(evaluator: Evaluator, last: Snapshot, theta_N: Tensor) -> float:
    return evaluator.evaluate(last, Proposal(theta_N), "recalibrate", ("val",))["val_loss"]


def draw_landscape(table: pd.DataFrame, path_T2: Any, ts: tuple[int, ...], title: str) -> Figure:
    """Contours of the loss with the path of training: a dot per epoch, the last one a star."""
    losses = table.pivot(index="v", columns="u", values="val_loss")
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    finite = losses.to_numpy()[np.isfinite(losses.to_numpy())]
    levels = np.geomspace(max(float(finite.min()), 1e-6), max(float(np.quantile(finite, 0.98)), 2e-6), 16)
    drawn = axes.contourf(losses.columns, losses.index, losses, levels=levels, cmap="cividis", extend="both")
    _draw_path(axes, path_T2, ts)
    axes.set_xlabel("reference of the largest mode (standard deviations)")
    axes.set_ylabel("reference of the second mode")
    bar = figure.colorbar(drawn, ax=axes, pad=0.02, format="%.2f")
    bar.set_label(f"loss on {table['images'].iloc[0]} validation images")
    bar.outline.set_linewidth(0.6)
    figure.suptitle(f"Loss over two modes\n{title}", fontsize=7)
    return figure


def _draw_path(axes: Axes, path_T2: Any, ts: tuple[int, ...]) -> None:
    axes.plot(path_T2[:, 0], path_T2[:, 1], color="white", lw=1.8)
    axes.plot(path_T2[:, 0], path_T2[:, 1], color=LINE, lw=0.9, marker="o", ms=2)
    axes.plot(path_T2[-1, 0], path_T2[-1, 1], marker="*", ms=8, color=LINE, markeredgecolor="white", lw=0)
    for place in (0, -1):
        axes.annotate(
            f"epoch {ts[place]}", path_T2[place], textcoords="offset points", xytext=(4, 4), fontsize=6, color="white"
        )
