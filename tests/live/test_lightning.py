"""Lightning's callbacks in real trainings: `make test-live`."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from baselines.averages import UniformMean
from baselines.cmd import OnlineCMD
from baselines.ema import EMA
from baselines.time_mean import TimeMean
from harness.live import Watch
from harness.snapshots import weights_of

lightning = pytest.importorskip("lightning.pytorch")
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

from harness.live.lightning import LiveCallback, SnapshotCallback  # noqa: E402

pytestmark = [
    pytest.mark.live,
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
]
EPOCHS, STEPS = 5, 3
METHODS = {
    "cmd": lambda model: OnlineCMD(model, modes=2, samples=20, warmup=3),
    "ema": lambda model: Watch(model, EMA(1.0), EPOCHS, STEPS),
    "mean": lambda model: Watch(model, TimeMean(), EPOCHS),
}


def data(seed, count=48):
    draw = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(count, 4, generator=draw), torch.randint(0, 2, (count,), generator=draw))


class Module(lightning.LightningModule):
    """A model with dropout and BatchNorm, whose validation draws from torch's stream too."""

    def __init__(self, dropout=0.3):
        super().__init__()
        layers = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 2)
        self.network = nn.Sequential(*layers)
        self.validated = []

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, index):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, index):
        noise = torch.rand(())
        self.validated.append(weights_of(self))
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]) + 0 * noise)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


def fit(folder, callbacks=(), epochs=EPOCHS, ckpt_path=None, draws=True, **options):
    """A training of its own seed; its module and trainer. Without `draws` it has no dropout and no order to draw, which
    Lightning does not restore where it goes on from a checkpoint."""
    lightning.seed_everything(7)
    module = Module(0.3 if draws else 0.0)
    trainer = lightning.Trainer(
        max_epochs=epochs, callbacks=list(callbacks), accelerator="cpu", logger=False, default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=any(
            isinstance(one, ModelCheckpoint) for one in callbacks), **options,
    )  # fmt: skip
    loaders = DataLoader(data(0), 16, shuffle=draws), DataLoader(data(1, 16), 8)
    trainer.fit(module, *loaders, ckpt_path=ckpt_path)
    return module, trainer


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def evaluate(module):
    """An evaluation of one's own, on data that are shuffled."""
    loader = DataLoader(data(1, 16), 8, shuffle=True)
    return {"loss": sum(nn.functional.cross_entropy(module(x), y) for x, y in loader)}


def all_callbacks(folder, **options):
    live = LiveCallback(METHODS, swap="mean", evaluate=evaluate, recalibration=DataLoader(data(0), 16, shuffle=True))
    return [SnapshotCallback(folder / "snapshots", **options), live]


def test_training_is_the_same_with_and_without(tmp_path):
    alone, _ = fit(tmp_path)
    followed, trainer = fit(tmp_path, all_callbacks(tmp_path))
    assert same(alone.state_dict(), followed.state_dict())
    assert alone.training == followed.training
    assert {"cmd/loss", "ema/loss", "mean/loss", "val_loss"} <= trainer.callback_metrics.keys()


def test_snapshots_are_those_of_the_epochs(tmp_path):
    ends = []

    class Keeps(lightning.Callback):
        def on_train_epoch_end(self, trainer, module):
            ends.append({name: tensor.clone() for name, tensor in module.state_dict().items()})

    fit(tmp_path, [*all_callbacks(tmp_path), Keeps()])
    paths = sorted((tmp_path / "snapshots").iterdir())
    assert len(paths) == EPOCHS + 1
    for epoch, (path, end) in enumerate(zip(paths[1:], ends, strict=True), 1):
        assert same(end, load_file(path))
        with safe_open(path, "pt") as file:
            said = json.loads(file.metadata()["traindyn"])
        assert (said["epoch"], said["step"], said["seed"]) == (epoch, epoch * STEPS, 7)
        assert {"loss", "val_loss"} <= said["metrics"].keys()


