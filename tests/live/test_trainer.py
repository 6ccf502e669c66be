"""Callbacks of Hugging Face's Trainer in real trainings: `make test-live`."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import IterableDataset

from baselines.cmd import OnlineCMD
from baselines.ema import EMA
from baselines.time_mean import TimeMean
from harness.live import Watch
from harness.snapshots import weights_of

transformers = pytest.importorskip("transformers")
from peft import LoraConfig, get_peft_model  # noqa: E402

from harness.live.trainer import STATE, EvaluatesLive, LiveCallback, SnapshotCallback  # noqa: E402

pytestmark = pytest.mark.live
EPOCHS, STEPS = 4, 3
METHODS = {
    "cmd": lambda model: OnlineCMD(model, modes=2, samples=40, warmup=2),
    "ema": lambda model: Watch(model, EMA(1.0), EPOCHS, STEPS),
    "mean": lambda model: Watch(model, TimeMean(), EPOCHS),
}


class Training(EvaluatesLive, transformers.Trainer):
    pass


def texts(seed, count=12):
    """Sequences of random tokens."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, 32, (count, 8), generator=draw)
    return [{"input_ids": row, "labels": row} for row in rows]


def language_model():
    """A GPT-2 of two layers with dropout, whose output shares the embedding's weights."""
    transformers.set_seed(3)
    config = transformers.GPT2Config(vocab_size=32, n_positions=8, n_embd=8, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config)


def trainer_of(folder, callbacks=(), kind=transformers.Trainer, model=None, train=None, evaluated=None, **options):
    arguments = {
        "num_train_epochs": EPOCHS, "per_device_train_batch_size": 4, "eval_strategy": "epoch",
        "save_strategy": "epoch", "learning_rate": 0.01, "use_cpu": True, "report_to": "none", "disable_tqdm": True,
        "seed": 5, "logging_strategy": "epoch", "lr_scheduler_type": "constant", **options,
    }  # fmt: skip
    return kind(
        language_model() if model is None else model,
        transformers.TrainingArguments(str(folder), **arguments),
        train_dataset=texts(0) if train is None else train,
        eval_dataset=texts(1) if evaluated is None else evaluated,
        callbacks=list(callbacks),
    )


def run(folder, callbacks=(), resume=None, **options):
    """A finished training."""
    trainer = trainer_of(folder, callbacks, **options)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def said(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["traindyn"])


def test_training_is_the_same_with_and_without(tmp_path):
    alone = run(tmp_path / "alone")
    live = LiveCallback(METHODS)
    followed = run(tmp_path / "followed", [live, SnapshotCallback(tmp_path / "run")], kind=Training)
    assert same(alone.model.state_dict(), followed.model.state_dict())
    for epoch in range(1, EPOCHS + 1):
        places = (tmp_path / name / f"checkpoint-{epoch * STEPS}" for name in ("alone", "followed"))
        files = [load_file(place / "model.safetensors") for place in places]
        assert same(*files)


def test_methods_are_evaluated_under_their_own_prefix(tmp_path):
    """To the loss of their weights, computed here."""
    live = LiveCallback(METHODS)
    trainer = run(tmp_path, [live], kind=Training)
    entries = {}
    for entry in trainer.state.log_history:
        for name, value in entry.items():
            entries.setdefault(name, {})[entry["step"]] = value
    epochs = [STEPS * n for n in range(1, EPOCHS + 1)]
    assert sorted(entries["eval_mean_loss"]) == sorted(entries["eval_loss"]) == epochs
    assert sorted(entries["eval_cmd_loss"]) == epochs[2:]  # its warm-up proposes nothing
    rows = torch.stack([text["input_ids"] for text in texts(1)])

    @torch.no_grad()
    def loss():
        return trainer.model.eval()(input_ids=rows, labels=rows).loss.item()

    own = loss()
    for name in METHODS:
        with live.live[name].applied(trainer.model):
            ratio = loss() / own  # the trainer divides by all labels, of which each text's first predicts nothing
        assert entries[f"eval_{name}_loss"][epochs[-1]] / entries["eval_loss"][epochs[-1]] == pytest.approx(ratio)
    assert entries["eval_loss"][EPOCHS * STEPS] != entries["eval_mean_loss"][EPOCHS * STEPS]


