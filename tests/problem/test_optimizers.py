"""Optimizers by name, their refusals, and schedules against torch's own."""

from importlib.resources import files
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, OneCycleLR

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
    rates = values.pop("rates")
    config = OptimizerConfig(name, values.pop("_target_"), values, planned, rates)
    check_optimizer(config)
    assert values["lr"] in rates
    highest = max(schedule(config.schedule, 10)(step / 100) for step in range(1, 1001))
    assert highest == pytest.approx(1.0, abs=2e-3)  # a decay has begun by the end of the first step


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


def factors(config, epochs, ends):
    factor = schedule(config, epochs)
    return [factor(float(end)) for end in ends]


def rates_of_torch(make, epochs):
    """torch's rates after 0, 1, ... epochs of a schedule that it steps once an epoch."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs, found = make(optimizer), []
    for _ in range(epochs + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    return found


def test_a_straight_line_agrees_with_torch():
    expected = rates_of_torch(lambda o: LinearLR(o, start_factor=1.0, end_factor=0.25, total_iters=8), 8)
    assert factors(ScheduleConfig("linear", final=0.25), 8, range(9)) == pytest.approx(expected)


def test_steps_agree_with_torch_once_a_milestone_has_passed():
    """torch's rate of the epoch after a milestone is ours of the first step after it."""
    expected = rates_of_torch(lambda o: MultiStepLR(o, milestones=[4, 6], gamma=0.1), 7)
    got = factors(ScheduleConfig("step", milestones=[0.5, 0.75], gamma=0.1), 8, [t + 0.01 for t in range(8)])
    assert got == pytest.approx(expected)
    assert factors(ScheduleConfig("step"), 8, [4.0, 6.0, 8.0]) == pytest.approx([1.0, 0.1, 0.01])


def test_one_cycle_agrees_with_torch():
    """torch's phases end at step pct * total - 1 of total steps: with 11 steps from 0 on these are shares of 10."""
    expected = rates_of_torch(
        lambda o: OneCycleLR(o, max_lr=1.0, total_steps=11, pct_start=4 / 11, cycle_momentum=False), 10
    )
    assert factors(ScheduleConfig("one_cycle", rise=0.3), 10, range(11)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shape", "half"), [("linear", 0.5), ("sqrt", 1 - 0.5**0.5), ("square", 0.75), ("cosine", 0.5)]
)
def test_wsd_is_constant_and_then_falls(shape, half):
    """Half-way through the decay u = 1/2: 1 - u, 1 - sqrt(u), 1 - u^2 and half a cosine."""
    config = ScheduleConfig("wsd", 1.0, decay=0.4, shape=shape, final=0.0)
    assert factors(config, 10, [0.5, 1, 6, 8, 10]) == pytest.approx([0.5, 1, 1, half, 0])
    to_a_fifth = ScheduleConfig("wsd", decay=0.4, shape=shape, final=0.2)
    assert factors(to_a_fifth, 10, [8, 10]) == pytest.approx([0.2 + 0.8 * half, 0.2])


@pytest.mark.parametrize(
    "config",
    [
        ScheduleConfig(), ScheduleConfig("cosine"), ScheduleConfig("cosine", final=0.5), ScheduleConfig("one_cycle"),
        ScheduleConfig("linear", 1.0, final=0.25), ScheduleConfig("wsd", final=0.125), ScheduleConfig("step"),
    ],
)  # fmt: skip
def test_where_a_schedule_ends_is_known_without_it(config):
    assert config.end == pytest.approx(factors(config, 8, [8])[0])


def test_a_cosine_ends_at_its_final_factor():
    assert factors(ScheduleConfig("cosine", final=0.5), 4, [0, 2, 4]) == pytest.approx([1, 0.75, 0.5])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"name": "cosine", "decay": 0.2},
            "optimizer.schedule.decay must be null for cosine, which takes final, got 0.2",
        ),
        ({"name": "constant", "gamma": 0.1}, "optimizer.schedule.gamma must be null for constant, which takes nothing"),
        ({"name": "step", "milestones": [0.7, 0.3]}, "optimizer.schedule.milestones must increase"),
        ({"name": "step", "milestones": [1]}, "optimizer.schedule.milestones[0] must be a share below 1, got 1"),
        ({"name": "one_cycle", "warmup_epochs": 1}, "optimizer.schedule.warmup_epochs must be 0 for one_cycle, got 1"),
        ({"name": "cosin"}, "optimizer.schedule.name must be one of constant, cosine"),
        ({"name": "wsd", "decay": 0}, "optimizer.schedule.decay must be above 0, got 0"),
    ],
)
def test_schedules_refuse_what_is_not_theirs(values, message):
    with pytest.raises(ConfigError) as caught:
        from_mapping(ScheduleConfig, "optimizer.schedule", values)
    assert str(caught.value).startswith(message)


def test_a_decay_must_leave_the_warm_up():
    with pytest.raises(
        ConfigError, match=r"optimizer\.schedule\.decay must leave the warm-up of 6 epochs, at most 0.4"
    ):
        schedule(ScheduleConfig("wsd", 6.0, decay=0.5), 10)


def test_the_earlier_name_of_a_constant_rate_is_known():
    assert ScheduleConfig("none") == ScheduleConfig("constant")
