"""Any observer in anyone's loop: what it proposes is what the harness's own cells of it propose."""

import importlib
import io
import sys

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

from baselines.cmd_online import CMDOnline
from baselines.cmd_posthoc import CMDPosthoc
from baselines.ema import EMA
from baselines.lawa import LAWA
from baselines.time_mean import TimeMean
from baselines.two_tailed import TwoTailed
from harness.conformance.clauses import proposal_bits
from harness.conformance.pretended_gpu import pretended_gpu
from harness.conformance.shown_again import Showing
from harness.conformance.tiny import as_in_a_job, find_class, find_subject, recorded
from harness.live import Recorder, Watch, recalibrate
from harness.method import Observer
from harness.planning.compose import available
from harness.snapshots import weights_of

OBSERVERS = [preset for preset in sorted(available("method")) if issubclass(find_class(preset), Observer)]


@pytest.fixture(scope="module")
def in_a_job():
    with as_in_a_job(find_subject("base").base.config):
        yield


def watching(trainer, preset):
    """A Watch of a preset on the tiny base's model, as a user makes one."""
    subject, method = find_subject(preset), find_subject(preset).make()
    config = subject.base.config
    probe = (lambda model: recorded().evaluator.probe_loss(weights_of(model))) if method.needs_probe else None
    length = (config.epochs, recorded().steps_per_epoch, config.seed)
    return Watch(trainer.model, method, *length, probe_loss=probe)


def update(watch, after_epoch):
    """What a user's loop calls after an epoch, or otherwise after a step."""
    if (watch.cadence == "epoch") == after_epoch:
        watch.update()


def train(trainer, watches):
    trainer.train_epoch(after_step=lambda: [update(watch, False) for watch in watches])
    for watch in watches:
        update(watch, True)


@pytest.fixture(scope="module")
def watched(in_a_job):
    """The tiny base trained once with a Watch of every observer: digests of what each proposes after every epoch, those
    of one that took over the state of another after the third, and the weights at the end."""
    trainer = recorded().trainer()
    whole = {preset: watching(trainer, preset) for preset in OBSERVERS}
    taken, found = {}, {preset: ([], []) for preset in OBSERVERS}
    for t in range(1, trainer.base.epochs + 1):
        train(trainer, [*whole.values(), *taken.values()])
        for preset in OBSERVERS:
            for watches, digests in zip((whole, taken), found[preset], strict=True):
                if watches:
                    digests.append(proposal_bits(watches[preset].propose()))
        if t == 3:
            for preset in OBSERVERS:
                file = io.BytesIO()
                torch.save(whole[preset].state_dict(), file)
                file.seek(0)
                taken[preset] = watching(trainer, preset)
                taken[preset].load_state_dict(torch.load(file, weights_only=True))
    return found, trainer.flat.theta_N


@pytest.mark.parametrize("preset", OBSERVERS)
def test_live_is_what_the_harness_shows(watched, preset):
    """Of its stored snapshots at epoch cadence, in its own loop at the cadence of steps."""
    subject = find_subject(preset)
    showing = Showing(subject, live=subject.make().cadence != "epoch")
    method, expected = showing.join(subject.make()), []
    showing.show(lambda snapshot: expected.append(proposal_bits(method.propose())))
    assert watched[0][preset][0] == expected


@pytest.mark.parametrize("preset", OBSERVERS)
def test_a_resumed_watch_proposes_the_same(watched, preset):
    whole, taken = watched[0][preset]
    assert len(taken) == len(whole) - 3
    assert taken == whole[3:]


def test_the_training_was_the_harnesss_own(watched):
    assert torch.equal(watched[1], recorded().snapshot(find_subject("base").epochs).theta_N)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))


