"""The snippets of docs/live.md for Lightning and Hugging Face's Trainer: `make test-live`."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
from pages import ROOT, files

pytest.importorskip("lightning")
pytest.importorskip("transformers")
pytestmark = pytest.mark.live
PAGE = files(ROOT / "docs" / "live.md")


def test_lightning(tmp_path, monkeypatch):
    from test_lightning import Module, data

    monkeypatch.chdir(tmp_path)
    loss = lambda module: {"loss": nn.functional.cross_entropy(module(torch.ones(2, 4)), torch.ones(2).long())}  # noqa: E731
    loaders = {"training_data": DataLoader(data(0), 16), "validation_data": DataLoader(data(1), 16)}
    space = {"epochs": 7, "module": Module(), "evaluate": loss, **loaders}
    exec(PAGE["mine/lightning_live.py"], space)
    assert {"cmd/loss", "ema/loss", "val_loss"} <= space["trainer"].callback_metrics.keys()
    assert len(list((tmp_path / "snapshots").iterdir())) == 8


def test_trainer(tmp_path, monkeypatch):
    from test_trainer import language_model, texts
    from transformers import TrainingArguments

    monkeypatch.chdir(tmp_path)
    arguments = TrainingArguments(
        "out", num_train_epochs=7, per_device_train_batch_size=4, eval_strategy="epoch", use_cpu=True, report_to="none"
    )
    space = {"model": language_model(), "texts": texts(0), "other_texts": texts(1), "arguments": arguments}
    exec(PAGE["mine/trainer_live.py"], space | {"epochs": 7, "steps_per_epoch": 3, "__name__": "mine"})
    assert len(list((tmp_path / "snapshots").iterdir())) == 8
