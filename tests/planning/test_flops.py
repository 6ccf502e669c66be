"""Operations and activations of models against sums by hand, and what a plan says of the work that is left."""

from dataclasses import replace

import pytest

from harness.planning import flops as operations
from harness.planning.compose import Request
from harness.planning.flops import ASSUMED_RATE, work_left
from harness.planning.model_cost import ImageCost, image_cost
from harness.planning.plan import make_plan
from harness.planning.resolve import resolve
from harness.storage.store import Store

LENET = ("model=lenet5", "model.lenet5.kwargs.width=1", "dataset=digits", "dataset.digits.resize=16", "device=cpu")


def plan_of(results, *overrides):
    study = resolve(Request((*LENET, f"results_dir={results}", *overrides)), "a test", compares=False)
    return make_plan(study, Store(results))


def test_operations_and_activations_of_lenet_are_those_of_its_layers(tmp_path):
    config = plan_of(tmp_path / "results").bases[0].config
    cost = image_cost(config.model, config.dataset)
    # 16 pixels: 12 and 6 after the first stage, 2 and 1 after the second
    convolutions = 12 * 12 * 6 * 25 + 2 * 2 * 16 * 6 * 25
    linear = 16 * 120 + 120 * 84 + 84 * 10
    assert cost.operations == 2 * (convolutions + linear)
    # inputs of layers, what ReLU and max-pooling keep, and the positions of maxima in int64
    floats = 16 * 16 + 6 * 12 * 12 + 6 * 6 * 6 + 16 * 2 * 2 + 16 + 120 + 84
    assert cost.activation_bytes == 4 * floats + 8 * (6 * 6 * 6 + 16)


def test_the_work_of_a_plan_is_what_it_trains_and_evaluates(tmp_path, monkeypatch):
    monkeypatch.setattr(operations, "image_cost", lambda model, dataset: ImageCost(10, 5, 0))
    method = "method=[base,base_recalibrated,p_sgd,cmd_posthoc]"
    values = ("epochs=6", "batch_size=100", "seeds=[0,1]", "evaluate.every=4", "evaluate.recalibrate_images=50")
    branch = ("method.p_sgd.warmup=4", "method.p_sgd.dimensions=2", "method.p_sgd.epochs=3")
    work = work_left(plan_of(tmp_path / "results", method, *values, *branch))
    # 1,200 training, 237 validation and 360 test images; three passes a trained image
    assert work.training == 2 * 3 * 10 * 1200 * (6 + 3)
    base, recalibrated = 2 * 237 + 360, 2 * (237 + 50) + 360
    # the branch is evaluated at epoch 7 of its clock, its last, and the reconstruction at the end
    alone = 237 + 50 + 360
    assert work.evaluation == 2 * 10 * (base + recalibrated + alone + alone)
    assert work.rate == ASSUMED_RATE
    assert work.hours == pytest.approx((work.training + work.evaluation) / ASSUMED_RATE / 3600)
    # GPU-hours are for who has one
    assert "GPU" not in work.sentences()[0]
    assert "a rate that is assumed" in replace(work, device="cuda").sentences()[0]


def test_nothing_is_said_where_nothing_is_left(smoke):
    overrides = ("suite=smoke", f"results_dir={smoke.results}", "save=final", "device=cpu")
    plan = make_plan(resolve(Request(overrides), "a test"), Store(smoke.results))
    work = work_left(plan)
    assert work.sentences() == []
    assert work.recorded_bases == 2
    # what is left goes at the rate that the recorded bases reached
    more = make_plan(resolve(Request((*overrides, "method=[base,lookahead,twa]")), "a test"), Store(smoke.results))
    left = work_left(more)
    assert left.rate == work.rate
    assert "which 2 bases of this plan reached here" in left.sentences()[0]


def test_a_gpu_is_told_what_determinism_costs(tmp_path):
    work = replace(work_left(plan_of(tmp_path / "results", "method=base")), device="cuda", deterministic_gpu=True)
    assert "deterministic=false is another run" in work.sentences()[-1]
