"""Recalibrated running statistics: of images rather than batches, of every norm that has them, or refused by name."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import timm
import torch
from command import here
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import EvoNorm2dB0, EvoNorm2dB1, EvoNorm2dB2, FilterResponseNormAct2d
from torch import nn

from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.problem.images import ImageSet, batch_ranges
from harness.problem.running_norms import ChangedBuffers, not_recalibrated
from harness.problem.splits import load_split
from harness.training import evaluate
from harness.training.evaluate import Evaluator, recalibrate
from harness.training.loop import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

CHANNELS = 3
CPU = torch.device("cpu")


def images_of(count, pixels=2, seed=0):
    """Noise whose brightness grows from one image to the next, so that no two batches have the same mean."""
    noise = torch.randint(0, 60, (count, CHANNELS, pixels, pixels), generator=torch.Generator().manual_seed(seed))
    brighter = torch.linspace(0, 190, count).long().view(-1, 1, 1, 1)
    return ImageSet((noise + brighter).to(torch.uint8), torch.zeros(count).long(), (0.0,) * 3, (1.0,) * 3)


def recalibrated(norm, images):
    """The norm after recalibration, as training on something else has left it."""
    norm.train()
    norm(5 * torch.randn(4, CHANNELS, 2, 2))
    before = norm.momentum
    recalibrate(norm, images, torch.contiguous_format)
    assert norm.momentum == before
    assert not norm.training
    return norm


@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 40), batch=st.integers(2, 45))
def test_the_running_mean_is_the_mean_of_the_images(count, batch):
    """Whatever batches they come in: an average of equally weighted batches would be another number."""
    images = images_of(count, pixels=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "RECALIBRATION_BATCH", batch)
        norm = recalibrated(nn.BatchNorm2d(CHANNELS), images)
    torch.testing.assert_close(norm.running_mean, images.images_B.double().div(255).mean((0, 2, 3)).float())


@given(images=st.integers(1, 400), batch_size=st.integers(1, 100))
def test_no_single_image_is_left_over(images, batch_size):
    """Every image is in one batch, in order; full ones are of the size asked for."""
    ranges = batch_ranges(images, batch_size)
    assert [index for one in ranges for index in one] == list(range(images))
    assert all(len(one) == batch_size for one in ranges[:-1])
    assert len(ranges[-1]) <= batch_size + (batch_size > 1)
    assert len(ranges[-1]) > 1 or batch_size == 1 or images == 1


@pytest.fixture(scope="module")
def trained():
    """The state of a base after one epoch on a few digits, and an evaluator that recalibrates it on 258 of them."""
    asked = ("dataset=digits", "method=base", "fast=true", "device=cpu", "evaluate.recalibrate_images=258")
    found = resolve(Request(asked), "test")
    base = found.bases[0][0]
    images = load_split(base.dataset, "train")
    trainer = Trainer(base, images, CPU)
    trainer.train_epoch()
    return Evaluator(base, found.evaluate, images, CPU), trainer.snapshot()


def loss_of(evaluator, snapshot):
    return evaluator.evaluate(snapshot, None, "recalibrate", ("val",))["val_loss"]


@settings(max_examples=5, deadline=None)
@given(batch_size=st.integers(1, 300))
def test_how_many_are_evaluated_at_once_changes_no_number(trained, batch_size):
    evaluator, snapshot = trained
    before, evaluator.config = evaluator.config, replace(evaluator.config, batch_size=batch_size)
    found, evaluator.config = loss_of(evaluator, snapshot), before
    assert found == pytest.approx(loss_of(evaluator, snapshot), rel=1e-4)


def test_two_images_too_many_count_as_two_of_258(trained):
    """The statistics stay near those of the 256 before; as a batch that counts like any other they moved them far."""
    evaluator, snapshot = trained
    whole = copy.copy(evaluator)
    whole._recalibration = evaluator._recalibration.subset(torch.arange(256))
    assert loss_of(evaluator, snapshot) == pytest.approx(loss_of(whole, snapshot), rel=0.02)


def test_a_norm_that_is_applied_twice_averages_both():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(CHANNELS)

        def forward(self, x):
            return self.norm(x) + self.norm(3 * x)

    net, images = Twice(), images_of(10)
    recalibrate(net, images, torch.contiguous_format)
    mean_C = images.images_B.double().div(255).mean((0, 2, 3)).float()
    torch.testing.assert_close(net.norm.running_mean, 2 * mean_C)


@pytest.mark.parametrize("kind", [EvoNorm2dB0, EvoNorm2dB1, EvoNorm2dB2])
def test_evonorm_is_recalibrated_too(kind):
    """Its running variance is that of the images, which were one batch, and not of what it was trained on."""
    images = images_of(20)
    norm = recalibrated(kind(CHANNELS), images)
    expected = images.images_B.double().div(255).transpose(0, 1).reshape(CHANNELS, -1).var(1)
    torch.testing.assert_close(norm.running_var, expected.float())


def test_instance_norm_with_statistics_is_recalibrated_too():
    images = images_of(20)
    norm = recalibrated(nn.InstanceNorm2d(CHANNELS, track_running_stats=True), images)
    torch.testing.assert_close(norm.running_mean, images.images_B.double().div(255).mean((0, 2, 3)).float())


class Own(nn.Module):
    """A norm of one's own that keeps a running mean square."""

    def __init__(self):
        super().__init__()
        self.register_buffer("square", torch.ones(CHANNELS))
        self.register_buffer("steps", torch.zeros(()).long())

    def step(self, new_C):
        self.square.mul_(0.9).add_(0.1 * new_C)

    def forward(self, x):
        if self.training:
            self.steps += 1
            self.step(x.detach().square().mean((0, 2, 3)))
        return x / self.square.view(1, -1, 1, 1).sqrt()


