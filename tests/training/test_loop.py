"""The loop, its resume, evaluation and a brancher's session, on a few digits."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from harness.method import Branch, Proposal
from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.problem.splits import load_split
from harness.snapshots import MemoryTrajectory, tensors_of
from harness.storage.tensors import digest_tensor, read_state, write_state
from harness.training.clock import Clock
from harness.training.evaluate import Evaluator
from harness.training.loop import Diverged, Trainer
from harness.training.session import BranchSession

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
TINY = ("dataset=digits", "method=base", "fast=true", "device=cpu")


def base_of(*overrides):
    study = resolve(Request((*TINY, *overrides)), "test")
    return study.bases[0][0], study.evaluate


@pytest.fixture(scope="module")
def images():
    return load_split(base_of()[0].dataset, "train")


def trainer_of(images, *overrides):
    return Trainer(base_of(*overrides)[0], images, CPU)


@pytest.mark.parametrize(
    "overrides",
    [
        ("optimizer=sgd_momentum",),
        ("optimizer=adam",),
        ("optimizer=sgd_momentum_schedule", "optimizer.sgd_momentum_schedule.schedule.warmup_epochs=2"),
        ("model.test_resnet.drop_rate=0.5",),
        # dropout inside its units
        pytest.param(("model=wide_resnet28_10", "batch_size=4", "batches_per_epoch=1"), marks=pytest.mark.long),
    ],
)
def test_resume_from_a_stored_state_has_the_same_bits(images, tmp_path, overrides):
    straight, halted = trainer_of(images, *overrides), trainer_of(images, *overrides)
    rows = [straight.train_epoch() for _ in range(4)]
    for _ in range(2):
        halted.train_epoch()
    write_state(tmp_path / "state", halted.state_dict())
    torch.rand(5)  # whatever happens between must not matter
    resumed = trainer_of(images, *overrides)
    resumed.load_state_dict(read_state(tmp_path / "state"))
    assert [resumed.train_epoch() for _ in range(2)] == rows[2:]
    assert torch.equal(resumed.flat.theta_N, straight.flat.theta_N)
    for name, buffer in straight.flat.buffers.items():
        assert torch.equal(resumed.flat.buffers[name], buffer)
    assert resumed.counts == straight.counts


def test_training_is_what_a_plain_loop_does(images):
    """Same initial weights and batches through torch's own optimizer on the bare module."""
    trainer, plain = trainer_of(images), trainer_of(images)
    trainer.train_epoch()
    optimizer = torch.optim.SGD(plain.model.parameters(), lr=0.05, momentum=0.9)
    plain.model.train()
    losses = []
    for batch in images.train_batches(32, 0, 0, True, torch.channels_last, 3):
        optimizer.zero_grad()
        loss = cross_entropy(plain.model(batch.images_B), batch.labels_B)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert torch.equal(trainer.flat.theta_N, plain.flat.theta_N)
    assert trainer.counts.gradients_full == trainer.counts.forward_passes == 3 * 32


def test_seeds_give_different_runs_and_zero_is_a_seed(images):
    digests = {digest_tensor(trainer_of(images, f"seeds=[{seed}]").flat.theta_N) for seed in (0, 1, 0)}
    assert len(digests) == 2


def test_a_loss_that_is_not_finite_diverges(images):
    trainer = trainer_of(images, "optimizer.sgd_momentum.lr=1e30")
    with pytest.raises(Diverged, match="not finite in epoch 1"):
        trainer.train_epoch()


def test_recalibration_gives_the_mean_of_batch_statistics(images):
    base, config = base_of("evaluate.recalibrate_images=96", "evaluate.batch_size=32")
    evaluator = Evaluator(base, config, images, CPU)
    trainer = trainer_of(images)
    trainer.train_epoch()
    model = evaluator.prepare(trainer.snapshot(), None, "recalibrate")
    norm = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen = []
    hook = norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].mean((0, 2, 3))))
    with torch.no_grad():
        for batch, _ in evaluator._recalibration.batches(32):
            model(batch)
    hook.remove()
    assert len(seen) == 3
    assert torch.allclose(norm.running_mean, torch.stack(seen).mean(0), atol=1e-5)
    assert not model.training


