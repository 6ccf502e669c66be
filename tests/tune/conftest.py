"""Searches in this process, on a tiny base."""

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import OWN
from inline_engine import InlineEngine
from rich.console import Console

from harness.planning.compose import Request
from harness.planning.plan import make_plan
from harness.planning.resolve import resolve
from harness.storage.store import Store
from harness.tune.command import make_searches, tunable
from harness.tune.display import TuneDisplay
from harness.tune.tuner import Tuner

TINY = ("model=test_resnet", "dataset=digits", "suite=smoke", "fast=true", "tracker=none", "engine.workers=1")


@dataclass
class Tuned:
    """A finished `Tuner`, its searches, and the jobs that were run."""

    searches: list
    jobs: list
    plan: object


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A results folder with the bases of two seeds, and nothing else."""
    results = tmp_path_factory.mktemp("trained") / "results"
    with contextlib.ExitStack() as stack:
        run(stack, results, InlineEngine(), "method=swa", "trials=1", "seeds=[0,1]")
    shutil.rmtree(results / "tuning")
    return results


@pytest.fixture
def tuned(trained):
    """Run searches in this process, on bases that are there already unless `fresh`; folders are held until the test
    or the next search."""
    with contextlib.ExitStack() as stack:

        def go(results, *overrides, fresh=False):
            stack.close()
            if not fresh and not results.exists():
                shutil.copytree(trained, results)
            return run(stack, results, InlineEngine(), *overrides)

        yield go


def run(stack, results, engine, *overrides):
    """Searches to their end; `stack` holds their folders."""
    given = (*TINY, *overrides, f"results_dir={results}")
    study = tunable(resolve(Request(given, (OWN,)), "a test", compares=False))
    plan = make_plan(study, Store(Path(results)))
    with contextlib.ExitStack() as own:
        searches, _ = make_searches(plan, (OWN,), own)
        stack.push(own.pop_all())
    display = TuneDisplay(Console(quiet=True), searches)
    Tuner(searches, plan.store, study.settings, engine, display, ignore, python_path=(str(OWN),)).run()
    return Tuned(searches, engine.done, plan)


def ignore(*_):
    """Neither tracked nor written."""
