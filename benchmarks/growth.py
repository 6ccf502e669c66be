"""How costs grow with the work: each at three sizes, in seconds of the processor and in memory, with its exponent.

The exponent is the slope of the line through the sizes, both axes logarithmic: 0 is flat, 1 linear. Commands run as
users run them, on folders with records of their own: a matrix of digits whose numbers are drawn, so nothing is trained.

    python benchmarks/growth.py [only=bundle,pairs,search,cells,methods] [cells=200,600,1800] [methods=25,100,300]

- bundle: one write of a run's restart bundle with 8 methods after so many epochs, and what it adds to the disk; which
  share of a base's time bundles take
- pairs: the interval of a comparison of so many pairs of a method and its control
- search: figures of a search of so many trials, and again where none is new
- cells: `run` with nothing left, `load_frame` from records, `report` with figures, the same again, `publish` into CSV
  files, and the same again, for so many cells of 200 epochs and 10,000 test images
- methods: `report` with figures of so many methods on 3 seeds of one base
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import optuna
import torch
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial
from report_cost import finish

from harness.config import TuneConfig
from harness.planning.compose import Request
from harness.planning.methods import method_config
from harness.planning.plan import make_plan
from harness.planning.resolve import resolve
from harness.storage.files import write_json
from harness.storage.store import Store
from harness.storage.views import write_joined

BUNDLE_EPOCHS, PAIRS, TRIALS = (2_000, 20_000, 100_000), (60, 600, 6_000), (50, 150, 500)
EPOCHS, IMAGES, SEEDS = 200, 10_000, 3
COMMAND = Path(sys.executable).parent / "traindyn"


class Growth:
    """Prints what is measured of one piece of work at every size, and then its exponent."""

    def __init__(self, sizes: Sequence[int], unit: str) -> None:
        self.sizes, self.unit = sizes, unit
        self.found: dict[tuple[str, str], list[float]] = {}

    def add(self, size: int, name: str, **values: float) -> None:
        """What was measured at one size: seconds, MB or whatever its name says."""
        print(f"{size:>9,} {self.unit:8s} {name:34s} {texts(values)}", flush=True)
        for kind, value in values.items():
            self.found.setdefault((name, kind), []).append(value)

    def close(self) -> None:
        """The exponents."""
        for (name, kind), values in self.found.items():
            if len(values) == len(self.sizes) > 1 and min(values) > 0:
                slope = np.polyfit(np.log(self.sizes), np.log(values), 1)[0]
                print(f"{'exponent':>18s} {name:34s} {kind}: {slope:.2f}")


def texts(values: dict[str, float]) -> str:
    return "   ".join(f"{value:10.3f} {name}" for name, value in values.items())


def measured(work: Callable[[], Any]) -> dict[str, float]:
    """The seconds of the processor that work in this process takes."""
    before = time.process_time()
    work()
    return {"s": time.process_time() - before}


ALONE = """
import json, os, resource, subprocess, sys, time
began = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
said = process.stderr.read()
_, status, used = os.wait4(process.pid, 0)
seconds = {"s wall": time.perf_counter() - began, "s": used.ru_utime + used.ru_stime, "MB": used.ru_maxrss / 1024}
print(json.dumps([os.waitstatus_to_exitcode(status), said, seconds]))
"""
"""A small program that starts a command and measures it: a process begins with the memory of the one that starts it."""


def of_command(*words: str | Path) -> dict[str, float]:
    """Seconds by the wall clock and of the processor, and the largest memory of a command's own process."""
    done = subprocess.run([sys.executable, "-S", "-c", ALONE, *words], capture_output=True, text=True, check=True)
    code, said, measures = json.loads(done.stdout)
    if code:
        raise SystemExit(f"{' '.join(map(str, words))}: exit code {code}\n{said}")
    return dict(measures)