class Replacing(Own):
    def step(self, new_C):
        self.square = 0.9 * self.square + 0.1 * new_C


class Unseen(Own):
    def step(self, new_C):
        self.square.data.mul_(0.9).add_(0.1 * new_C)


class Moving(Own):
    def step(self, new_C):
        self.square.data = 0.9 * self.square + 0.1 * new_C


class Foreach(Own):
    def step(self, new_C):
        torch._foreach_lerp_([self.square], [new_C], 0.1)


class Functional(Own):
    def forward(self, x):
        return torch.nn.functional.batch_norm(x, torch.zeros_like(self.square), self.square, training=self.training)


class Constant(Own):
    """What it holds never changes, but for its count of steps, which is no statistic."""

    def step(self, new_C):
        pass


class Frozen(Own):
    """Constants in torch's own function."""

    def forward(self, x):
        return torch.nn.functional.batch_norm(x, torch.zeros_like(self.square), self.square, training=False)


class Cached(Own):
    """What it holds follows from the shape of its images, and is made with the first of them."""

    def step(self, new_C):
        if not hasattr(self, "seen"):
            self.seen, self.square = True, torch.ones(CHANNELS)


def first_changed(norm):
    with torch.device("meta"):
        net = nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.Sequential(norm())).train()
        net(torch.empty(2, CHANNELS, 4, 4))
        with ChangedBuffers(net) as changed:
            net(torch.empty(2, CHANNELS, 4, 4))
    return not_recalibrated(net, changed)


@pytest.mark.parametrize("norm", [Own, Replacing, Unseen, Moving, Foreach, Functional])
def test_a_norm_that_cannot_be_recalibrated_is_named(norm):
    assert first_changed(norm) == f"1.0 ({norm.__name__})"


@pytest.mark.parametrize(
    "norm", [Constant, Frozen, Cached, lambda: EvoNorm2dB0(CHANNELS), lambda: FilterResponseNormAct2d(CHANNELS)]
)
def test_a_norm_without_other_statistics_is_not_named(norm):
    assert first_changed(norm) is None


@timm.models.register_model
def net_of_ones_own(pretrained=False, in_chans=3, num_classes=10, **_):
    return nn.Sequential(
        nn.Conv2d(in_chans, CHANNELS, 3), Own(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, num_classes)
    )


def test_what_cannot_be_recalibrated_is_refused_before_training(tmp_path):
    asked = ("dataset=digits", "model=net_of_ones_own", "fast=true", "tracker=none")
    done = here("run", *asked, "method=[base,base_recalibrated]", results=tmp_path / "results", code=2)
    assert done.stderr == (
        "error: method.base_recalibrated.batchnorm must be as_is for model net_of_ones_own, as training changes "
        "buffers of 1 (Own), which cannot be recalibrated, got recalibrate\n"
    )
    assert not (tmp_path / "results" / "bases").exists()
    here("plan", *asked, "method=[base]", results=tmp_path / "results")
    here("plan", *asked, "method=[swa]", "method.swa.batchnorm=as_is", results=tmp_path / "results")