def test_evaluation_is_the_plain_mean_and_leaves_training_alone(images):
    base, config = base_of()
    evaluator = Evaluator(base, config, images, CPU)
    trainer = trainer_of(images)
    trainer.train_epoch()
    before = digest_tensor(trainer.flat.theta_N), {n: digest_tensor(b) for n, b in trainer.flat.buffers.items()}
    row = evaluator.evaluate(trainer.snapshot(), None, "as_is", ("val", "test"))
    validation = load_split(base.dataset, "val")
    trainer.model.eval()
    with torch.no_grad():
        logits = trainer.model(validation.normalise(validation.images_B))
    assert row["val_accuracy"] == pytest.approx(100 * (logits.argmax(1) == validation.labels_B).float().mean().item())
    assert row["val_loss"] == pytest.approx(cross_entropy(logits, validation.labels_B).item(), rel=1e-5)
    evaluator.evaluate(trainer.snapshot(), Proposal(torch.zeros_like(trainer.flat.theta_N)), "recalibrate", ("val",))
    assert before == (
        digest_tensor(trainer.flat.theta_N),
        {n: digest_tensor(b) for n, b in trainer.flat.buffers.items()},
    )


def test_weights_that_are_not_finite_have_no_metrics(images):
    base, config = base_of()
    trainer = trainer_of(images)
    broken = Proposal(torch.full_like(trainer.flat.theta_N, math.inf))
    row = Evaluator(base, config, images, CPU).evaluate(trainer.snapshot(), broken, "recalibrate", ("val",))
    assert all(math.isnan(value) for value in row.values())


def test_without_the_handle_there_is_no_test_split(images):
    base, config = base_of()
    evaluator = Evaluator(base, config, images, CPU, with_test=False)
    with pytest.raises(KeyError):
        evaluator.evaluate(trainer_of(images).snapshot(), None, "as_is", ("test",))


@pytest.fixture
def session(images):
    trainer = trainer_of(images, "model.test_resnet.drop_rate=0.5")
    return BranchSession(trainer, Branch(0, 0, 6), MemoryTrajectory.of([]), Clock(CPU), "full")


def test_one_batch_means_the_same_function_at_every_point(session):
    batch = next(session.batches(16))
    first = session.loss(batch)
    torch.rand(3)
    assert session.loss(batch) == first == pytest.approx(session.gradient(batch)[0])
    other = next(session.batches(16, augment=False))
    session.loss(other)
    assert session.loss(batch) == first


def test_gradient_is_that_of_the_loss(session):
    batch = next(session.batches(32))
    loss, g_N = session.gradient(batch)
    direction_N = g_N / g_N.norm()
    centre_N, step = session.theta_N.clone(), 1e-3
    values = []
    for sign in (1, -1):
        session.theta_N = centre_N + sign * step * direction_N
        values.append(session.loss(batch))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(g_N.norm().item(), rel=0.05)
    assert loss == pytest.approx(sum(values) / 2, rel=0.01)


def test_passes_of_a_session_are_counted_and_leave_no_trace(session):
    buffers = {name: buffer.clone() for name, buffer in session.buffers.items()}
    stream = torch.random.get_rng_state()
    batch = next(session.batches(16))
    session.loss(batch)
    session.gradient(batch)
    probe = session.probe_loss()
    assert session.probe_loss() == probe
    assert all(torch.equal(buffers[name], buffer) for name, buffer in session.buffers.items())
    assert torch.equal(torch.random.get_rng_state(), stream)
    counts = session._trainer.counts
    assert counts.gradients_full == 16
    assert counts.forward_passes == 2 * 16 + 2 * 512


