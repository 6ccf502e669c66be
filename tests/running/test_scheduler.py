"""What the scheduler starts and when, driven in this process with jobs that train nothing."""

import errno

import pytest
from fake_work import FAKE_WORKERS, FakeWorker, Ran, plan_of, write_base, write_cell
from inline_engine import InlineEngine

from harness.running import scheduler
from harness.running.events import CellEnded, DiskFailed, WorkedElsewhere
from harness.running.scheduler import ATTEMPTS
from harness.storage.leases import lease_name
from harness.storage.paths import stored_ts

OBSERVERS = ("base", "base_recalibrated", "swa", "ema")


@pytest.fixture(autouse=True)
def workers(monkeypatch):
    """The workers of the plan's jobs by kind, to be replaced by a test's own."""
    fakes = dict(FAKE_WORKERS)
    monkeypatch.setattr(scheduler, "WORKERS", fakes)
    return fakes


def worker(kind, **members):
    return type("Own", (FakeWorker,), {"kind": kind, **members})


def test_a_base_is_trained_with_its_observers_then_branched_from(tmp_path):
    ran = Ran(plan_of(tmp_path))
    assert ran.jobs == [("train", 0, *OBSERVERS), ("branch", 0, "lookahead")]
    assert {record["status"] for _, cell in ran.plan.cells if (record := ran.plan.store.record(cell.key))} == {"done"}
    assert ran.told == []  # of what jobs tell of, the scheduler relays nothing


def test_bases_go_before_all_else(tmp_path):
    kinds = [job[:2] for job in Ran(plan_of(tmp_path, "seeds=[0,1]")).jobs]
    assert kinds == [("train", 0), ("train", 1), ("branch", 0), ("branch", 1)]


def test_a_base_whose_snapshots_are_to_go_is_finished_before_another_begins(tmp_path):
    ran = Ran(plan_of(tmp_path, "seeds=[0,1]", "trajectory.keep=none"))
    assert [job[:2] for job in ran.jobs] == [("train", 0), ("branch", 0), ("train", 1), ("branch", 1)]
    assert not list(tmp_path.glob("bases/*/trajectory/*.safetensors"))


def test_no_more_jobs_at_once_than_slots(tmp_path):
    engine = InlineEngine(slots=2)
    most = []
    submit = engine.submit
    engine.submit = lambda job: (submit(job), most.append(len(engine.waiting)))
    Ran(plan_of(tmp_path, "seeds=[0,1,2]"), engine)
    assert max(most) == 2


def test_cells_of_a_trained_base_are_replayed_or_shadowed(tmp_path):
    """Snapshots serve an observer of epochs; one of optimizer steps needs the base once more."""
    plan = plan_of(tmp_path)
    Ran(plan)
    for _, cell in plan.cells:
        if cell.method.name in ("swa", "ema"):
            (plan.store.cell_folder(cell.key) / "record.json").unlink()
    assert Ran(plan_of(tmp_path)).jobs == [("replay", 0, "swa"), ("shadow", 0, "ema")]


def test_a_job_whose_process_is_lost_is_started_again(tmp_path):
    plan = plan_of(tmp_path)
    label = plan.bases[0].config.label
    ran = Ran(plan, InlineEngine(deaths={label: 1}))
    assert [job[0] for job in ran.jobs] == ["train", "train", "branch"]
    assert f"{label}: process ended with SIGKILL; it goes on from its last epoch" in ran.display.lines


def test_a_job_that_is_lost_again_and_again_fails_its_cells_alone(tmp_path):
    plan = plan_of(tmp_path)
    label = f"{plan.bases[0].config.label}-lookahead"
    ran = Ran(plan, InlineEngine(deaths={label: 9}))
    retries = plan.experiment.settings.engine.retries
    assert [job[0] for job in ran.jobs] == ["train", *["branch"] * (retries + 1)]
    record = ran.record("lookahead")
    assert (record["status"], record["reason"]) == ("failed", "process ended with SIGKILL")
    assert ran.record("swa")["status"] == "done"
    log = f"cells/{record['cell_key']}/log.txt"
    assert ran.told == [CellEnded(record["cell_key"], "failed", "process ended with SIGKILL", None, log)]
    assert record["log"] == log
    lines = (plan.store.root / log).read_text().splitlines()
    assert lines[0].endswith("-lookahead branches off from its base")
    assert sum("lost: process ended with SIGKILL; it goes on" in line for line in lines) == retries
    assert lines[-1].endswith("failed: process ended with SIGKILL")


