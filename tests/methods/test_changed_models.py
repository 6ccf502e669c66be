"""Models that change half-way in one's own loop, and weights that are no real numbers: the parameter is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from baselines.cmd import CMD, EmbeddedCMD, OnlineCMD, layout_of, weights_of

WARMUP = 3


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


class Online:
    """A loop with online CMD."""

    def __init__(self, model):
        self.model, self.cmd = model, OnlineCMD(model, 2, warmup=WARMUP, samples=20)

    def epoch(self):
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, dtype=parameter.dtype)
        self.cmd.update()


class Embedded:
    """A loop with embedded CMD."""

    def __init__(self, model):
        self.model, self.optimizer = model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        self.cmd = EmbeddedCMD(model, self.optimizer, 2, 20, warmup=WARMUP, every=2, percent=20)

    def epoch(self):
        for parameter in self.model.parameters():
            parameter.grad = torch.randn_like(parameter) if parameter.requires_grad else None
        self.cmd.after_backward()
        self.optimizer.step()
        self.cmd.after_step()
        self.cmd.after_epoch()


def freeze(model):
    model[1].weight.requires_grad_(False)


def freeze_all(model):
    model.requires_grad_(False)


def add(model):
    model.register_parameter("scale", nn.Parameter(torch.ones(2)))


def resize(model):
    model[3].bias.data = torch.ones(4)


def drop(model):
    del model[3].bias
    model[3].register_parameter("bias", None)


def halve(model):
    model.to(torch.bfloat16)


def widen(model):
    model[3].to(torch.float64)


def move(model):
    model[3].to("meta")


CHANGES = [
    (freeze, r"parameter 1\.weight must stay trainable"),
    (freeze_all, r"parameter 0\.weight must stay trainable"),
    (add, r"parameter scale must not be added or freed half-way"),
    (resize, r"parameter 3\.bias must stay of shape \(3,\), got \(4,\)"),
    (drop, r"parameter 3\.bias must stay in the model"),
    (halve, r"parameter 0\.weight must stay torch\.float32 on cpu, got torch\.bfloat16 on cpu"),
    (widen, r"parameter 3\.weight must stay torch\.float32 on cpu, got torch\.float64 on cpu"),
    (move, r"parameter 3\.weight must stay torch\.float32 on cpu, got torch\.float32 on meta"),
]


@pytest.mark.parametrize("epochs", [1, WARMUP + 4])
@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
@pytest.mark.parametrize("kind", [Online, Embedded])
def test_what_changes_half_way_is_named(kind, change, message, epochs):
    loop = kind(net())
    for _ in range(epochs):
        loop.epoch()
    change(loop.model)
    with pytest.raises(ValueError, match=f"^{message}"):
        loop.cmd.update() if kind is Online else loop.cmd.after_epoch()
    if kind is Online:
        with pytest.raises(ValueError, match=f"^{message}"):
            loop.cmd.applied().__enter__()


@pytest.mark.parametrize("change", [freeze, resize, widen])
def test_embedded_weights_are_not_written_into_what_has_changed(change):
    loop = Embedded(net())
    for _ in range(WARMUP + 4):
        loop.epoch()
    assert loop.cmd.embedded > 0
    change(loop.model)
    for step in (loop.cmd.after_backward, loop.cmd.after_step):
        with pytest.raises(ValueError, match=r"^parameter [13]\.\w+ must stay"):
            step()


@pytest.mark.parametrize("kind", [Online, Embedded])
def test_a_frozen_parameter_that_is_freed_is_named(kind):
    model = net()
    freeze(model)
    loop = kind(model)
    loop.epoch()
    model[1].weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"^parameter 1\.weight must not be added or freed half-way"):
        loop.epoch()


def test_another_tensor_in_a_parameter_s_place_is_named():
    loop = Embedded(net())
    loop.epoch()
    loop.model[0].weight = nn.Parameter(torch.ones(5, 4))
    with pytest.raises(ValueError, match=r"^parameter 0\.weight must stay the same tensor"):
        loop.cmd.after_epoch()


def test_a_model_may_be_moved_before_its_first_snapshot():
    """A common order: the model is given to CMD, then cast or moved, then trained."""
    model = net()
    cmd = OnlineCMD(model, 2, warmup=WARMUP, samples=20)
    model.to(torch.float64)
    cmd.update()


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.real = nn.Parameter(torch.ones(3))
        self.turn = nn.Parameter(torch.ones(3, dtype=torch.complex64))


@pytest.mark.parametrize(
    "use",
    [OnlineCMD, weights_of, layout_of, lambda model: EmbeddedCMD(model, torch.optim.SGD(model.parameters(), lr=0.1))],
)
def test_complex_weights_are_refused_by_name(use):
    with pytest.raises(ValueError, match=r"^parameter turn must be .* real .* got torch\.complex64"):
        use(Complex())


def test_modelled_weights_are_not_put_into_complex_ones():
    model = net()
    cmd = OnlineCMD(model, 2, warmup=WARMUP, samples=20)
    with pytest.raises(ValueError, match=r"^parameter 0\.weight must be .* got torch\.complex64"):
        cmd.applied(nn.Sequential(nn.Linear(4, 5, dtype=torch.complex64))).__enter__()
    with pytest.raises(ValueError, match=r"^snapshots must be floating-point numbers, got torch\.complex64"):
        CMD.fit(np.ones((4, 3), np.complex64))


def test_a_complex_buffer_is_not_modelled_in_silence():
    model = net()
    model.register_buffer("phase", torch.ones(2, dtype=torch.complex64))
    OnlineCMD(model)
    with pytest.raises(ValueError, match=r"^buffer phase must hold real numbers where model_buffers is true"):
        OnlineCMD(model, model_buffers=True)


def test_a_lazy_module_has_no_weights_yet():
    with pytest.raises(ValueError, match=r"^parameter weight must have a shape"):
        OnlineCMD(nn.LazyLinear(3))


def test_weights_on_several_devices_are_refused_by_name():
    model = net()
    move(model)
    with pytest.raises(ValueError, match=r"^parameter 3\.weight must be on cpu like those before it, got meta"):
        weights_of(model)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 1.5, True, None])
def test_seeds_that_no_generator_takes_are_refused_at_once(seed):
    model = net()
    for use in (
        lambda: OnlineCMD(model, seed=seed),
        lambda: EmbeddedCMD(model, torch.optim.SGD(model.parameters(), lr=0.1), seed=seed),
        lambda: CMD.fit(torch.randn(4, 30), 2, 20, seed=seed),
    ):
        with pytest.raises(ValueError, match=r"^seed must be"):
            use()


def test_the_state_of_another_model_is_refused():
    loop, other = Embedded(net()), Embedded(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"^state_dict must be of 53 weights, got 6"):
        loop.cmd.load_state_dict(other.cmd.state_dict())
