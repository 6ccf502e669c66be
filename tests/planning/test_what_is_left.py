"""What a plan says of cells that are stale, failed, or need their base once more, on records of made-up runs, and of
what a run will be."""

import pytest
from fake_work import FAKE_WORKERS, TINY, Ran, plan_of, write_base, write_cell

from harness.cli import _power
from harness.planning.compose import Request
from harness.planning.estimate import estimate
from harness.planning.plan import make_plan
from harness.planning.resolve import resolve
from harness.planning.summary import plan_text
from harness.running import scheduler
from harness.running.scheduler import epochs_left
from harness.storage.paths import snapshot_path
from harness.storage.store import Store
from harness.validation import ConfigError


@pytest.fixture
def done(tmp_path, monkeypatch):
    """A folder in which every cell of the plan is done."""
    monkeypatch.setattr(scheduler, "WORKERS", dict(FAKE_WORKERS))
    Ran(plan_of(tmp_path))
    return tmp_path


def said(plan):
    return plan_text(plan, estimate(plan)).splitlines()


def cell_of(plan, method):
    return next((base, cell) for base, cell in plan.cells if cell.method.name == method)


def test_stale_cells_are_counted_by_reason(done):
    plan = plan_of(done)
    write_cell(plan.store, *cell_of(plan, "swa"), sources={"harness": "another"})
    for method in ("ema", "lookahead"):
        write_cell(plan.store, *cell_of(plan, method), base_digest=["of other weights"])
    plan = plan_of(done)
    stale = {cell.method.name for _, cell in plan.cells if plan.statuses[cell.key] == "stale"}
    assert stale == {"swa", "ema", "lookahead"}
    assert "1 stale cell made by other sources of the harness than these; redo=stale makes it anew" in said(plan)
    assert "2 stale cells whose base was trained anew to other weights since; redo=stale makes them anew" in said(plan)


def test_a_base_trained_anew_to_the_same_weights_makes_nothing_stale(done):
    plan = plan_of(done)
    write_base(plan.store, plan.bases[0])
    assert not any("stale" in line for line in said(plan_of(done)))


def test_failed_cells_come_with_how_they_run_again(done):
    plan = plan_of(done)
    write_cell(plan.store, *cell_of(plan, "swa"), status="failed", reason="a reason")
    assert "1 cell failed or was skipped; redo=failed runs it again" in said(plan_of(done))


def test_a_shadow_run_is_named_with_the_methods_and_why(done):
    """ema watches optimizer steps; swa can be replayed until one of its snapshots is gone."""
    plan = plan_of(done)
    epochs = plan.bases[0].config.epochs
    for method in ("swa", "ema"):
        (plan.store.cell_folder(cell_of(plan, method)[1].key) / "record.json").unlink()
    plan = plan_of(done)
    why = f"{epochs} in shadow runs of 1 base for ema, which watches optimizer steps"
    assert said(plan)[0].endswith(f"epochs to train: {why}")
    assert sum(epochs_left(plan).values()) == epochs
    snapshot_path(plan.store.base_folder(plan.bases[0].key) / "trajectory", 1).unlink()
    assert said(plan_of(done))[0].endswith(f"{why}; and for swa, whose snapshots are not stored")


def test_what_rests_on_a_base_that_is_trained_anew_is_counted(done):
    """Of the five cells of the stored view, three are not among what is asked for."""
    assert not any("trained anew" in line for line in said(plan_of(done)))
    asked = Request((*TINY, "method=[base,base_recalibrated]", "seeds=[0]", "redo=base", f"results_dir={done}"))
    plan = make_plan(resolve(asked, "a test"), Store(done))
    (line,) = (line for line in said(plan) if "trained anew" in line)
    assert line == (
        "1 base will be trained anew: cells of views that rest on the present weights and are not among these "
        f"(3 of {plan.experiment.settings.view}) are stale where the weights change"
    )


def test_comparisons_are_counted_in_the_rows_that_have_both_methods(tmp_path):
    """quick leaves cooldown out of its two annealed rows of four: 2 comparisons and 4 of post-hoc CMD."""
    asked = Request(("suite=quick", "statistics.primary=[cooldown,cmd_posthoc]", f"results_dir={tmp_path}"))
    assert ": 6 comparisons, " in _power(make_plan(resolve(asked, "a test"), Store(tmp_path)))


def test_changed_labels_are_said(tmp_path):
    plan = plan_of(tmp_path, "dataset.digits.label_noise=0.2")
    assert "dataset digits: labels of 20 % of the training images are changed (label_noise)" in said(plan)
    assert not any("label" in line for line in said(plan_of(tmp_path)))


def test_a_share_in_percent_is_told_from_one(tmp_path):
    with pytest.raises(ConfigError, match=r"^dataset.digits.label_noise must be a share below 1, got 20$"):
        plan_of(tmp_path, "dataset.digits.label_noise=20")
