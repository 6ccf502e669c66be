"""The probe's loss: by hand, the same for all kinds of methods, counted, and out of training's way."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from harness.config import EvaluateConfig
from harness.conformance.jobs import quiet
from harness.conformance.tiny import as_in_a_job, find_subject, recorded
from harness.method import Branch
from harness.problem.splits import load_split
from harness.randomness import generator
from harness.running.jobs import run_job
from harness.snapshots import MemoryTrajectory
from harness.storage.store import Store
from harness.training.clock import Clock
from harness.training.evaluate import Evaluator
from harness.training.loop import Trainer
from harness.training.probe import PROBE_IMAGES
from harness.training.session import BranchSession

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    with as_in_a_job(find_subject("base").base.config):
        yield


def with_probe(size):
    base = recorded().base.config
    return replace(base, dataset=replace(base.dataset, probe_size=size))


def evaluator(base):
    return Evaluator(base, EvaluateConfig(), load_split(base.dataset, "train"), CPU, with_test=False)


@pytest.mark.parametrize("size", [None, 100])
def test_it_is_the_loss_with_the_slices_own_statistics(size):
    """Written out with torch alone: dropout off, norms over the batch, images un-augmented."""
    base = with_probe(size)
    theta_N = recorded().snapshot(6).theta_N
    own = evaluator(base)
    found = own.probe_loss(theta_N)
    trainer = Trainer(base, load_split(base.dataset, "train"), CPU)
    trainer.flat.load(theta_N)
    train = load_split(base.dataset, "train")
    if size is None:
        order = torch.randperm(len(train), generator=generator(base.dataset.split_seed, "probe"))
        images = train.subset(order[:PROBE_IMAGES])
    else:
        images = load_split(base.dataset, "probe")
        assert len(images) == size
    trainer.model.eval()
    for module in trainer.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    ((pixels, labels),) = images.batches(1000, torch.channels_last)
    with torch.no_grad():
        expected = cross_entropy(trainer.model(pixels), labels).item()
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [None, 100])
def test_a_brancher_has_the_same_and_pays_for_it(size):
    base = with_probe(size)
    trainer = Trainer(base, load_split(base.dataset, "train"), CPU)
    session = BranchSession(trainer, Branch(0, 0, 1), MemoryTrajectory.of([]), Clock(CPU), "full")
    before = trainer.flat.copy_buffers(), torch.get_rng_state()
    assert session.probe_loss() == pytest.approx(evaluator(base).probe_loss(session.theta_N), rel=1e-6)
    assert trainer.counts.forward_passes == (PROBE_IMAGES if size is None else size)
    assert torch.equal(torch.get_rng_state(), before[1])
    assert all(torch.equal(buffer, before[0][name]) for name, buffer in trainer.flat.buffers.items())


def test_asking_changes_neither_evaluation_nor_the_random_stream():
    own, snapshot = evaluator(recorded().base.config), recorded().snapshot(6)
    first = own.evaluate(snapshot, None, "as_is", ("val",))
    state, loss = torch.get_rng_state(), own.probe_loss(recorded().snapshot(2).theta_N)
    assert torch.equal(torch.get_rng_state(), state)
    assert own.evaluate(snapshot, None, "as_is", ("val",)) == first
    assert own.probe_loss(recorded().snapshot(2).theta_N) == loss
    assert own.probe_loss(recorded().snapshot(6).theta_N) != loss
    nothing_N = torch.full_like(snapshot.theta_N, float("nan"))
    assert own.probe_loss(nothing_N) != own.probe_loss(nothing_N)


def test_every_call_is_counted():
    """A greedy soup of n snapshots asks for each alone and for n - 1 soups; uniform ones ask for nothing."""
    passes = {}
    for preset in ("greedy_soup", "uniform_soup"):
        subject = find_subject(preset)
        with tempfile.TemporaryDirectory() as root:
            run_job(subject.job("train", Path(root)), quiet)
            store = Store(Path(root))
            record, rows = store.record(subject.cell.key), store.history(subject.cell.key)
        assert record["status"] == "done", record["traceback"]
        passes[preset] = record["cost"]["forward_passes"]
        assert rows["forward_passes"].iloc[-1] == passes[preset]
    first, last = find_subject("greedy_soup").needs
    images = min(PROBE_IMAGES, len(recorded().images))
    assert passes["greedy_soup"] - passes["uniform_soup"] == (2 * (last + 1 - first) - 1) * images


def test_who_has_not_said_that_it_asks_may_not():
    run = find_subject("swa").run(recorded().trajectory())
    with pytest.raises(RuntimeError, match="probe_loss may be called by a method with needs_probe alone"):
        run.probe_loss(recorded().snapshot(0).theta_N)