def test_a_job_that_leaves_no_record_is_given_up(tmp_path, workers):
    workers["branch"] = worker("branch", run=lambda self: None)
    ran = Ran(plan_of(tmp_path))
    assert [job[0] for job in ran.jobs] == ["train", *["branch"] * ATTEMPTS]
    assert ran.record("lookahead")["reason"] == "its job left no record"


def test_a_base_that_cannot_be_trained_fails_all_its_cells(tmp_path, workers):
    workers["train"] = worker("train", run=lambda self: None)
    ran = Ran(plan_of(tmp_path))
    assert [job[0] for job in ran.jobs] == ["train"] * ATTEMPTS
    reasons = {ran.record(method)["reason"] for method in (*OBSERVERS, "lookahead")}
    assert reasons == {"its base could not be trained"}
    assert len(ran.told) == 5


@pytest.mark.parametrize(("status", "ends"), [("failed", "skipped"), ("diverged", "done")])
def test_branches_from_a_base_that_ended_badly(tmp_path, workers, status, ends):
    """From a base that failed there is nothing to branch from; one that diverged is branched from before that."""
    workers["train"] = worker("train", run=lambda self: write_base(self.store, self.job.base, status))
    ran = Ran(plan_of(tmp_path))
    assert ran.record("lookahead")["status"] == ends
    assert ran.record("swa")["status"] == ("failed" if status == "failed" else "done")


def test_work_of_another_command_is_waited_for_and_taken_over(tmp_path):
    """It holds the base until this scheduler looks for events in vain, and leaves records of all its cells."""
    plan = plan_of(tmp_path)
    (base,), store = plan.bases, plan.store
    lease = store.leases.take(lease_name(tmp_path, store.base_folder(base.key)))
    looks = []

    class Waiting(InlineEngine):
        def events(self, timeout):
            looks.append(timeout)
            if len(looks) == 3:
                write_base(store, base)
                for cell in base.cells:
                    write_cell(store, base, cell)
                lease.release()
            return super().events(timeout)

    ran = Ran(plan, Waiting())
    assert ran.jobs == []
    assert len(looks) == 3
    assert [(event.cell_key, event.status) for event in ran.told] == [(cell.key, "done") for cell in base.cells]
    (line,) = ran.display.lines
    assert line.endswith("works there, its results will be taken over")


def test_a_job_that_finds_another_at_work_costs_no_attempt(tmp_path, workers):
    count = []

    def run(self):
        count.append(self)
        if len(count) <= ATTEMPTS:
            self.tell(WorkedElsewhere())
        else:
            FakeWorker.run(self)

    workers["branch"] = worker("branch", run=run)
    assert Ran(plan_of(tmp_path)).record("lookahead")["status"] == "done"


def test_a_disk_that_fails_ends_all_jobs_and_is_named(tmp_path, workers):
    workers["train"] = worker("train", run=lambda self: self.tell(DiskFailed(errno.ENOSPC, "No space left", "a/file")))
    engine = InlineEngine(slots=2)
    with pytest.raises(OSError, match=r"No space left") as error:
        Ran(plan_of(tmp_path, "seeds=[0,1]"), engine)
    assert error.value.filename == "a/file"
    assert not engine.busy
    assert not list(tmp_path.glob("cells/*/record.json"))


def test_snapshots_go_when_no_suite_needs_them(tmp_path):
    """None while another suite has an open cell on the base; afterwards those that its plan keeps stay."""
    plan = plan_of(tmp_path, "trajectory.keep=none")
    (base,), store = plan.bases, plan.store
    write_base(store, base, snapshots=range(4))
    another = {**plan.as_record(), "suite": "another", "bases": [{"base_key": base.key, "keeps": [0, 1]}]}
    open_cell = {**another["cells"][0], "cell_key": "0" * 20}
    folder = store.base_folder(base.key) / "trajectory"
    store.write_plan({**another, "cells": [open_cell]})
    Ran(plan)
    assert stored_ts(folder) == (0, 1, 2, 3)
    store.write_plan(another)
    Ran(plan_of(tmp_path, "trajectory.keep=none"))
    assert stored_ts(folder) == (0, 1)
