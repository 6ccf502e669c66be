"""Frames and histories with given accuracies, for tests of statistics, tables, figures and page."""

import math

import pandas as pd

from harness.report.frame import FRAME_COLUMNS, validate

EPOCHS = 4
IMAGES = 1000
"""gradients of an epoch"""


def cells(method, accuracies, model="net", dataset="digits", optimizer="sgd", batchnorm=None, val=1.0):
    """One cell per seed, from 0; a string in `accuracies` is the status of a cell without numbers."""
    for seed, accuracy in enumerate(accuracies):
        done = not isinstance(accuracy, str)
        value = accuracy if done else math.nan
        yield {
            "model": model,
            "dataset": dataset,
            "optimizer": optimizer,
            "seed": seed,
            "method": method,
            "batchnorm": batchnorm or ("as_is" if method == "base" else "recalibrate"),
            "status": "done" if done else accuracy,
            "val_accuracy": value + val,
            "val_loss": 1 - value / 100,
            "test_accuracy": value,
            "test_loss": 1 - value / 100,
            **dict.fromkeys(("train_seconds", "method_seconds", "eval_seconds"), 2.0 if done else math.nan),
            "peak_memory_bytes": 1e9,
            "epochs": EPOCHS,
            "prefix_epochs": 0.0,
            "gradients_full": float(EPOCHS * IMAGES),
            "gradients_subspace": 0.0,
            "forward_passes": float(EPOCHS * IMAGES),
            "trainable_fraction": 1.0,
            "parameters": "{}",
            "device": "cpu",
            "versions": '{"torch": "2.14.0"}',
            "base_key": f"{model}-{dataset}-{optimizer}-{seed}",
            "cell_key": f"{model}-{dataset}-{optimizer}-{method}-{seed}",
            "run_id": "run",
        }


def frame_of(*groups, reconstructions=()):
    """A frame of the given cells, as valid as one from records."""
    frame = pd.DataFrame([cell for group in groups for cell in group], columns=list(FRAME_COLUMNS))
    frame = frame.astype(FRAME_COLUMNS)
    validate(frame)
    frame.attrs["reconstructions"] = list(reconstructions)
    return frame


def history_of(frame, curves=None):
    """Rows of every finished cell: `curves[method]`, or a straight line to its validation accuracy.

    A curve is a list of validation accuracies by epoch, None where it was not evaluated.
    """
    rows = []
    for cell in frame[frame["status"] == "done"].to_dict("records"):
        line = [cell["val_accuracy"] * epoch / EPOCHS for epoch in range(1, EPOCHS + 1)]
        for epoch, value in enumerate((curves or {}).get(cell["method"], line), start=1):
            if value is None:
                continue
            seconds = {"train_seconds": 2.0 * epoch, "method_seconds": 0.5 * epoch, "eval_seconds": 0.0}
            counts = {"gradients_full": float(IMAGES * epoch), "gradients_subspace": 0.0}
            metrics = {"val_accuracy": value, "val_loss": 1 - value / 100, "train_loss": 1 / epoch}
            rows.append({"cell_key": cell["cell_key"], "epoch": epoch, **metrics, **seconds, **counts})
    return pd.DataFrame(rows)
