"""A suite whose jobs train nothing: each writes what the scheduler and upkeep look at, at once and in this process."""

from pathlib import Path

import torch
from inline_engine import InlineEngine
from rich.console import Console

from harness.method import Snapshot
from harness.planning.compose import Request
from harness.planning.plan import labels, make_plan
from harness.planning.resolve import resolve
from harness.running.display import Display
from harness.running.events import CellEnded
from harness.running.jobs import Worker
from harness.running.scheduler import Scheduler, epochs_left
from harness.storage.keys import harness_digest
from harness.storage.store import Store
from harness.storage.trajectory import write_snapshot

TINY = ("model=test_resnet", "dataset=digits", "suite=smoke", "fast=true", "tracker=none", "engine.workers=1")
METHODS = "method=[base,base_recalibrated,swa,ema,lookahead]"
"""two controls, an observer of epochs, an observer of optimizer steps and a brancher"""


def plan_of(results, *overrides):
    """A plan in a results folder, written there as the command does."""
    study = resolve(Request((*TINY, METHODS, "seeds=[0]", *overrides, f"results_dir={results}")), "a test")
    plan = make_plan(study, Store(Path(results)))
    plan.store.write_plan(plan.as_record())
    return plan


def write_base(store, base, status="done", snapshots=()):
    """A base that ended, with snapshots of one weight."""
    folder = store.base_folder(base.key)
    digests = [f"digest {t}" for t in range(base.config.epochs + 1)]
    record = {
        "base_key": base.key, **labels(base.config), "status": status, "reason": "a reason", "digests": digests,
        "sources": {"harness": harness_digest()},
    }  # fmt: skip
    for t in snapshots:
        write_snapshot(folder / "trajectory", Snapshot(t, t, torch.zeros(1), {}))
    store.write_base(record, [], folder)


def write_cell(store, base, cell, **entries):
    """The record of a cell that is done, with all evaluations that may be asked for."""
    epochs = list(range(base.config.epochs + 1))
    record = {
        "cell_key": cell.key, "base_key": base.key, **labels(base.config), "method": cell.method.name,
        "status": "done", "reason": None, "summary": {"val_accuracy": 50.0}, "base_digest": [f"digest {epochs[-1]}"],
        "sources": {"harness": harness_digest()}, "holds": {"epochs": epochs, "test_epochs": epochs, "weights": True},
        "config": {"evaluate": {}}, "run_id": cell.key[:12], "generation": 0,
    }  # fmt: skip
    store.write_record(record | entries, [{"epoch": t, "val_accuracy": 50.0} for t in epochs[1:]])


class FakeWorker(Worker):
    """Writes the records of its cells and tells of them."""

    def work(self):
        """Nothing but what `run` does."""

    def run(self):
        if self.kind == "train":
            write_base(self.store, self.job.base, snapshots=self.job.snapshots)
        for cell in self.job.cells:
            write_cell(self.store, self.job.base, cell)
            self.tell(CellEnded(cell.key, "done", None))


FAKE_WORKERS = {
    kind: type(f"Fake{kind}", (FakeWorker,), {"kind": kind}) for kind in ("train", "replay", "shadow", "branch")
}


class Lines(Display):
    """A display whose lines are kept."""

    def __init__(self, plan, engine):
        super().__init__(Console(quiet=True), 0, len(plan.statuses), epochs_left(plan), engine.slots)
        self.lines = []

    def line(self, text):
        self.lines.append(text)


class Ran:
    """A scheduler that has run a plan with an engine: the jobs, the lines, and what it told of itself."""

    def __init__(self, plan, engine=None):
        self.plan, self.engine = plan, engine or InlineEngine()
        self.display, self.told = Lines(plan, self.engine), []
        self.scheduler = Scheduler(plan, self.engine, self.display, (), self.told.append)
        self.scheduler.run()

    @property
    def jobs(self):
        """Kind, seed and methods of every job that was run, in order."""
        return [(job.kind, job.base.config.seed, *(cell.method.name for cell in job.cells)) for job in self.engine.done]

    def record(self, method, seed=0):
        (key,) = (c.key for b, c in self.plan.cells if c.method.name == method and b.config.seed == seed)
        return self.plan.store.record(key)
