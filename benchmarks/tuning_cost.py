"""What 50 trials of CMD's modes and warm-up cost by replay, against training one base and against 50 trainings.

The jobs run in this process, one after the other, so that CPU seconds, which other work on the machine leaves as they
are, can be told beside the wall clock's: first a search with one trial, for which a base is trained, then a second
search on that base with all of its trials, the study's storage and all files included; starting a process for each of
its jobs, as the command does, is not. 50 trainings are estimated as 50 times the one. Without W&B and figures.

    python benchmarks/tuning_cost.py [overrides, such as model=test_vit trials=20]
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

from here_engine import HereEngine, Stopwatch
from rich.console import Console

from harness.planning.compose import Request
from harness.planning.plan import make_plan
from harness.planning.resolve import resolve
from harness.storage.store import Store
from harness.tune.command import make_searches, tunable
from harness.tune.display import TuneDisplay
from harness.tune.study import Search
from harness.tune.tuner import Tuner

DEFAULTS = (
    "suite=quick",
    "model=test_resnet",
    "seeds=[0]",
    "method=cmd_online",
    "trials=50",
    "tune.parameters=[modes,warmup]",
    "tracker=none",
)


def ignore(*_: object) -> None:
    """Neither tracked nor written."""


def run(overrides: tuple[str, ...]) -> tuple[Search, tuple[float, float], tuple[float, float]]:
    """A search, its seconds, and those of training its base where that was done."""
    study = tunable(resolve(Request(overrides), "benchmark", compares=False))
    plan = make_plan(study, Store(Path(study.settings.results_dir)))
    engine = HereEngine()
    with contextlib.ExitStack() as stack:
        (search,), _ = make_searches(plan, (), stack)
        display = TuneDisplay(Console(quiet=True), [search])
        watch = Stopwatch()
        Tuner([search], plan.store, study.settings, engine, display, ignore).run()
        return search, watch.read(), engine.training


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        overrides = (*DEFAULTS, *sys.argv[1:], f"results_dir={folder}")
        _, _, training = run((*overrides, "trials=1", "tune.name=base"))
        search, seconds, _ = run(overrides)
        trials, _ = search.spent()
        distinct = sum("same_as" not in trial.user_attrs for trial in search.trials)
    print(f"{' '.join(overrides[:-1])}: {search.label}, {distinct} settings of {trials} differ")
    print(f"{'':<44}{'wall clock':>12}{'CPU':>12}")
    for name, pair in (
        ("one base trained", training),
        (f"{trials} trials by replay", seconds),
        (f"{trials} trainings, estimated from the one", (trials * training[0], trials * training[1])),
    ):
        print(f"{name:<44}{pair[0]:>10.1f} s{pair[1]:>10.1f} s")
    wall, cpu = (one / base for one, base in zip(seconds, training, strict=True))
    print(f"{'trials / one base':<44}{wall:>12.2f}{cpu:>12.2f}")
    print(f"{f'trials / {trials} trainings':<44}{wall / trials:>12.4f}{cpu / trials:>12.4f}")


if __name__ == "__main__":
    main()