def loop(epochs, watches=(), evaluate=lambda model: None):
    """A loop of anyone's: data shuffled by torch's own stream. `watches` make what follows the model."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    data = TensorDataset(torch.randn(48, 4), torch.randint(0, 2, (48,)))
    following = [make(model) for make in watches]
    for _ in range(epochs):
        for x, y in DataLoader(data, batch_size=16, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            for watch in following:
                update(watch, False)
        for watch in following:
            update(watch, True)
            with watch.applied(model):
                evaluate(model)
    return model, following


def test_training_is_the_same_with_and_without():
    """Though what is applied is recalibrated and evaluated on shuffled data."""
    seen = []

    def evaluate(model):
        loader = DataLoader(TensorDataset(torch.randn(16, 4)), batch_size=8, shuffle=True)
        recalibrate(model, loader)
        seen.append(weights_of(model.eval()))

    alone, _ = loop(6)
    makes = [
        lambda model: Watch(model, CMDOnline(modes=3, samples=40, warmup=3), epochs=6),
        lambda model: Watch(model, EMA(), epochs=6, steps_per_epoch=3),
    ]
    watched, following = loop(6, makes, evaluate)
    assert watched.training
    assert all(torch.equal(tensor, alone.state_dict()[name]) for name, tensor in watched.state_dict().items())
    for index, watch in enumerate(following):
        assert torch.equal(seen[index - 2], watch.weights())
        assert not torch.equal(watch.weights(), weights_of(watched))


def test_the_time_mean_is_torchs():
    theirs = []

    class Both(Watch):
        def update(self, step=None):
            super().update(step)
            theirs[0].update_parameters(self.model)

    def make(model):
        theirs.append(AveragedModel(model))
        return Both(model, TimeMean(), epochs=5)

    _, (watch,) = loop(5, [make])
    torch.testing.assert_close(watch.weights(), weights_of(theirs[0].module), rtol=1e-6, atol=1e-7)


def test_before_its_warm_up_a_model_stays_as_it_is():
    model = network()
    watch = Watch(model, CMDOnline(modes=2, samples=20, warmup=3), epochs=8)
    assert not watch.ready
    assert torch.equal(watch.weights(), weights_of(model))
    with watch.applied() as ready:
        assert not ready
        assert torch.equal(weights_of(model), watch.weights())


def test_a_folder_of_ones_own_keeps_states_small(tmp_path):
    method = {"modes": 2, "samples": 20, "warmup": 3}
    make = lambda model: Watch(model, CMDOnline(**method), epochs=8, folder=tmp_path)  # noqa: E731
    model, (watch,) = loop(2, [make])
    state = watch.state_dict()
    assert "snapshots" not in state
    assert state["kept"] == [1, 2]
    other = make(model)
    other.load_state_dict(state)
    assert other.trajectory.ts == (1, 2)
    (tmp_path / "00002.safetensors").unlink()
    with pytest.raises(ValueError, match="folder must hold the snapshots of the state, got none of t = 2"):
        make(model).load_state_dict(state)


def test_temporary_snapshots_vanish_with_their_watch():
    watch = Watch(network(), CMDOnline(modes=2, samples=20, warmup=3), epochs=8)
    folder = watch.folder
    watch.update()
    assert list(folder.iterdir())
    del watch
    assert not folder.exists()


def test_buffers_that_are_proposed_are_applied():
    make = lambda model: Watch(model, CMDOnline(modes=2, samples=20, warmup=3, model_buffers=True), epochs=8)  # noqa: E731
    model, (watch,) = loop(5, [make])
    with watch.applied():
        assert torch.equal(model[1].running_mean, watch.propose().buffers["1.running_mean"])
        modelled = model[1].running_mean.clone()
    assert not torch.equal(model[1].running_mean, modelled)


def test_a_probe_loss_leaves_training_alone():
    """It is asked by the observer, with other weights in the model and the modes of evaluation."""
    asked = []

    def probe(model):
        asked.append(model.training)
        return model(torch.randn(8, 4)).square().mean()

    make = lambda model: Watch(model, TwoTailed(1, 3), epochs=4, steps_per_epoch=3, probe_loss=probe)  # noqa: E731
    watched, _ = loop(4, [make])
    alone, _ = loop(4)
    assert asked
    assert not any(asked)
    assert torch.equal(weights_of(watched), weights_of(alone))


@pytest.mark.parametrize(
    ("method", "given", "said"),
    [
        (EMA(), {"epochs": 0}, "epochs must be at least 1, got 0"),
        (EMA(), {"steps_per_epoch": 2.0}, "steps_per_epoch must be a whole number, got 2.0"),
        (EMA(), {"seed": -1}, "seed must be at least 0, got -1"),
        (CMDPosthoc(), {}, "method must be an observer, got reconstruction CMDPosthoc"),
        (EMA, {}, "method must be an observer that was made, got <class 'baselines.ema.EMA'>"),
        ("ema", {}, "method must be an observer that was made, got 'ema'"),
        (CMDOnline(warmup=20), {}, "warmup must"),
        (TwoTailed(1, 3), {}, "probe_loss must be given where the method asks for it, as TwoTailed does"),
    ],
)
def test_bad_arguments(method, given, said):
    with pytest.raises(ValueError, match=said):
        Watch(network(), method, **{"epochs": 8, **given})


def test_more_updates_than_epochs():
    watch = Watch(network(), TimeMean(), epochs=2)
    watch.update(), watch.update()
    with pytest.raises(ValueError, match="update must be called for at most epochs = 2 epochs, got one more"):
        watch.update()
    by_steps = Watch(network(), EMA(), epochs=2, steps_per_epoch=2)
    for _ in range(4):
        by_steps.update()
    with pytest.raises(ValueError, match="at most epochs = 2"):
        by_steps.update()


def test_steps_that_are_known():
    watch = Watch(network(), LAWA(2, every=2), epochs=4, steps_per_epoch=4)
    watch.update(1)
    with pytest.raises(ValueError, match="step must be at least 2, got 1"):
        watch.update(1)
    with pytest.raises(ValueError, match="step must be at most 2, which the observer watches, got 3"):
        watch.update(3)


def test_a_model_that_changes_half_way():
    model = network()
    watch = Watch(model, TimeMean(), epochs=2)
    model[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"model must have 0.weight of shape \(16, 4\), got 0.bias"):
        watch.update()
    with pytest.raises(ValueError, match="model must have"), watch.applied(nn.Linear(2, 2)):
        pass


def test_a_state_of_another_length():
    state = Watch(network(), TimeMean(), epochs=2).state_dict()
    with pytest.raises(ValueError, match="epochs must be 2, as in the state, got 3"):
        Watch(network(), TimeMean(), epochs=3).load_state_dict(state)
    with pytest.raises(ValueError, match=r"model must have 0\.weight"):
        Watch(nn.Linear(2, 2), TimeMean(), epochs=2).load_state_dict(state)


@pytest.mark.parametrize(("module", "package"), [("lightning", "lightning"), ("trainer", "transformers")])
def test_a_library_that_is_not_there(monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.pytorch", None)
    monkeypatch.delitem(sys.modules, f"harness.live.{module}", raising=False)
    said = rf"harness\.live\.{module} needs the package {package}: pip install 'traindyn\[live\]'"
    with pytest.raises(ImportError, match=said):
        importlib.import_module(f"harness.live.{module}")


def on_device(device, folder):
    """A training there, of numbers drawn on the CPU: the averaged weights, and the statistics that fit them."""
    model, draw = network().to(device), torch.Generator().manual_seed(1)
    model[3].p = 0.0
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    methods = CMDOnline(modes=2, samples=20, warmup=2), TimeMean()
    watches, recorder = [Watch(model, method, epochs=4) for method in methods], Recorder(model, folder)
    for epoch in range(1, 5):
        optimizer.zero_grad()
        model(torch.randn(16, 4, generator=draw).to(device)).square().mean().backward()
        optimizer.step()
        recorder.record(epoch)
        for watch in watches:
            watch.update()
    images = torch.randn(16, 4, generator=draw)
    for watch in watches:
        watch.load_state_dict(watch.state_dict())
        with watch.applied(model):
            recalibrate(model, [images])
            yield weights_of(model).cpu()
            yield model[1].running_var.clone().cpu()


LAST = "step-00000004.safetensors"


def contents(path):
    """What a file of safetensors holds, to the bit: its header is a mapping, which is written in any order."""
    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return file.metadata(), {name: (one.dtype, one.shape, one.tobytes()) for name, one in tensors.items()}


def test_on_a_gpu_that_is_pretended(tmp_path):
    expected = list(on_device("cpu", tmp_path / "cpu"))
    with pretended_gpu():
        found = list(on_device("cuda", tmp_path / "gpu"))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert contents(tmp_path / "cpu" / LAST) == contents(tmp_path / "gpu" / LAST)
