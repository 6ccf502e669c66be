"""Loss, accuracy, calibration error and Brier's score against torchmetrics and sums written out."""

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from harness.training.scores import METRICS, Scores, means


def scored(logits, labels, batch=64):
    scores = Scores(torch.device("cpu"))
    for part, own in zip(logits.split(batch), labels.split(batch), strict=True):
        scores.add(part, own)
    return means(scores.sums().tolist(), len(labels)), scores


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("scale", [0.1, 1.0, 8.0])
def test_scores_are_the_published_ones(classes, scale):
    rng = torch.Generator().manual_seed(classes)
    logits = scale * torch.randn(700, classes, generator=rng)
    labels = torch.randint(classes, (700,), generator=rng)
    found, scores = scored(logits, labels)
    p = logits.double().softmax(1)
    assert tuple(found) == METRICS
    assert found["loss"] == pytest.approx(-p.gather(1, labels[:, None]).log().mean().item(), rel=1e-5)
    accuracy = 100 * multiclass_accuracy(logits, labels, classes, average="micro").item()
    assert found["accuracy"] == pytest.approx(accuracy, rel=1e-6)
    error = 100 * multiclass_calibration_error(logits, labels, classes, n_bins=15, norm="l1").item()
    assert found["ece"] == pytest.approx(error, abs=1e-3)
    brier = (p - one_hot(labels, classes)).square().sum(1).mean().item()
    assert found["brier"] == pytest.approx(brier, rel=1e-5)
    assert torch.equal(scores.correct_n, logits.argmax(1) == labels)


def test_who_is_always_right_and_sure_has_no_error():
    labels = torch.arange(10).repeat(5)
    found, _ = scored(1e4 * one_hot(labels).float(), labels)
    assert found == {"loss": 0.0, "accuracy": 100.0, "ece": 0.0, "brier": 0.0}


def test_who_is_always_wrong_and_sure_has_all_of_it():
    labels = torch.arange(10).repeat(5)
    found, _ = scored(1e4 * one_hot((labels + 1) % 10).float(), labels)
    assert (found["accuracy"], found["ece"], found["brier"]) == (0.0, 100.0, 2.0)


def test_calibration_error_by_hand():
    """Ten images at a confidence of 0.8, of which seven are right, and ten at 0.6, of which nine are."""
    confidence, right = np.repeat([0.8, 0.6], 10), np.r_[np.arange(10) < 7, np.arange(10) < 9]
    logits = torch.tensor(np.log(np.c_[confidence, 1 - confidence])).float()
    found, _ = scored(logits, torch.tensor(np.where(right, 0, 1)))
    assert found["ece"] == pytest.approx(100 * (0.5 * abs(0.7 - 0.8) + 0.5 * abs(0.9 - 0.6)), abs=1e-4)


def test_scores_that_are_no_numbers_are_none():
    found, _ = scored(torch.full((5, 3), float("nan")), torch.zeros(5, dtype=torch.int64))
    assert all(np.isnan(found[name]) for name in ("loss", "ece", "brier"))
