"""What logits are worth: loss, accuracy and calibration, from one pass over the images.

Shape suffixes: n images, B of one batch, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

METRICS = ("loss", "accuracy", "ece", "brier")
"""in the order of `Scores.sums`"""
BINS = 15
"""of confidence between 0 and 1, all as wide"""


class Scores:
    """Sums over batches of logits, held on `device`: nothing waits for it until they are read.

    - loss: mean cross-entropy, the negative log-likelihood.
    - accuracy: top-1, in percent.
    - ece: expected calibration error in percent, sum over BINS of the share of images in a bin times
      |their accuracy - their mean confidence| (Guo et al., On Calibration of Modern Neural Networks, ICML 2017); the
      confidence is the largest probability, and a bin has its lower edge and not its upper one, but for the last.
    - brier: mean squared distance of the probabilities from the label's, over all classes, from 0 to 2 (Brier 1950).
    """

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)
        """of loss and of Brier's score"""
        self._correct: list[Tensor] = []
        self._confidence: list[Tensor] = []

    def add(self, logits_BC: Tensor, labels_B: Tensor) -> None:
        """Take in float32 logits (B, C) of images with these labels (B,)."""
        loss = cross_entropy(logits_BC, labels_B, reduction="sum")
        p_BC = logits_BC.softmax(1)
        p_B = p_BC.gather(1, labels_B[:, None])[:, 0]
        brier = p_BC.square().sum() + (1 - 2 * p_B).sum()
        self._sums += torch.stack((loss, brier)).double()
        self._correct.append(logits_BC.argmax(1) == labels_B)
        self._confidence.append(p_BC.amax(1))

    @property
    def correct_n(self) -> Tensor:
        """Which images were right, (n,) bool on the device."""
        return torch.cat(self._correct)

    def sums(self) -> Tensor:
        """What METRICS are the means of over images, accuracy and ece as shares: float64 on the device."""
        correct_n, confidence_n = self.correct_n.double(), torch.cat(self._confidence).double()
        edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64, device=correct_n.device)[1:-1]
        bin_n = torch.bucketize(confidence_n, edges, right=True)
        # a product rather than a sum by index, whose order a GPU does not keep
        inside_nb = (bin_n[:, None] == torch.arange(BINS, device=bin_n.device)).double()
        gap = (inside_nb.T @ (correct_n - confidence_n)).abs().sum()
        loss, brier = self._sums
        return torch.stack((loss, correct_n.sum(), gap, brier))


def means(sums: list[float], images: int) -> dict[str, float]:
    """METRICS of so many images from `Scores.sums`, by name."""
    scales = (1.0, 100.0, 100.0, 1.0)
    return {name: scale * total / images for name, scale, total in zip(METRICS, scales, sums, strict=True)}
