"""The loss landscape of a plane that a fitted method gives (`Method.plane`): how validation loss changes in it.

A finished reconstruction is made anew from its record and fitted on the stored snapshots. Every point of the plane is
evaluated with BatchNorm recalibrated and kept as soon as it is known, so that an interrupted drawing goes on where it
stopped. Needs the data set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from harness.config import Epochs, EvaluateConfig, MethodConfig
from harness.method import Layout, Method, Plane, Proposal, Reconstruction, Run, Snapshot
from harness.planning.methods import check_allowed, load_class, make_method
from harness.problem.models import build_model
from harness.problem.splits import load_split
from harness.randomness import generator
from harness.report.figures.files import Drawing, draw_all
from harness.report.figures.kept_points import KeptPoints
from harness.report.figures.registry import LANDSCAPE
from harness.report.figures.style import LINE, WIDTH, Labels, Look, entitle
from harness.report.figures.ticks import label_ticks, rounded_apart
from harness.results.columns import ROW_METHOD
from harness.results.load_model import base_from_record
from harness.storage.files import is_disk_trouble
from harness.storage.paths import stored_ts
from harness.storage.store import Record, Store
from harness.storage.trajectory import StoredTrajectory
from harness.training.evaluate import Evaluator
from harness.training.flat_model import FlatModel
from harness.validation import reason, validated

VAL_IMAGES = 512
"""How many images of the validation split, in its fixed order, a point is evaluated on."""
MARGIN = 0.3
"""How far the grid reaches beyond the path on each side, as a share of the path's width."""
FLAT = 1.001
"""How many times as high as the lowest level of the loss the highest is at least."""
GONE = "the base's snapshots are gone; trajectory.keep=all keeps them"


def draw_landscapes(
    store: Store,
    frame: pd.DataFrame,
    folder: Path,
    points: int,
    config_dirs: Sequence[Path] = (),
    look: Look = Look(),  # noqa: B008
) -> Iterator[str]:
    """Evaluate and draw `points` x `points` for every row and method that gives a plane, with a line before and after.

    Of a method's finished seeds it is the lowest with all its snapshots. Points of an earlier, interrupted drawing of
    the same cell are taken up. `config_dirs` hold a user's own methods.
    """
    done, planes = frame[frame["status"] == "done"], 0
    for names, cells in done.groupby(ROW_METHOD, sort=False):
        title = f"landscape: {' '.join(map(str, names))}:"
        try:
            found = _with_snapshots(store, list(cells.sort_values("seed", kind="stable")["cell_key"]), config_dirs)
            if found is None:
                continue
            planes += 1
            path = folder / "-".join([*map(str, names), LANDSCAPE])
            yield from (f"{title} {line}" for line in _draw(*found, points, path, look))
        except Exception as error:  # whatever a stranger's record, or a user's own method, leads to
            if is_disk_trouble(error):
                raise
            planes += 1
            yield f"{title} not drawn, {reason(error)}"
    if planes == 0:
        yield "landscape: none is drawn, no finished method of this suite gives a plane"


def _with_snapshots(
    store: Store, cell_keys: list[str], config_dirs: Sequence[Path]
) -> tuple[Record, Reconstruction, StoredTrajectory] | None:
    """The record of the first of a method's cells that has its snapshots, with the method and these.

    None where the method gives no plane; ValueError where no cell has its snapshots.
    """
    for key in cell_keys:
        record = store.record(key)
        method = None if record is None else reconstruction(record, config_dirs)
        if record is None or method is None:
            return None
        epochs = validated("epochs", Epochs, record["config"]["base"]["epochs"])
        stored = store.base_folder(record["base_key"]) / "trajectory"
        first, last = method.needs(epochs) or (0, epochs)
        if set(range(first, last + 1)) <= set(stored_ts(stored)):
            return record, method, StoredTrajectory(stored, torch.device("cpu"), first, last)
    raise ValueError(GONE)


def reconstruction(record: Record, config_dirs: Sequence[Path]) -> Reconstruction | None:
    """A fresh method as recorded, where it is a reconstruction that may give a plane.

    ConfigError where its class is none of this project's and does not lie in `config_dirs`.
    """
    recorded = record["config"].get("method")
    if recorded is None:
        return None
    config = MethodConfig(recorded["name"], recorded["target"], recorded["params"], recorded["batchnorm"])
    key = f"method.{config.name}._target_"
    check_allowed(key, config.target, config_dirs)
    cls = load_class(key, config.target)
    if not issubclass(cls, Reconstruction) or cls.plane is Method.plane:
        return None
    method = make_method(config)
    assert isinstance(method, Reconstruction)
    return method


