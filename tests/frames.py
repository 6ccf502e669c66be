"""Frames and histories with given accuracies, for tests of statistics, tables, figures and page."""

import base64
import math

import numpy as np
import pandas as pd

from harness.results.columns import FRAME_COLUMNS, from_source
from harness.results.frame import validate
from harness.storage.files import write_json

EPOCHS = 4
IMAGES = 1000
"""gradients of an epoch"""


def cells(method, accuracies, model="net", dataset="digits", optimizer="sgd", batchnorm=None, val=1.0, **columns):
    """One cell per seed, from 0; a string in `accuracies` is the status of a cell without numbers.

    `columns` are other columns of the frame, the same for all cells.
    """
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
            "moving": 1.0,
            "busy": 0.05,
            "federation": "none",
            "control": None,
            "schedule": "constant",
            "rate_end": math.nan,
            "twin": None,
            "parameters": "{}",
            "device": "cpu",
            "versions": '{"torch": "2.14.0"}',
            "base_key": f"{model}-{dataset}-{optimizer}-{seed}",
            "cell_key": f"{model}-{dataset}-{optimizer}-{method}-{seed}",
            "run_id": "run",
            **columns,
        }


def frame_of(*groups, reconstructions=(), primary=(), margin=0.5):
    """A frame of the given cells, as valid as one from records; `primary` are pairs of a method and its control."""
    frame = pd.DataFrame([cell for group in groups for cell in group], columns=list(FRAME_COLUMNS))
    frame = frame.astype(FRAME_COLUMNS)
    validate(frame)
    frame.attrs |= {"reconstructions": list(reconstructions), "primary": [*map(list, primary)], "margin": margin}
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
            if cell["federation"] != "none":
                metrics |= {"upload_bytes": 1e6 * epoch, "download_bytes": 2e6 * epoch, "transmitted_fraction": 0.5}
            rows.append({"cell_key": cell["cell_key"], "epoch": epoch, **metrics, **seconds, **counts})
    return pd.DataFrame(rows)


WHERE = "mine/halfway.py:9 in observe: self.model(x)"
"""the line of code at fault where a cell did not end well"""


def correct_of(right):
    """Which images a cell got right, a list of truth values, as a record has it."""
    return {"images": len(right), "bits": base64.b64encode(np.packbits(np.asarray(right, bool)).tobytes()).decode()}


def write_suite(store, groups, suite="quick", correct=None, **of_plan):
    """Records, histories and the plan of cells as `cells` gives them; no record of those that are `left`.

    `correct` has the images that cells got right, by cell key; `of_plan` are further entries of the plan.
    """
    planned = [cell for group in groups for cell in group]
    history = history_of(frame_of(planned))
    rows = {key: own.drop(columns="cell_key").to_dict("records") for key, own in history.groupby("cell_key")}
    labels = ("cell_key", "base_key", "model", "dataset", "optimizer", "seed", "method", "batchnorm")
    for cell in planned:
        if cell["status"] == "left":
            continue
        done = cell["status"] == "done"
        record = {
            **{name: cell[name] for name in (*labels, "status", "device", "run_id")},
            "parameters": {},
            "reason": None if done else "NaN loss",
            "where": None if done else WHERE,
            "traceback": None,
            "log": f"cells/{cell['cell_key']}/log.txt",
            "config": {"base": {"epochs": EPOCHS}},
            "summary": {name: cell[name] for name in from_source("summary") if name in cell} if done else {},
            "kernel": {name: cell[name] for name in from_source("kernel") if name in cell},
            "cost": {name: cell[name] for name in from_source("cost")} if done else {},
            "threads": 1,
            "versions": {"torch": "2.14.0"},
            "machine": {"system": "Linux", "cores": 2, "load": {"cores": 2, "busy": cell["busy"]}},
        }
        if cell["cell_key"] in (correct or {}):
            record["test_correct"] = correct_of(correct[cell["cell_key"]])
        store.write_record(record, rows.get(cell["cell_key"], []))
    plan = {"schema": 1, "suite": suite, "command": f"traindyn run suite={suite}", "created": "monday", "config": {}}
    names = (*labels, "control", "schedule", "twin")
    cells_of = [{**{n: cell[n] for n in names}, "kind": "observer", "parameters": {}} for cell in planned]
    write_json(store.suite_folder(suite) / "plan.json", {**plan, "bases": [], "cells": cells_of, **of_plan})
