"""What a report costs: 10,000 synthetic cells of 200 epochs, from their records to frame, tables and page.

Prints seconds (with those of the processor, where others share it) and the largest memory of every step, the size of
the page, and what of it is loaded at first. Records are written without waiting for the disk, and that is not counted;
figures are drawn apart, since they take their time by models and not by cells.

    python benchmarks/report_cost.py [cells=10000] [epochs=200] [images=10000]

`images` of the test split are those that every cell says whether it got right; 0 for records without them.
"""

from __future__ import annotations

import base64
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np

from harness.report.method_styles import KNOWN
from harness.report.page.write import write_page
from harness.report.stats.summary import results
from harness.report.tables.write import write_tables
from harness.report.warnings import warnings
from harness.results.frame import gather
from harness.storage.files import write_json
from harness.storage.store import Record, Store
from harness.storage.views import read_plan

METHODS = tuple(KNOWN)[:20]
MODELS, OPTIMIZERS = 5, 5


def cells(count: int) -> Iterator[Record]:
    """Cells of a plan: models and optimizers with all methods, and as many seeds as it takes."""
    rows = MODELS * OPTIMIZERS
    seeds = -(-count // (rows * len(METHODS)))
    for place in range(count):
        method, seed, row = place % len(METHODS), place // len(METHODS) % seeds, place // (len(METHODS) * seeds)
        base = f"{row:02d}{seed:04d}".ljust(20, "b")
        yield {
            "cell_key": f"{place:06d}".ljust(20, "c"),
            "base_key": base,
            "model": f"model_{row // OPTIMIZERS}",
            "dataset": "synthetic",
            "optimizer": f"optimizer_{row % OPTIMIZERS}",
            "seed": seed,
            "method": METHODS[method],
            "kind": "reconstruction" if METHODS[method] in ("cmd_posthoc", "dmd_reconstruction") else "observer",
            "batchnorm": "as_is" if METHODS[method] == "base" else "recalibrate",
            "control": "time_mean" if METHODS[method].startswith("cmd") else None,
            "parameters": {"modes": 10, "samples": 1000},
        }


def finish(store: Store, cell: Record, epochs: int, images: int, rng: np.random.Generator, ahead: float) -> None:
    """A record with a learning curve of its own, so many points ahead of others, and images that it got right."""
    epoch = np.arange(1, epochs + 1)
    accuracy = 90 - 60 * np.exp(-epoch / 25) + rng.normal(0, 0.5, epochs) + ahead
    loss = 3 * np.exp(-epoch / 40) + rng.normal(0, 0.01, epochs)
    columns = {
        "epoch": epoch,
        "train_loss": loss,
        "train_accuracy": accuracy + 2,
        "lr": np.full(epochs, 0.1),
        "val_loss": loss,
        "val_accuracy": accuracy,
        "train_seconds": epoch * 1.5,
        "method_seconds": epoch * 0.1,
        "eval_seconds": epoch * 0.2,
        "gradients_full": epoch * 50_000.0,
        "gradients_subspace": epoch * 0.0,
        "forward_passes": epoch * 50_000.0,
    }
    names = ("train_seconds", "method_seconds", "eval_seconds", "gradients_full", "gradients_subspace")
    record = {
        **{name: value for name, value in cell.items() if name != "kind"},
        "status": "done",
        "reason": None,
        "traceback": None,
        "config": {"base": {"epochs": epochs}, "method": {"params": cell["parameters"]}, "evaluate": {"every": 1}},
        "versions": {"python": "3.11", "torch": "2.14.0"},
        "device": "cpu",
        "threads": 1,
        "sources": {"harness": "0" * 20, "method": "1" * 20},
        "summary": {"val_accuracy": accuracy[-1], "val_loss": loss[-1], "test_accuracy": accuracy[-1] - 1}
        | {"test_loss": loss[-1] + 0.1},
        "cost": {name: float(columns[name][-1]) for name in names}
        | {"peak_memory_bytes": 1e9, "epochs": epochs, "prefix_epochs": 0, "trainable_fraction": 1.0, "moving": 1.0}
        | {"forward_passes": float(columns["forward_passes"][-1])},
        "run_id": cell["cell_key"][:12],
        "holds": {"epochs": epoch.tolist(), "test_epochs": [epochs], "weights": False},
    }
    if images:
        right = rng.random(images) < (accuracy[-1] - 1) / 100
        record["summary"] |= {"test_accuracy": 100 * right.mean()}
        record["test_correct"] = {"images": images, "bits": base64.b64encode(np.packbits(right).tobytes()).decode()}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    store.write_record(record, rows)


def write_suite(root: Path, count: int, epochs: int, images: int) -> Store:
    """A results folder with a finished suite `synthetic`."""
    store, rng = Store(root), np.random.default_rng(0)
    planned = list(cells(count))
    with mock.patch("os.fsync"):
        for cell in planned:
            finish(store, cell, epochs, images, rng, METHODS.index(cell["method"]) / 10)
    plan = {"schema": 1, "suite": "synthetic", "command": "traindyn run suite=synthetic", "created": "", "config": {}}
    write_json(store.suite_folder("synthetic") / "plan.json", {**plan, "bases": [], "cells": planned})
    return store


def peak_megabytes() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Steps:
    """Prints seconds, those of the processor among them, and memory of one step after the other."""

    def __init__(self) -> None:
        self.total = self.total_cpu = 0.0
        self.last, self.last_cpu = time.perf_counter(), time.process_time()
        print(f"{'before':20s} {'':20s}   peak memory {peak_megabytes():6.0f} MB", flush=True)

    def done(self, name: str) -> None:
        seconds, cpu = time.perf_counter() - self.last, time.process_time() - self.last_cpu
        self.total += seconds
        self.total_cpu += cpu
        print(f"{name:20s} {seconds:6.1f} s ({cpu:5.1f} s CPU)   peak memory {peak_megabytes():6.0f} MB", flush=True)
        self.last, self.last_cpu = time.perf_counter(), time.process_time()


def main() -> None:
    given = dict(argument.split("=") for argument in sys.argv[1:])
    asked = {"cells": 10_000, "epochs": 200, "images": 10_000}
    count, epochs, images = (int(given.get(name, default)) for name, default in asked.items())
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        store = write_suite(Path(given.get("root", folder)), count, epochs, images)
        print(f"{count:,} cells of {epochs} epochs, written in {time.perf_counter() - started:.0f} s")
        steps = Steps()
        plan = read_plan(store.root, "synthetic")
        frame, history, correct = gather(store, plan)
        steps.done("frame and history")
        found = results(frame, history, correct=correct)
        steps.done("statistics")
        summary = write_tables(found, store.suite_folder("synthetic") / "tables")
        steps.done("tables")
        page = write_page(store, plan, found, summary, warnings(frame))
        steps.done("page")
        first = sum(path.stat().st_size for path in page.parent.iterdir() if path.is_file())
        total = f"{steps.total:6.1f} s ({steps.total_cpu:5.1f} s CPU)"
        print(f"{'all':20s} {total}; page {first / 2**20:.2f} MiB without the pages of cells")


if __name__ == "__main__":
    main()
