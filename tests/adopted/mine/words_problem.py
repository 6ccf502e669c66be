"""A problem as a user would write it, for `evaluate.callable`."""

import torch
from torch import nn


class Problem:
    def model(self):
        model = nn.Module()
        model.wte = nn.Embedding(7, 4)
        model.norm = nn.BatchNorm1d(4)
        model.lm_head = nn.Linear(4, 7, bias=False)
        model.lm_head.weight = model.wte.weight
        model.forward = lambda words: model.lm_head(model.norm(model.wte(words)))
        return model

    def evaluate(self, model):
        assert not model.training
        words = torch.arange(7)
        with torch.no_grad():
            scores = model(words)
        right = (scores.argmax(1) == (words + 1) % 7).double().mean().item()
        return {"accuracy": 100 * right, "loss": nn.functional.cross_entropy(scores, (words + 1) % 7).item()}

    def recalibration(self):
        for first in range(0, 28, 7):
            yield (torch.arange(first, first + 14) * 3) % 7


class Incomplete:
    def model(self):
        return nn.Linear(1, 1)