def test_several_sets_are_evaluated_once_each(tmp_path):
    trainer = run(
        tmp_path, [LiveCallback({"mean": METHODS["mean"]})], kind=Training, evaluated={"a": texts(1), "b": texts(2)}
    )
    found = trainer.evaluate()
    assert {name for name in found if name.endswith("loss")} == {
        "eval_a_loss", "eval_b_loss", "eval_a_mean_loss", "eval_b_mean_loss",
    }  # fmt: skip
    assert sum("eval_a_mean_loss" in entry for entry in trainer.state.log_history) == EPOCHS + 1


def test_snapshots_are_the_checkpoints_of_the_epochs(tmp_path):
    """With the metrics of their own evaluation, and not of a method's."""
    callbacks = [SnapshotCallback(tmp_path / "run"), LiveCallback(METHODS)]
    trainer = run(tmp_path / "out", callbacks, kind=Training)
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    paths = sorted((tmp_path / "run").iterdir())
    assert len(paths) == EPOCHS + 1
    for epoch, path in enumerate(paths[1:], 1):
        known, tensors = said(path), load_file(path)
        assert same(load_file(tmp_path / "out" / f"checkpoint-{epoch * STEPS}" / "model.safetensors"), tensors)
        assert (known["step"], known["epoch"], known["seed"]) == (epoch * STEPS, epoch, 5)
        assert known["metrics"]["eval_loss"] == losses[epoch - 1]
        assert known["tied"] == {"lm_head.weight": "transformer.wte.weight"}
    assert known["order"] == [name for name, _ in trainer.model.named_parameters()]


def test_an_evaluation_after_training_changes_no_snapshot(tmp_path):
    trainer = run(tmp_path / "out", [SnapshotCallback(tmp_path / "run")], eval_strategy="no")
    before = load_file(tmp_path / "run" / f"step-{EPOCHS * STEPS:08d}.safetensors")
    nn.init.zeros_(trainer.model.transformer.wte.weight)
    trainer.evaluate()
    assert same(before, load_file(tmp_path / "run" / f"step-{EPOCHS * STEPS:08d}.safetensors"))


@pytest.mark.parametrize(
    "saving",
    [{}, {"save_strategy": "steps", "save_steps": STEPS, "eval_strategy": "steps", "eval_steps": 2}],
    ids=["epochs", "steps"],
)
def test_a_resumed_run_ends_the_same(tmp_path, saving):
    """With dropout and a shuffled order; where checkpoints are saved at steps, before an epoch's end is told."""
    whole, again = LiveCallback(METHODS), LiveCallback(METHODS)
    kept = SnapshotCallback(tmp_path / "whole")
    first = run(tmp_path / "out", [whole, kept], kind=Training, **saving)
    early = run(
        tmp_path / "early", [LiveCallback(METHODS), SnapshotCallback(tmp_path / "parts")], kind=Training, **saving
    )
    assert same(first.model.state_dict(), early.model.state_dict())
    with pytest.warns(UserWarning, match="has snapshots up to step 12: this run goes on with them"):
        resumed = run(
            tmp_path / "early", [again, SnapshotCallback(tmp_path / "parts")],
            resume=tmp_path / "early" / f"checkpoint-{2 * STEPS}", kind=Training, **saving,
        )  # fmt: skip
    assert same(first.model.state_dict(), resumed.model.state_dict())
    for name in ("ema", "mean"):
        assert torch.equal(again.live[name].weights(), whole.live[name].weights())
    with again.live["cmd"].applied(resumed.model), whole.live["cmd"].applied(first.model):
        assert torch.equal(weights_of(resumed.model), weights_of(first.model))
    for path in (tmp_path / "whole").iterdir():
        assert same(load_file(path), load_file(tmp_path / "parts" / path.name))


def test_a_checkpoint_without_states_is_said(tmp_path):
    run(tmp_path, num_train_epochs=2)
    live = LiveCallback({"mean": METHODS["mean"]})
    with pytest.warns(UserWarning, match="no state of the methods in .*checkpoint-6: they begin at step 6"):
        run(tmp_path, [live], resume=tmp_path / f"checkpoint-{2 * STEPS}")
    assert live.live["mean"].t == 2
    assert (tmp_path / f"checkpoint-{3 * STEPS}" / STATE).is_file()


def test_states_are_those_of_the_checkpoint_that_is_gone_on_from(tmp_path):
    """Though the arguments name another one."""
    run(tmp_path, [LiveCallback({"mean": METHODS["mean"]})], num_train_epochs=3)
    live = LiveCallback({"mean": METHODS["mean"]})
    named = str(tmp_path / f"checkpoint-{STEPS}")
    run(tmp_path, [live], resume=tmp_path / f"checkpoint-{2 * STEPS}", resume_from_checkpoint=named)
    assert live.live["mean"].t == EPOCHS