def bundle() -> None:
    """Rows and digests of a run so far go into the lists beside the bundle; it is written once more with one epoch."""
    from harness.running.jobs.bundle import Bundle

    growth = Growth(BUNDLE_EPOCHS, "epochs")
    row = {"train_loss": 0.123456789, "val_loss": 0.987654321, "val_accuracy": 91.23, "method_seconds": 1.5}
    for epochs in BUNDLE_EPOCHS:
        with tempfile.TemporaryDirectory() as folder:
            kept = Bundle(Path(folder) / "bundle.safetensors", 0.0)
            lists: dict[str, list[Any]] = {f"rows {method}": [] for method in range(8)} | {"digests": []}

            def grow(count: int, lists: dict[str, list[Any]] = lists) -> None:
                for name, items in lists.items():
                    new = range(len(items), len(items) + count)
                    items += [f"{t:064d}" if name == "digests" else {"epoch": t, **row} for t in new]

            state = {"theta_N": torch.zeros(10_000)}
            grow(epochs)
            kept.write(state, lists)
            before = sum(path.stat().st_size for path in Path(folder).iterdir())
            grow(1)
            seconds = measured(lambda kept=kept, state=state, lists=lists: kept.write(state, lists))
            added = sum(path.stat().st_size for path in Path(folder).iterdir()) - before
            growth.add(epochs, "write of one more epoch", **seconds, bytes=added)
    growth.close()
    for seconds in ("0", "1"):
        share = share_of_bundles(seconds)
        print(f"{'suite=smoke':>18s} trajectory.bundle_seconds={seconds}: {share:.1%} of a base's time", flush=True)


def share_of_bundles(seconds: str) -> float:
    """The share of a base of `suite=smoke` with its observers, 60 epochs in this process, that its bundles take."""
    from harness.running.jobs import WORKERS, Job, run_job
    from harness.running.jobs.bundle import Bundle

    taken, write = 0.0, Bundle.write

    def timed(*given: Any) -> None:
        nonlocal taken
        began = time.perf_counter()
        write(*given)
        taken += time.perf_counter() - began

    with tempfile.TemporaryDirectory() as root:
        overrides = ("suite=smoke", "seeds=[0]", "epochs=60", f"trajectory.bundle_seconds={seconds}")
        plan = make_plan(resolve(Request((*overrides, f"results_dir={root}")), "traindyn run"), Store(Path(root)))
        (base,) = plan.bases
        cells = tuple(cell for cell in base.cells if cell.kind == "observer" and cell.branch is None)
        experiment, snapshots = plan.experiment, frozenset(base.snapshots(cells, "none"))
        job = Job(
            WORKERS["train"],
            base,
            cells,
            snapshots,
            frozenset(),
            False,
            experiment.evaluate,
            experiment.settings,
            {},
            (),
        )
        began = time.perf_counter()
        with mock.patch.object(Bundle, "write", timed):
            run_job(job, lambda event: None)
        return taken / (time.perf_counter() - began)


def pairs() -> None:
    """Intervals of one comparison of so many pairs."""
    from harness.report.stats.paired import interval

    growth, rng = Growth(PAIRS, "pairs"), np.random.default_rng(0)
    for count in PAIRS:
        values, peak = rng.normal(size=count), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = measured(lambda values=values: interval(values))
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
        growth.add(count, "interval", **seconds, **{"MB more": more / 1024})
    growth.close()


def synthetic(root: Path, methods: int, images: int) -> Store:
    """A folder with a finished view of so many methods on SEEDS seeds of one base, which no command trains."""
    store, rng = Store(root), np.random.default_rng(0)
    names = ["base_recalibrated", *(f"method_{number:04d}" for number in range(methods - 1))]
    planned = []
    with mock.patch("os.fsync"):
        for seed in range(SEEDS):
            for number, name in enumerate(names):
                cell = {
                    "cell_key": f"{seed:02d}{number:06d}".ljust(20, "c"),
                    "base_key": f"{seed:04d}".ljust(20, "b"),
                    "model": "resnet",
                    "dataset": "synthetic",
                    "optimizer": "sgd",
                    "seed": seed,
                    "method": name,
                    "kind": "observer",
                    "batchnorm": "recalibrate",
                    "control": None if number == 0 else "base_recalibrated",
                    "parameters": {"modes": number},
                }
                finish(store, cell, 20, images, rng, 2 * number / methods)
                planned.append(cell)
    plan = {"schema": 1, "suite": "synthetic", "command": "traindyn run suite=synthetic", "created": "", "config": {}}
    write_json(store.suite_folder("synthetic") / "plan.json", {**plan, "bases": [], "cells": planned})
    return store