def test_a_new_optimizer_follows_its_own_schedule(session):
    rates = []
    session.new_optimizer(torch.optim.SGD, schedule=lambda e: 0.1 if e > 1 else 1.0, lr=0.5)
    for _ in range(2):
        session.train_epoch(after_step=lambda: rates.append(session.optimizer.param_groups[0]["lr"]))
    assert rates == pytest.approx([0.5, 0.5, 0.5, 0.05, 0.05, 0.05])


def test_a_new_schedule_starts_at_the_present_rate_and_keeps_the_state(session):
    """Momentum of before goes on; the factor counts epochs from the call on, and its first step is not lost."""
    session.train_epoch()
    momentum = [state["momentum_buffer"].clone() for state in session.optimizer.state.values()]
    session.optimizer.param_groups[0]["lr"] = 0.04
    rates, session.begun = [], False
    session.set_schedule(lambda e: 1 - e / 2)
    kept = [state["momentum_buffer"] for state in session.optimizer.state.values()]
    assert all(torch.equal(before, now) for before, now in zip(momentum, kept, strict=True))
    for _ in range(2):
        session.train_epoch(after_step=lambda: rates.append(session.optimizer.param_groups[0]["lr"]))
    assert rates == pytest.approx([0.04 * (1 - step / 6) for step in range(1, 7)])
    session.begun = True
    with pytest.raises(RuntimeError, match="set_schedule may be called in begin only"):
        session.set_schedule(lambda e: 1.0)


def reached(convolution, height):
    """Which taps of a kernel ever meet an image of this height at all, the rest only its padding; (k, k) bool."""
    (kernel, _), (stride, _), (padding, _) = convolution.kernel_size, convolution.stride, convolution.padding
    outputs = (height + 2 * padding - kernel) // stride + 1
    taps = [any(0 <= o * stride + tap - padding < height for o in range(outputs)) for tap in range(kernel)]
    return torch.tensor([[row and column for column in taps] for row in taps])


def test_weights_that_only_meet_padding_are_seen_to_have_no_gradient(images):
    """On maps of 1 x 1 eight of nine taps of a 3 x 3 kernel meet zeros alone. Few others may be without one: of units
    that no image of an epoch woke."""
    trainer, sizes = trainer_of(images), {}
    for name, module in trainer.model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(lambda m, inputs, n=name: sizes.update({n: (m, inputs[0].shape[-1])}))
    assert not trainer.moving_N.any()
    trainer.train_epoch()
    moving = dict(zip(trainer.flat.layout.names, tensors_of(trainer.moving_N, trainer.flat.layout), strict=True))
    dead = 0
    for name, (convolution, height) in sizes.items():
        alive = reached(convolution, height).expand_as(moving[f"{name}.weight"])
        assert not (moving[f"{name}.weight"] & ~alive).any()
        assert moving[f"{name}.weight"][alive].float().mean() > 0.9
        dead += int((~alive).sum())
    assert dead > 0.3 * trainer.flat.layout.N
    again = trainer_of(images)
    again.load_state_dict(trainer.state_dict())
    assert torch.equal(again.moving_N, trainer.moving_N)


def test_the_images_that_were_right_are_those_that_the_accuracy_counts(images):
    base, config = base_of()
    trainer, evaluator = trainer_of(images), Evaluator(base, config, images, CPU)
    row = evaluator.evaluate(trainer.snapshot(), None, "as_is", ("val", "test"))
    test = load_split(base.dataset, "test")
    with torch.no_grad():
        scores_BC = trainer.model.eval()((test.images_B.float() / 255 - test.mean[0]) / test.std[0])
    right = scores_BC.argmax(1) == test.labels_B
    assert (evaluator.test_correct != right).sum() <= 1  # other batches round differently
    assert row["test_accuracy"] == pytest.approx(100 * evaluator.test_correct.double().mean().item())


def test_phases_of_the_clock_are_exclusive(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = Clock(CPU)
    with clock.phase("train"):
        now[0] += 2
        with clock.phase("method", in_step=True):
            now[0] += 5
        now[0] += 1
        with clock.phase("method"):
            now[0] += 7
    assert clock.seconds == {"train": 3.0, "method": 12.0}
