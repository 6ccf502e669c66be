"""Weights put into a model, and running statistics made to fit them."""

import random

import numpy as np
import pytest
import torch
from timm.layers import EvoNorm2dB0
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from harness.snapshots import weights_of
from harness.weights import kept, load_weights, recalibrate, undisturbed


class Tied(nn.Module):
    """A frozen layer, two that share their weights, a 0-d parameter, and another type."""

    def __init__(self):
        super().__init__()
        self.frozen, self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.last.weight = self.first.weight
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.coarse = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
        self.frozen.requires_grad_(False)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2))


def test_loading_is_the_inverse_of_taking_out():
    model = Tied()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    theta_N = torch.arange(20.0)
    load_weights(model, theta_N)
    assert torch.equal(weights_of(model), theta_N)
    assert model.last.weight is model.first.weight
    assert torch.equal(model.frozen.weight, before["frozen.weight"])
    load_weights(model, (theta_N / 2).double().numpy())
    assert torch.equal(weights_of(model), theta_N / 2)


@pytest.mark.parametrize(
    ("theta_N", "said"),
    [
        (torch.zeros(21), r"theta_N must have shape \(20,\), as the model's weights, got \(21,\)"),
        (torch.zeros(1, 20), r"got \(1, 20\)"),
        (torch.zeros(20, dtype=torch.int64), "theta_N must be floating-point numbers, got torch.int64"),
    ],
)
def test_weights_that_do_not_fit(theta_N, said):
    with pytest.raises(ValueError, match=said):
        load_weights(Tied(), theta_N)


def test_what_a_block_changes_is_put_back():
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def spoil():
        with kept(model):
            load_weights(model, torch.full_like(weights_of(model), torch.nan))
            model(torch.randn(8, 4))
            model[1].running_mean = torch.ones(6)
            raise KeyError

    running_mean = model[1].running_mean
    with pytest.raises(KeyError):
        spoil()
    assert model[1].running_mean is running_mean
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def draws():
    return random.random(), np.random.random(), torch.rand(1).item()


def test_evaluation_disturbs_no_stream_and_no_mode():
    model = network()
    model[3].eval()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = draws()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with undisturbed(model):
        model.eval()
        model[0].train()
        list(DataLoader(TensorDataset(torch.zeros(4, 4)), shuffle=True))
        assert draws() != first
    assert draws() == first
    assert [module.training for module in model] == [True, True, True, False, True]


def forms(x, y):
    yield lambda part: (x[part], y[part])
    yield lambda part: [x[part]]
    yield lambda part: x[part]
    yield lambda part: {"input": x[part]}


@pytest.mark.parametrize("form", range(4))
def test_statistics_are_averages_over_images(form):
    """Means of batches weigh by their images, so that they are the mean of all; dropout is off before the norm."""
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3, momentum=0.7))
    torch.manual_seed(0)
    x, y = torch.randn(10, 3) * 3 + 1, torch.zeros(10)
    made = list(forms(x, y))[form]
    model[1].running_mean.fill_(99)
    recalibrate(model, [made(slice(0, 7)), made(slice(7, 10))])
    torch.testing.assert_close(model[1].running_mean, x.mean(0))
    expected = 0.7 * x[:7].var(0) + 0.3 * x[7:].var(0)
    torch.testing.assert_close(model[1].running_var, expected)
    assert model[1].momentum == 0.7
    assert model.training
    assert model[1].training


def test_norms_of_timm_are_recalibrated_too():
    """EvoNorm-B0 keeps a variance that is biased."""
    norm = EvoNorm2dB0(2)
    torch.manual_seed(0)
    x = torch.randn(6, 2, 3, 3)
    recalibrate(nn.Sequential(norm), [x[:2], x[2:]])
    n = 9
    parts = [part.transpose(0, 1).reshape(2, -1).var(1, unbiased=False) for part in (x[:2], x[2:])]
    held = [part * len(images) * n / (len(images) * n - 1) for part, images in zip(parts, (x[:2], x[2:]), strict=True)]
    torch.testing.assert_close(norm.running_var, held[0] / 3 + held[1] * 2 / 3)


def test_images_pass_as_the_user_says():
    model = network()
    recalibrate(model, [("names", torch.randn(8, 4))], forward=lambda model, batch: model(batch[1]))
    assert model[1].num_batches_tracked == 1


def test_a_model_without_statistics_is_left_alone():
    recalibrate(nn.Linear(2, 2), iter(()))


def test_statistics_stay_where_nothing_comes():
    model = network()
    model[1].running_mean.fill_(3)
    with pytest.raises(ValueError, match="loader must give at least 1 batch, got 0"):
        recalibrate(model, [])
    with pytest.raises(RuntimeError):
        recalibrate(model, [torch.randn(8, 4), torch.randn(8, 5)])
    assert torch.equal(model[1].running_mean, torch.full((6,), 3.0))
    assert model[1].momentum == 0.1
    assert model.training


def test_recalibration_draws_nothing():
    model = network()
    loader = DataLoader(TensorDataset(torch.randn(16, 4)), batch_size=8, shuffle=True)
    torch.manual_seed(2)
    expected = torch.rand(1)
    torch.manual_seed(2)
    recalibrate(model, loader)
    assert torch.equal(torch.rand(1), expected)
