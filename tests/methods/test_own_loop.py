"""Averages in anyone's loop: against torch.optim.swa_utils where they overlap, and against sums elsewhere."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from baselines.averages import EMA, LAWA, PostHocEMA, PowerEMA, TwoTailed, UniformMean
from baselines.power_profile import exponent
from harness.snapshots import weights_of


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def trained(model, updates, *averages, others=()):
    """Train a little; the weights after every step."""
    optimizer, rng = torch.optim.SGD(model.parameters(), lr=0.1), torch.Generator().manual_seed(1)
    states = []
    for _ in range(updates):
        optimizer.zero_grad()
        x = torch.randn(16, 4, generator=rng)
        (model(x) - x[:, :2]).square().mean().backward()
        optimizer.step()
        states.append(weights_of(model))
        for average in averages:
            average.update()
        for other in others:
            other.update_parameters(model)
    return torch.stack(states).double().numpy()


def test_the_uniform_mean_is_torchs():
    model = make_model()
    average, theirs = UniformMean(model), AveragedModel(model)
    trained(model, 12, average, others=[theirs])
    torch.testing.assert_close(average.weights(), weights_of(theirs.module), rtol=1e-6, atol=1e-7)


def test_the_exponential_average_is_torchs_but_for_the_first_snapshot():
    """Theirs counts the first update d^(n-1), ours (1 - d) d^(n-1) and all by 1 / (1 - d^n)."""
    model, half_life = make_model(), 3.0
    d = 0.5 ** (1 / half_life)
    average, theirs = EMA(model, half_life), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(d))
    states_TN = trained(model, 12, average, others=[theirs])
    n = len(states_TN)
    expected_N = (1 - d**n) * average.weights().double().numpy() + d**n * states_TN[0]
    np.testing.assert_allclose(weights_of(theirs.module).numpy(), expected_N, rtol=1e-5, atol=1e-6)


def test_torchs_averaged_model_with_the_power_function_is_ours():
    model, sigma = make_model(), 0.1
    g = exponent(sigma)

    def power(averaged, present, updated):
        beta = (1 - 1 / (updated + 1)) ** (g + 1)
        return beta * averaged + (1 - beta) * present

    average, theirs = PowerEMA(model, sigma), AveragedModel(model, avg_fn=power)
    trained(model, 15, average, others=[theirs])
    torch.testing.assert_close(average.weights(), weights_of(theirs.module), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("k", "every"), [(3, 1), (3, 4)])
def test_the_latest_weights_are_averaged(k, every):
    model = make_model()
    average = LAWA(model, k, every)
    states_TN = trained(model, 14, average)
    taken = [step for step in range(1, 15) if step % every == 0][-k:]
    np.testing.assert_allclose(average.weights().numpy(), states_TN[np.array(taken) - 1].mean(0), rtol=1e-5, atol=1e-6)


def test_a_width_can_be_chosen_when_training_is_over():
    model = make_model()
    narrow, wide, average = PowerEMA(model, 0.05), PowerEMA(model, 0.10), PostHocEMA(model, every=4)
    trained(model, 20, narrow, wide, average)
    for tracked, sigma in ((narrow, 0.05), (wide, 0.10)):
        torch.testing.assert_close(average.weights(sigma), tracked.weights(), rtol=1e-5, atol=1e-6)
    with average.applied() as target:
        torch.testing.assert_close(weights_of(target), average.weights(0.075))


def test_two_tailed_asks_for_the_loss_of_its_averages_alone():
    """The loss sees averages in the model, which has its own weights again afterwards; the average that stands is the
    best by that loss of those seen last."""
    model, seen = make_model(), []

    def loss(target):
        seen.append(weights_of(target))
        return float(weights_of(target).norm())

    average = TwoTailed(model, loss, every=5)
    states_TN = trained(model, 30, average)
    assert len(seen) >= 6
    np.testing.assert_allclose(seen[0].numpy(), states_TN[:5].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(weights_of(model).double().numpy(), states_TN[-1])
    assert average.weights().shape == seen[0].shape


@pytest.mark.parametrize(
    "make",
    [
        UniformMean,
        lambda model: EMA(model, 4),
        PowerEMA,
        lambda model: LAWA(model, 3, 2),
        lambda model: PostHocEMA(model, 5),
        lambda model: TwoTailed(model, lambda target: float(weights_of(target).norm()), 5),
    ],
)
def test_the_model_is_as_before_and_an_average_goes_on_from_its_state(make):
    model = make_model()
    average, behind = make(model), make(model)
    trained(model, 13, average)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with average.applied() as target:
        assert target is model
        assert torch.equal(weights_of(model), average.weights())
        update_bn([torch.randn(16, 4)], model)
    with pytest.raises(ZeroDivisionError), average.applied():
        1 / 0  # noqa: B018
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    behind.load_state_dict(average.state_dict())
    trained(model, 9, average, behind)
    assert torch.equal(behind.weights(), average.weights())


def test_another_model_of_the_same_layout_can_hold_the_average():
    model, copy = make_model(), make_model()
    average = UniformMean(model)
    trained(model, 5, average)
    with average.applied(copy):
        assert torch.equal(weights_of(copy), average.weights())
    with pytest.raises(ValueError, match=r"parameter 1\.weight must"), average.applied(nn.Sequential(nn.Linear(2, 2))):
        pass


def test_a_parameter_that_is_frozen_half_way_is_named():
    model = make_model()
    average = UniformMean(model)
    model[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"parameter 0\.weight must stay trainable, got requires_grad=False"):
        average.update()