def test_snapshots_of_steps(tmp_path):
    fit(tmp_path, [SnapshotCallback(tmp_path / "run", every=2, initial=False)], accumulate_grad_batches=2)
    steps = [int(path.stem.removeprefix("step-")) for path in sorted((tmp_path / "run").iterdir())]
    assert steps == [2, 4, 6, 8, 10]  # of two to an epoch


def test_epochs_of_a_part_of_the_data(tmp_path):
    live = LiveCallback({"mean": METHODS["mean"]})
    fit(tmp_path, [live, SnapshotCallback(tmp_path / "run")], limit_train_batches=2)
    assert live.live["mean"].t == EPOCHS
    assert len(list((tmp_path / "run").iterdir())) == EPOCHS + 1


def test_validation_sees_the_swapped_weights_and_checkpoints_do_not(tmp_path):
    """The first validation, before training, sees the model's own."""
    means, live = [], LiveCallback({"mean": UniformMean}, swap="mean")

    class Keeps(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            if trainer.is_last_batch:
                means.append((live.live["mean"].weights().clone(), weights_of(module)))

    class SavesAmidst(lightning.Callback):
        def on_validation_batch_end(self, trainer, module, *_):
            if not trainer.sanity_checking:
                trainer.save_checkpoint(tmp_path / f"amidst-{trainer.current_epoch}.ckpt")

    checkpoints = ModelCheckpoint(tmp_path / "checkpoints", monitor="val_loss", save_top_k=-1)
    module, _ = fit(tmp_path, [live, Keeps(), SavesAmidst(), checkpoints])
    per_epoch = module.validated[2:]  # of 2 batches each
    assert len(per_epoch) == 2 * EPOCHS
    for index, (mean_N, _) in enumerate(means):
        assert torch.equal(per_epoch[2 * index], mean_N)
        assert torch.equal(per_epoch[2 * index + 1], mean_N)
    paths = sorted((tmp_path / "checkpoints").iterdir(), key=lambda path: int(path.stem.split("step=")[1]))
    assert len(paths) == EPOCHS
    for index, path in enumerate(paths):
        for place in (path, tmp_path / f"amidst-{index}.ckpt"):
            other = Module()
            other.load_state_dict(torch.load(place, weights_only=True)["state_dict"])
            assert torch.equal(weights_of(other), means[index][1])


def test_methods_see_what_a_plain_loop_would_show_them(tmp_path):
    """Against snapshots, replayed."""
    live = LiveCallback(METHODS)
    fit(tmp_path, [live, SnapshotCallback(tmp_path / "epochs"), SnapshotCallback(tmp_path / "steps", every=1)])
    module = Module()
    first = load_file(tmp_path / "steps" / "step-00000000.safetensors")
    module.load_state_dict(first)
    again = {name: make(module) for name, make in METHODS.items()}
    for step in range(1, EPOCHS * STEPS + 1):
        module.load_state_dict(load_file(tmp_path / "steps" / f"step-{step:08d}.safetensors"))
        again["ema"].update()
        if step % STEPS == 0:
            again["cmd"].update(), again["mean"].update()
    for name in ("ema", "mean"):
        assert torch.equal(again[name].weights(), live.live[name].weights())
    with again["cmd"].applied(module), live.live["cmd"].applied(other := Module()):
        assert torch.equal(weights_of(module), weights_of(other))


@pytest.mark.parametrize(
    "when",
    [{"save_on_train_epoch_end": True}, {"save_on_train_epoch_end": False}, {"every_n_train_steps": STEPS}],
    ids=["epoch", "validation", "step"],
)
def test_a_resumed_run_ends_the_same(tmp_path, when):
    """From a checkpoint of the second epoch, after one that went on to the fourth."""
    callbacks, first, again = (all_callbacks(tmp_path / place) for place in ("whole", "parts", "parts"))
    whole, _ = fit(tmp_path, callbacks, draws=False)
    saves = ModelCheckpoint(tmp_path / "checkpoints", filename="{step}", save_top_k=-1, **when)
    fit(tmp_path, [*first, saves], draws=False, limit_train_batches=STEPS, max_steps=4 * STEPS)
    (found,) = (tmp_path / "checkpoints").glob(f"step={2 * STEPS}.ckpt")
    with pytest.warns(UserWarning, match="has snapshots up to step 12: this run goes on with them"):
        resumed, _ = fit(tmp_path, again, ckpt_path=found, draws=False)
    assert same(whole.state_dict(), resumed.state_dict())
    for name in ("ema", "mean"):
        assert torch.equal(again[1].live[name].weights(), callbacks[1].live[name].weights())
    with again[1].live["cmd"].applied(resumed), callbacks[1].live["cmd"].applied(whole):
        assert torch.equal(weights_of(resumed), weights_of(whole))
    for path in (tmp_path / "whole" / "snapshots").iterdir():
        assert same(load_file(path), load_file(tmp_path / "parts" / "snapshots" / path.name))


def test_an_exception_in_validation_gives_the_weights_back(tmp_path):
    live = LiveCallback({"mean": UniformMean}, swap="mean")

    class Fails(Module):
        def validation_step(self, batch, index):
            if not self.trainer.sanity_checking and self.trainer.current_epoch == 2:
                self.now = weights_of(self)
                raise RuntimeError("no more")

    module, seen = Fails(), []

    class Keeps(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            seen.append(weights_of(module))

    trainer = lightning.Trainer(
        max_epochs=4, callbacks=[live, Keeps()], accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="no more"):
        trainer.fit(module, DataLoader(data(0), 16), DataLoader(data(1, 16), 8))
    assert torch.equal(weights_of(module), seen[-1])
    assert not torch.equal(module.now, seen[-1])


def test_an_epoch_that_is_broken_off_is_none(tmp_path):
    live = LiveCallback({"mean": METHODS["mean"]})
    fit(tmp_path, [live, SnapshotCallback(tmp_path / "run")], max_steps=2 * STEPS + 1)
    assert live.live["mean"].t == 2
    assert len(list((tmp_path / "run").iterdir())) == 3


def test_fit_that_is_called_again_goes_on(tmp_path):
    live = LiveCallback({"mean": lambda model: Watch(model, TimeMean(), 4)})
    module, trainer = fit(tmp_path, [live], epochs=2)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, DataLoader(data(0), 16), DataLoader(data(1, 16), 8))
    assert live.live["mean"].t == 4


def test_sharded_parameters_are_saved_by_lightning(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.live.lightning.sharding", lambda model: "FSDP")
    module, _ = fit(tmp_path, [SnapshotCallback(tmp_path / "run")])
    last = torch.load(tmp_path / "run" / f"step={EPOCHS * STEPS}.ckpt", weights_only=True)
    assert same(last["state_dict"], module.state_dict())
    assert "optimizer_states" not in last
    assert len(list((tmp_path / "run").iterdir())) == EPOCHS + 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": {}}, "methods must be at least 1, got none"),
        ({"methods": {"ema": 3}}, "methods must map names to functions of the model, got 'ema': 3"),
        ({"methods": METHODS, "swap": "swa"}, "swap must be one of cmd, ema, mean, got 'swa'"),
        ({"methods": METHODS, "every": 0}, "every must be at least 1, got 0"),
        ({"methods": METHODS, "recalibration": iter([1])}, "recalibration must give its batches every time anew"),
    ],
)
def test_bad_arguments(given, said):
    with pytest.raises(ValueError, match=said):
        LiveCallback(**given)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda model: Watch(model, TimeMean(), 3), "methods.it must be made for at least 5 epochs, got 3"),
        (lambda model: Watch(model, EMA(), 5), "methods.it must be made for 3 steps per epoch, got 1"),
    ],
)
def test_methods_that_do_not_fit_are_refused_before_training(tmp_path, make, said):
    with pytest.raises(ValueError, match=said):
        fit(tmp_path, [LiveCallback({"it": make})])


def test_an_evaluation_that_gives_no_names(tmp_path):
    live = LiveCallback({"mean": UniformMean}, evaluate=lambda module: 0.5)
    with pytest.raises(ValueError, match=r"evaluate must map names to numbers, got 0\.5"):
        fit(tmp_path, [live])
