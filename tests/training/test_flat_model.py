"""theta_N is the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.training.flat_model import FlatModel


class Odd(nn.Module):
    """Tied, 0-d, frozen and convolutional parameters."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 4, bias=False)
        self.tied = nn.Linear(3, 4, bias=False)
        self.tied.weight = self.head.weight
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.frozen = nn.Parameter(torch.ones(5), requires_grad=False)
        self.register_buffer("passing", torch.zeros(2), persistent=False)

    def forward(self, x):
        return self.scale * (self.head(self.norm(self.conv(x)).mean((2, 3))) + self.tied.weight.sum())


def test_layout_names_each_trainable_tensor_once():
    flat = FlatModel(Odd())
    assert set(flat.layout.names) == {"conv.weight", "conv.bias", "norm.weight", "norm.bias", "head.weight", "scale"}
    assert flat.layout.N == 54 + 3 + 3 + 3 + 12 + 1 == len(flat.theta_N)
    assert set(flat.buffers) == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}


def test_views_follow_the_vector_and_the_vector_follows_training():
    model = Odd()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    flat = FlatModel(model)
    for name, offset, size in zip(flat.layout.names, flat.layout.offsets, flat.layout.sizes, strict=True):
        assert torch.equal(flat.theta_N[offset : offset + size], before[name].reshape(-1))
    optimizer = torch.optim.SGD(flat.parameters, lr=0.1)
    model(torch.randn(4, 2, 5, 5)).sum().backward()
    g_N = flat.gradient_N()
    expected_N = flat.theta_N - 0.1 * g_N
    optimizer.step()
    assert torch.allclose(flat.theta_N, expected_N)
    assert torch.equal(model.tied.weight, model.head.weight)
    flat.load(torch.zeros_like(flat.theta_N))
    assert all(not p.any() for p in model.parameters() if p.requires_grad)
    assert model.frozen.all()


def test_channels_last_input_gives_the_same_output():
    torch.manual_seed(0)
    model = Odd().eval()
    x = torch.randn(2, 2, 6, 6)
    expected = model(x)
    FlatModel(model)
    assert torch.allclose(model(x.to(memory_format=torch.channels_last)), expected, atol=1e-6)


def test_what_does_not_fit_is_refused():
    flat = FlatModel(Odd())
    with pytest.raises(ValueError, match="theta_N must have 76 values"):
        flat.load(torch.zeros(3))
    with pytest.raises(ValueError, match="buffers must be"):
        flat.load(buffers={"norm.running_mean": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"scale must be float32, got torch\.float64"):
        FlatModel(nn.ParameterDict({"scale": nn.Parameter(torch.tensor(1.0, dtype=torch.float64))}))
    with pytest.raises(ValueError, match="model must have at least 1 trainable weight, got 0"):
        FlatModel(nn.Identity())