def test_an_epoch_that_is_broken_off_is_none(tmp_path):
    live = LiveCallback({"mean": METHODS["mean"]})
    run(tmp_path / "out", [live, SnapshotCallback(tmp_path / "run")], max_steps=2 * STEPS + 1)
    assert live.live["mean"].t == 2
    assert [said(path)["epoch"] for path in sorted((tmp_path / "run").iterdir())] == [0, 1, 2]


def test_accumulated_gradients_are_one_step(tmp_path):
    """Of 2, 2 and a last one left over."""
    live = LiveCallback({"ema": lambda model: Watch(model, EMA(1.0), EPOCHS, 2), "mean": METHODS["mean"]})
    run(tmp_path / "out", [live, SnapshotCallback(tmp_path / "run", every=1)], gradient_accumulation_steps=2)
    assert (live.live["ema"].step, live.live["mean"].t) == (2 * EPOCHS, EPOCHS)
    found = [(said(path)["step"], said(path)["epoch"]) for path in sorted((tmp_path / "run").iterdir())]
    assert found == [(0, 0), *((step, step // 2 if step % 2 == 0 else None) for step in range(1, 2 * EPOCHS + 1))]


class Stream(IterableDataset):
    """Data of no known length, 3 batches of it."""

    def __iter__(self):
        return iter(texts(0))


def test_epochs_of_data_without_a_length(tmp_path):
    live = LiveCallback({"mean": METHODS["mean"]})
    options = {"max_steps": 2 * STEPS, "eval_strategy": "no", "save_strategy": "no"}
    run(tmp_path / "out", [live, SnapshotCallback(tmp_path / "run")], train=Stream(), **options)
    steps = [said(path)["step"] for path in sorted((tmp_path / "run").iterdir())]
    assert steps[:2] == [0, STEPS]
    assert live.live["mean"].t == len(steps) - 1


def test_adapters(tmp_path):
    """Of LoRA the factors are the weights; the rest is stored, and frozen."""
    model = get_peft_model(language_model(), LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    live = LiveCallback({"mean": METHODS["mean"]})
    trainer = run(tmp_path / "out", [live, SnapshotCallback(tmp_path / "run")], kind=Training, model=model)
    known = said(tmp_path / "run" / f"step-{EPOCHS * STEPS:08d}.safetensors")
    assert len(known["trainable"]) == 4
    assert all("lora_" in name for name in known["trainable"])
    assert len(known["order"]) > 4
    assert live.live["mean"].layout.names == tuple(known["trainable"])
    assert "eval_mean_loss" in trainer.state.log_history[-2]


class Images(nn.Module):
    """An image model's part that has running statistics."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))

    def forward(self, pixel_values, labels=None):
        logits = self.network(pixel_values)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def test_running_statistics_are_made_to_fit(tmp_path):
    torch.manual_seed(0)
    model, draw = Images(), torch.Generator().manual_seed(0)
    rows = [{"pixel_values": torch.randn(4, generator=draw), "labels": torch.tensor(i % 2)} for i in range(12)]
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    live = LiveCallback({"mean": METHODS["mean"]}, recalibration=[batch])
    trainer = run(tmp_path, [live], kind=Training, model=model, train=rows, evaluated=rows)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with live.live["mean"].applied(model):
        model.train()
        expected = model(**batch)["loss"].item()  # of the batch's own statistics, but for the variance's bias
    assert trainer.evaluate()["eval_mean_loss"] == pytest.approx(expected, rel=0.05)
    assert same(before, model.state_dict())


def test_sharded_parameters_are_saved_by_the_trainer(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.live.trainer.sharding", lambda model: "FSDP")
    run(tmp_path / "out", [SnapshotCallback(tmp_path / "run")], save_strategy="no")
    assert len(list((tmp_path / "out").glob("checkpoint-*"))) == EPOCHS
    assert not (tmp_path / "run").exists()


def test_a_trainer_that_evaluates_nothing_live_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"callbacks must have a LiveCallback where .* is EvaluatesLive, got none"):
        run(tmp_path, kind=Training)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda model: Watch(model, TimeMean(), 3), "methods.it must be made for at least 4 epochs, got 3"),
        (lambda model: Watch(model, EMA(), 4), "methods.it must be made for 3 steps per epoch, got 1"),
    ],
)
def test_methods_that_do_not_fit_are_refused_before_training(tmp_path, make, said):
    with pytest.raises(ValueError, match=said):
        run(tmp_path, [LiveCallback({"it": make})])
