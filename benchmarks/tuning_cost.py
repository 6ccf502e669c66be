"""What 50 trials of CMD's modes and warm-up cost by replay, against training one base and against 50 trainings.

One worker does everything, so that seconds are those of the same cores: the base of one seed is trained by a search
with one trial, then a second search on it runs all of its trials. Wall-clock seconds of each part, processes' starts,
files and the study's storage included, without W&B and without figures. 50 trainings are estimated as 50 times the one.

    python benchmarks/tuning_cost.py [overrides, such as model=test_vit trials=20]
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from harness.compose import Request
from harness.engine.local import LocalEngine, warm_up
from harness.plan import make_plan
from harness.resolve import resolve
from harness.store import Store
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
    "engine.workers=1",
)


def ignore(*_: object) -> None:
    """Neither tracked nor written."""


def run(overrides: tuple[str, ...]) -> tuple[float, Search, float]:
    """Wall-clock seconds of a search, the search, and the seconds of its base's training loop."""
    study = tunable(resolve(Request(overrides), "benchmark"))
    plan = make_plan(study, Store(Path(study.settings.results_dir)))
    with contextlib.ExitStack() as stack:
        (search,), _ = make_searches(plan, (), stack)
        engine = LocalEngine(study.settings.engine, plan.bases[0].config.device)
        display = TuneDisplay(Console(quiet=True), [search])
        began = time.perf_counter()
        Tuner([search], plan.store, study.settings, engine, display, ignore).run()
        seconds = time.perf_counter() - began
        record = plan.store.base(plan.bases[0].key)
        assert record is not None, search.ended
        return seconds, search, sum(record["seconds"].values())


def main() -> None:
    warm_up()
    with tempfile.TemporaryDirectory() as folder:
        overrides = (*DEFAULTS, *sys.argv[1:], f"results_dir={folder}")
        _, _, training = run((*overrides, "trials=1", "tune.name=base"))
        seconds, search, _ = run(overrides)
        trials, own = search.spent()
        distinct = sum("same_as" not in trial.user_attrs for trial in search.trials)
    print(f"{' '.join(overrides[:-1])}: {search.label}")
    print(f"one base, all phases of its job          {training:8.1f} s")
    print(f"{trials} trials by replay, wall clock        {seconds:8.1f} s   ({own:.1f} s in them, {distinct} settings)")
    print(f"{trials} trainings, estimated from the one   {trials * training:8.1f} s")
    print(f"trials / one base: {seconds / training:.2f}")
    print(f"trials / {trials} trainings: {seconds / (trials * training):.4f}")


if __name__ == "__main__":
    main()