def _draw(
    record: Record, method: Reconstruction, window: StoredTrajectory, points: int, path: Path, look: Look
) -> Iterator[str]:
    """Fit the method on its snapshots, evaluate what is not known of its plane, and draw it."""
    end = window[len(window) - 1]
    method.fit(_run(record, window, end))
    plane = method.plane()
    if plane is None:
        yield "not drawn, what was fitted spans no plane"
        return
    identity = {"cell_key": record["cell_key"], "points": points, "images": VAL_IMAGES}
    kept = KeptPoints(path.with_name(f".{path.name}.partial.csv"), path.with_name(f"{path.name}.csv"), identity)
    known = kept.known()
    u_G, v_G = grid(plane, points)
    wanted = [(u, v) for v in v_G.tolist() for u in u_G.tolist() if (u, v) not in known]
    yield f"{len(wanted)} of {points * points} points to evaluate on {VAL_IMAGES} validation images"
    if wanted:
        evaluator = _evaluator(record)
        for u, v in wanted:
            known[u, v] = _loss(evaluator, end, weights_at(plane, u, v))
            kept.add(u, v, known[u, v])
    table = kept.finish(known)
    labels = Labels(f"{', '.join(record[name] for name in ROW_METHOD)}, seed {record['seed']}", look=look)
    draw_all([Drawing(path, draw_landscape, (table, plane), labels, f"cell {record['cell_key']}")])
    yield f"drawn, loss {table['val_loss'].min():.4f} to {table['val_loss'].max():.4f}"


def _run(record: Record, window: StoredTrajectory, end: Snapshot) -> Run:
    """The run as the cell's own method saw it; `end` is its last snapshot."""
    epochs, seed = record["config"]["base"]["epochs"], record["seed"]
    return Run(
        layout=_layout(record),
        trajectory=window,
        epochs=epochs,
        steps_per_epoch=end.step // max(end.t, 1),
        device=torch.device("cpu"),
        rng=lambda purpose: generator(seed, f"method/{purpose}"),
    )


def _layout(record: Record) -> Layout:
    """The layout of the base's weights, from a model without any."""
    base = base_from_record(record)
    with torch.device("meta"):
        return FlatModel(build_model(base.model, base.dataset, base.seed)).layout


def weights_at(plane: Plane, u: float, v: float) -> Tensor:
    """The float32 weights that a point of a plane stands for, (N,)."""
    return (plane.origin_N + u * plane.axes_2N[0] + v * plane.axes_2N[1]).float()


def grid(plane: Plane, points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values of u and of v, a margin beyond the path of training, rounded to what a CSV keeps."""
    u_G, v_G = (_axis(path_T, points) for path_T in plane.path_T2.double().T.numpy())
    return u_G, v_G


def _axis(path_T: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    margin = MARGIN * float(np.ptp(path_T))
    return np.linspace(path_T.min() - margin, path_T.max() + margin, points).round(6)


def _evaluator(record: Record) -> Evaluator:
    base = base_from_record(record)
    config = EvaluateConfig(**record["config"]["evaluate"])
    train = load_split(base.dataset, "train")
    return Evaluator(base, config, train, torch.device("cpu"), with_test=False, val_images=VAL_IMAGES)


def _loss(evaluator: Evaluator, last: Snapshot, theta_N: Tensor) -> float:
    return evaluator.evaluate(last, Proposal(theta_N), "recalibrate", ("val",))["val_loss"]


def draw_landscape(data: tuple[pd.DataFrame, Plane], labels: Labels) -> Figure:
    """Contours of the loss with the path of training: a dot per epoch, the last one a star."""
    table, plane = data
    losses = table.pivot(index="v", columns="u", values="val_loss")
    width = labels.width(WIDTH)
    figure = Figure(figsize=(width, 2.7 if width <= WIDTH else 0.62 * width), layout="constrained")
    axes = figure.subplots()
    finite = losses.to_numpy()[np.isfinite(losses.to_numpy())]
    low = max(float(finite.min()), 1e-6)
    levels = rounded_apart(np.geomspace(low, max(float(np.quantile(finite, 0.98)), low * FLAT), 16))
    drawn = axes.contourf(losses.columns, losses.index, losses, levels=levels, cmap="cividis", extend="both")
    _draw_path(axes, plane)
    axes.set_xlabel(plane.labels[0])
    axes.set_ylabel(plane.labels[1])
    bar = figure.colorbar(drawn, ax=axes, pad=0.02)
    bar.set_label(f"loss on {table['images'].iloc[0]} validation images")
    bar.outline.set_linewidth(0.6)
    entitle(figure, labels, "Validation loss over a plane of the model")
    return label_ticks(figure)


def _draw_path(axes: Axes, plane: Plane) -> None:
    path_T2 = plane.path_T2.numpy()
    axes.plot(path_T2[:, 0], path_T2[:, 1], color="white", lw=1.8)
    axes.plot(path_T2[:, 0], path_T2[:, 1], color=LINE, lw=0.9, marker="o", ms=2)
    axes.plot(path_T2[-1, 0], path_T2[-1, 1], marker="*", ms=8, color=LINE, markeredgecolor="white", lw=0)
    for place in (0, -1):
        axes.annotate(
            f"epoch {plane.ts[place]}",
            path_T2[place],
            textcoords="offset points",
            xytext=(4, 4),
            color="white",
        )
