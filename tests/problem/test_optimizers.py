"""Optimizers by name, their refusals, and schedules against torch's own."""

from importlib.resources import files
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch.optim.lr_scheduler import CosineAnnealingLR

from harness.config import ConfigError, OptimizerConfig, ScheduleConfig, from_mapping
from harness.problem.optimizers import check_optimizer, make_optimizer, schedule

PRESETS = sorted(path.stem for path in Path(str(files("conf"))).glob("optimizer/*.yaml"))


class Own(torch.optim.SGD):
    """An optimizer from a module that its user has imported."""


def sgd(target="torch.optim.SGD", **params):
    return OptimizerConfig("mine", target, params)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_accepted(name):
    values = OmegaConf.to_container(OmegaConf.load(Path(str(files("conf"))) / "optimizer" / f"{name}.yaml"))[name]
    planned = from_mapping(ScheduleConfig, f"optimizer.{name}.schedule", values.pop("schedule"))
    config = OptimizerConfig(name, values.pop("_target_"), values, planned)
    check_optimizer(config)
    assert schedule(config.schedule, 10)(1.0) == 1.0


def test_a_step_is_that_of_the_named_class():
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    weight.grad = torch.tensor([0.5, -1.0])
    make_optimizer(sgd(lr=0.1, weight_decay=0.2), [weight]).step()
    # w - lr (g + weight_decay w)
    assert weight.tolist() == pytest.approx([1.0 - 0.1 * (0.5 + 0.2), 2.0 - 0.1 * (-1.0 + 0.4)])


def test_a_class_that_the_caller_imported_may_be_named():
    config = sgd(target=f"{__name__}.Own", lr=0.1)
    check_optimizer(config)
    assert isinstance(make_optimizer(config, [torch.zeros(2, requires_grad=True)]), Own)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (sgd(lr=0.1, momentun=0.9), r"optimizer\.mine has no key 'momentun'; nearest: momentum"),
        (sgd(lr=-1.0), r"optimizer\.mine\.lr must be .*, got -1\.0: "),
        (sgd(lr=float("nan")), r"optimizer\.mine\.lr must be a finite number, got nan"),
        (sgd(lr=0.1, momentum="much"), r"optimizer\.mine\.momentum must be a number, got 'much'"),
        (sgd(lr=0.1, nesterov=True), r"optimizer\.mine\.nesterov must be .*, got True: "),
        (sgd("torch.optim.Adam", lr=0.1, betas=[0.9, 1.5]), r"optimizer\.mine\.betas must be .*, got \[0\.9, 1\.5\]: "),
        (sgd("torch.optim.LBFGS", lr=0.1), r"optimizer\.mine\._target_ must step without a closure"),
        (
            sgd("torch.optim.Adamw"),
            r"optimizer\.mine\._target_ must be an optimizer of torch\.optim, .*; nearest: .*Adam",
        ),
        (sgd("torch.optim.Optimizer"), r"optimizer\.mine\._target_ must be an optimizer"),
        (sgd("os.system"), r"optimizer\.mine\._target_ must be an optimizer"),
        (sgd("nothing.imported.Here"), r"optimizer\.mine\._target_ must be an optimizer"),
        (sgd("SGD"), r"optimizer\.mine\._target_ must be an optimizer of torch\.optim, got 'SGD'; nearest: .*SGD"),
    ],
)
def test_bad_settings_are_named_in_one_line(config, message):
    with pytest.raises(ConfigError, match="^" + message) as caught:
        check_optimizer(config)
    assert "\n" not in str(caught.value)


def test_no_schedule_is_the_full_rate():
    factor = schedule(ScheduleConfig(), 3)
    assert [factor(e) for e in (0.0, 0.5, 3.0)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("warmup", [0, 2])
def test_cosine_agrees_with_torch_at_the_ends_of_epochs(warmup):
    epochs = 9
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = CosineAnnealingLR(optimizer, T_max=epochs - warmup)
    factor = schedule(ScheduleConfig("cosine", warmup), epochs)
    for epoch in range(warmup, epochs + 1):
        assert factor(float(epoch)) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        theirs.step()
    assert factor(float(epochs)) == pytest.approx(0.0, abs=1e-12)


def test_warm_up_is_linear_and_its_first_step_is_not_lost():
    factor = schedule(ScheduleConfig("cosine", 2.0), 10)
    steps = 4
    rates = [factor((step + 1) / steps) for step in range(2 * steps)]
    assert rates == pytest.approx([(step + 1) / 8 for step in range(8)])


def test_a_warm_up_without_an_epoch_left_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer\.schedule\.warmup_epochs must be below epochs \(5\), got 5"):
        schedule(ScheduleConfig("cosine", 5), 5)
