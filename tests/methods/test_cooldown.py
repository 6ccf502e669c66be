"""The decay branched off from a base: where it starts, its rates, and that it is the schedule that a base can have."""

import copy
import math

import pytest
import torch

from baselines.cooldown import SHAPES, Cooldown
from harness.method import Branch
from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.problem.splits import load_split
from harness.snapshots import MemoryTrajectory
from harness.training.clock import Clock
from harness.training.loop import Trainer
from harness.training.session import BranchSession

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
EPOCHS, DECAY = 6, 0.5
TINY = ("dataset=digits", "method=base", "fast=true", "device=cpu", "model.test_resnet.drop_rate=0.1")


def base_of(optimizer, *overrides):
    return resolve(Request((*TINY, f"optimizer={optimizer}", *overrides)), "test").bases[0][0]


@pytest.fixture(scope="module")
def images():
    return load_split(base_of("sgd_momentum").dataset, "train")


@pytest.fixture(scope="module")
def starts(images):
    """The state of a base after half of its epochs, trained once for each optimizer."""
    made = {}

    def start(optimizer):
        if optimizer not in made:
            trainer = Trainer(base_of(optimizer), images, CPU)
            for _ in range(EPOCHS // 2):
                trainer.train_epoch()
            made[optimizer] = trainer.state_dict()
        return made[optimizer]

    return start


def cooled(optimizer, images, start, shape):
    """The branch's session and its rates at the ends of epochs."""
    trainer = Trainer(base_of(optimizer), images, CPU)
    trainer.load_state_dict(copy.deepcopy(start))
    method = Cooldown(DECAY, shape)
    session = BranchSession(trainer, method.branch(EPOCHS), MemoryTrajectory.of([]), Clock(CPU), method.gradient_space)
    method.begin(session)
    session.begun = True
    rates = []
    while trainer.t < EPOCHS:
        t = trainer.t
        method.train_epoch(session)
        rates.append(session.last_row["lr"])
        trainer.t = t + 1
    return session, rates


@pytest.mark.parametrize(("optimizer", "shape"), [*(("sgd_momentum", shape) for shape in SHAPES), ("adam", "sqrt")])
def test_from_a_constant_rate_it_is_a_base_with_that_schedule_to_the_last_bit(images, starts, optimizer, shape):
    """Weights and buffers after the same epochs of the same batches, momentum and moments carried over."""
    session, _ = cooled(optimizer, images, starts(optimizer), shape)
    schedule = f"optimizer.{optimizer}.schedule={{name: wsd, warmup_epochs: 0, decay: {DECAY}, shape: {shape}}}"
    annealed = Trainer(base_of(optimizer, schedule), images, CPU)
    for _ in range(EPOCHS):
        annealed.train_epoch()
    assert torch.equal(session.theta_N, annealed.flat.theta_N)
    for name, buffer in session.buffers.items():
        assert torch.equal(buffer, annealed.flat.buffers[name]), name


@pytest.mark.parametrize(
    ("shape", "factors"),
    [
        ("linear", [2 / 3, 1 / 3, 0]),
        ("sqrt", [1 - math.sqrt(1 / 3), 1 - math.sqrt(2 / 3), 0]),
        ("square", [8 / 9, 5 / 9, 0]),
        ("cosine", [0.75, 0.25, 0]),
    ],
)
def test_rates_at_the_ends_of_epochs(images, starts, shape, factors):
    lr = starts("sgd_momentum")["optimizer"]["param_groups"][0]["lr"]
    _, rates = cooled("sgd_momentum", images, starts("sgd_momentum"), shape)
    assert rates == pytest.approx([lr * factor for factor in factors], abs=1e-12)


def test_of_a_base_that_anneals_the_decay_comes_on_top(images, starts):
    """Half of a cosine leaves half of the rate; from there the line falls to 0."""
    optimizer = "sgd_momentum_cosine"
    session, rates = cooled(optimizer, images, starts(optimizer), "linear")
    lr = base_of(optimizer).optimizer.params["lr"]
    assert rates == pytest.approx([lr / 2 * factor for factor in (2 / 3, 1 / 3, 0)], abs=1e-12)
    assert session.theta_N.isfinite().all()


@pytest.mark.parametrize(
    ("decay", "epochs", "start", "own"), [(0.2, 20, 16, 4), (0.2, 6, 5, 1), (0.05, 60, 57, 3), (0.99, 5, 0, 5)]
)
def test_it_starts_where_whole_epochs_are_left_and_is_charged_all(decay, epochs, start, own):
    method = Cooldown(decay)
    assert method.branch(epochs) == Branch(start=start, prefix=start, epochs=own)
    assert method.needs(epochs) is None
    assert start + own == epochs


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cooldown(0), "decay must be above 0 and below 1, got 0"),
        (lambda: Cooldown(1.0), "decay must be above 0 and below 1, got 1.0"),
        (lambda: Cooldown("half"), "decay must be above 0 and below 1, got 'half'"),
        (lambda: Cooldown(shape="step"), "shape must be one of linear, sqrt, square, cosine, got 'step'"),
        (lambda: Cooldown(0.1).needs(4), "decay must leave at least 1 of 4 epochs to train, got 0.1"),
        (lambda: Cooldown(0.1).branch(4), "decay must leave at least 1 of 4 epochs to train, got 0.1"),
    ],
)
def test_bad_values(make, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 the whole message is compared
        make()
    assert str(error.value) == message