def search() -> None:
    """The trials of a search over CMD's modes and warm-up, with accuracies that depend on both."""
    from harness.tune.figures import draw_search
    from harness.tune.space import Space
    from harness.tune.study import Problem, Search

    growth, space = Growth(TRIALS, "trials"), Space({"modes": IntDistribution(2, 40), "warmup": IntDistribution(2, 40)})
    params = {"_target_": "baselines.cmd_online.CMDOnline", "modes": 5, "samples": 500, "warmup": 3}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for count in TRIALS:
        with tempfile.TemporaryDirectory() as folder:
            rng, study = np.random.default_rng(0), optuna.create_study(direction="maximize")
            for _ in range(count):
                chosen = {"modes": int(rng.integers(2, 41)), "warmup": int(rng.integers(2, 41))}
                accuracy = 80 + 0.1 * chosen["modes"] - 0.01 * chosen["warmup"] ** 2 + rng.normal()
                result = {"status": "done", "reason": None, "traceback": None, "epoch": 6, "seconds": 0.5}
                result |= {"val_accuracy": accuracy, "val_loss": 1.0}
                study.add_trial(
                    create_trial(
                        state=TrialState.COMPLETE, params=chosen, distributions=space.distributions, value=accuracy,
                        user_attrs={"seed 0": result},
                    )
                )  # fmt: skip
            config = SimpleNamespace(
                seed=0, epochs=40, label="net-data-sgd-s0", model=SimpleNamespace(name="net"),
                dataset=SimpleNamespace(name="data"), optimizer=SimpleNamespace(name="sgd"),
            )  # fmt: skip
            problem = Problem("net-data-sgd", (SimpleNamespace(key="b" * 20, config=config),))
            method = method_config("cmd_online", params)
            made = Search(
                method, problem, space, TuneConfig(trials=count), None, Path(folder), study, study._storage, True, True
            )
            growth.add(count, "figures of a search", **measured(lambda made=made: draw_search(made)))
            growth.add(count, "again", **measured(lambda made=made: draw_search(made)))
    growth.close()


def cells(sizes: Sequence[int]) -> None:
    """The matrix of `suite=smoke` with as many seeds as make so many cells, each with a record."""
    growth = Growth(sizes, "cells")
    for size in sizes:
        with tempfile.TemporaryDirectory() as root:
            overrides = ["suite=smoke", f"seeds={list(range(math.ceil(size / 9)))}", "epochs=6", f"results_dir={root}"]
            store, rng = Store(Path(root)), np.random.default_rng(0)
            with mock.patch("os.fsync"):
                plan = make_plan(resolve(Request(tuple(overrides)), "traindyn run"), store)
                write_joined(store, plan.as_record())
                for cell in plan.as_record()["cells"]:
                    finish(store, cell, EPOCHS, IMAGES, rng, 0.0)
            where = f"results_dir={root}"
            for name in ("run that writes the views", "run with nothing left"):
                growth.add(size, name, **of_command(COMMAND, "run", *overrides, "tracker=none"))
            for view in (Path(root) / "suites").rglob("frame.parquet"):
                view.unlink()
            code = f"import harness; harness.load_frame({root!r})"
            growth.add(size, "load_frame from records", **of_command(sys.executable, "-c", code))
            for name in ("report with figures", "report again"):
                growth.add(size, name, **of_command(COMMAND, "report", where))
            for name in ("publish tracker=csv", "publish again"):
                growth.add(size, name, **of_command(COMMAND, "publish", where, "tracker=csv"))
    growth.close()


def methods(sizes: Sequence[int]) -> None:
    """Many methods on one base."""
    growth = Growth(sizes, "methods")
    for size in sizes:
        with tempfile.TemporaryDirectory() as root:
            synthetic(Path(root), size, IMAGES)
            for name in ("report with figures", "report again"):
                growth.add(size, name, **of_command(COMMAND, "report", f"results_dir={root}"))
    growth.close()


def main() -> None:
    given = dict(argument.split("=") for argument in sys.argv[1:])
    sizes = {name: [int(size) for size in given.get(name, default).split(",")] for name, default in DEFAULTS.items()}
    parts: dict[str, Callable[[], None]] = {
        "bundle": bundle,
        "pairs": pairs,
        "search": search,
        "cells": lambda: cells(sizes["cells"]),
        "methods": lambda: methods(sizes["methods"]),
    }
    for name in given.get("only", ",".join(parts)).split(","):
        print(f"\n{name}", flush=True)
        parts[name]()


DEFAULTS = {"cells": "200,600,1800", "methods": "25,100,300"}

if __name__ == "__main__":
    main()
