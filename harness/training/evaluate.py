"""Evaluation and BatchNorm policies: the only module that reaches the validation and test splits.

A weight vector that was not trained has no running statistics of its own. Policies: `recalibrate` resets them
and takes the average over a fixed subset of un-augmented training images, in fixed batches; `as_is` keeps the base's;
`averaged` takes the buffers that the method proposes. Evaluation works on a model of its own, so it cannot
touch the one in training.
"""

from __future__ import annotations

import contextlib
import math
from functools import cached_property
from typing import Any

import torch
from torch import nn

from harness.config import BaseConfig, EvaluateConfig
from harness.method import Proposal, Snapshot
from harness.problem.images import Images
from harness.problem.partition import Part, parts_of
from harness.problem.running_norms import reset_statistics, running_norms
from harness.problem.splits import load_split
from harness.randomness import generator
from harness.training.flat_model import FlatModel
from harness.training.out_of_memory import bounded_by
from harness.training.probe import PROBE_IMAGES, mean_loss, probe_images
from harness.training.scores import METRICS, Scores, means

RECALIBRATION_BATCH = 256
"""images whose statistics are taken at once, so that they do not follow from how many are evaluated at once"""


def recalibrate(model: nn.Module, images: Images, memory_format: torch.memory_format) -> None:
    """Set the running statistics of norms to the average of those of batches of `images`; dropout stays off.

    A batch weighs by its images, hence every image alike; a single one that is left over joins the batch before.
    """
    norms = running_norms(model)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    seen = dict.fromkeys(norms, 0)

    def weigh(norm: Any, given: tuple[torch.Tensor, ...]) -> None:
        seen[norm] += len(given[0])
        norm.momentum = len(given[0]) / seen[norm]

    model.eval()
    hooks = [norm.register_forward_pre_hook(weigh) for norm in norms]
    try:
        for norm in norms:
            reset_statistics(norm)
            norm.train()
        with torch.inference_mode():
            for batch, _ in images.batches(RECALIBRATION_BATCH, memory_format):
                model(batch)
    finally:
        for hook, norm, momentum in zip(hooks, norms, momenta, strict=True):
            hook.remove()
            norm.momentum = momentum
            norm.eval()


class Evaluator:
    """Evaluates weights of one base on validation and test data.

    `train` is the training split on `device`, for recalibration; `with_test` gives a handle to the test split, and
    `val_images` restricts validation to the first so many images of its fixed order.
    """

    def __init__(
        self,
        base: BaseConfig,
        config: EvaluateConfig,
        train: Images,
        device: torch.device,
        with_test: bool = True,
        val_images: int | None = None,
    ) -> None:
        from harness.problem.models import build_model  # imports timm: seconds, and jobs alone need it

        self.base = base
        self.config = config
        self.device = device
        self.flat = FlatModel(build_model(base.model, base.dataset, base.seed).to(device))
        self._memory_format = torch.channels_last if base.memory_format == "channels_last" else torch.contiguous_format
        count = min(config.recalibrate_images, len(train))
        order = torch.randperm(len(train), generator=generator(base.dataset.split_seed, "recalibration"))
        self._recalibration = train.subset(order[:count]).held()
        self._train = train
        self._initial_buffers = self.flat.copy_buffers()
        validation = load_split(base.dataset, "val")
        if val_images is not None:
            validation = validation.subset(torch.arange(min(val_images, len(validation))))
        self._splits = {"val": validation.to(device)}
        self.test_correct: torch.Tensor | None = None
        """which test images the last evaluation of them got right, (n,) bool on the CPU in their fixed order"""
        if with_test:
            self._splits["test"] = load_split(base.dataset, "test").to(device)
        self.client_accuracy_K: torch.Tensor | None = None
        """validation accuracy of every client in the last evaluation, in percent, float64; None without clients"""

    @cached_property
    def probe(self) -> Images:
        """The images of `probe_loss`, in memory."""
        return probe_images(self.base, self._train, self.device).held()

    def probe_loss(self, theta_N: torch.Tensor) -> float:
        """The loss of weights on the probe, see `harness.training.probe`; NaN where they are not finite."""
        self.flat.load(theta_N, self._initial_buffers)
        with bounded_by("dataset.probe_size", min(PROBE_IMAGES, len(self.probe))):
            return mean_loss(self.flat.model, self._logits, self.probe, self._memory_format)

    def _logits(self, images_B: torch.Tensor) -> torch.Tensor:
        """Float32 logits in the evaluation model's present mode."""
        with self._autocast():
            logits: torch.Tensor = self.flat.model(images_B)
        return logits.float()

    def splits(self, last: bool) -> tuple[str, ...]:
        """The splits to evaluate at an evaluated epoch: test data at the last only, unless asked for at every."""
        test = "test" in self._splits and (last or self.config.test == "every")
        return ("val", "test") if test else ("val",)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.base.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def prepare(self, snapshot: Snapshot, proposal: Proposal | None, policy: str) -> nn.Module:
        """The evaluation model at a proposal's weights (None: the base's own), its buffers set by `policy`.

        The base's own weights under `averaged`, which models nothing for them, are recalibrated.
        """
        theta_N = snapshot.theta_N if proposal is None else proposal.theta_N
        buffers = snapshot.buffers
        if policy == "averaged" and proposal is not None:
            if proposal.buffers is None:
                raise ValueError("batchnorm averaged needs a proposal with buffers, got none")
            buffers = proposal.buffers
        self.flat.load(theta_N, buffers)
        if policy == "recalibrate" or (policy == "averaged" and proposal is None):
            at_once = min(RECALIBRATION_BATCH, len(self._recalibration))
            with self._autocast(), bounded_by("evaluate.recalibrate_images", at_once):
                recalibrate(self.flat.model, self._recalibration, self._memory_format)
        return self.flat.model.eval()

    def _score(self, images: Images) -> tuple[torch.Tensor, torch.Tensor]:
        """The sums of METRICS of the model as it is, and which images it gets right, on the device: nothing waits for
        them here."""
        scores = Scores(self.device)
        for batch, labels in images.batches(self.config.batch_size, self._memory_format):
            scores.add(self._logits(batch), labels)
        return scores.sums(), scores.correct_n

    def evaluate(
        self, snapshot: Snapshot, proposal: Proposal | None, policy: str, splits: tuple[str, ...]
    ) -> dict[str, float]:
        """`<split>_<metric>` of a proposal, or of the base's own weights where it is None, for every one of METRICS;
        NaN where the weights are not finite. OutOfMemory where the device holds no batch."""
        theta_N = snapshot.theta_N if proposal is None else proposal.theta_N
        if not bool(theta_N.isfinite().all()):
            return {f"{split}_{metric}": math.nan for split in splits for metric in METRICS}
        with bounded_by("evaluate.batch_size", self.config.batch_size):
            self.prepare(snapshot, proposal, policy)
            with torch.inference_mode():
                scored = {split: self._score(self._splits[split]) for split in splits}
                sums = torch.stack([own for own, _ in scored.values()]).tolist()
                if "test" in scored:
                    self.test_correct = scored["test"][1].cpu()
                own = self._clients(scored["val"][1].cpu()) if self.base.federation.clients > 0 else {}
        return {
            f"{split}_{metric}": value
            for split, sums_of in zip(splits, sums, strict=True)
            for metric, value in means(sums_of, len(self._splits[split])).items()
        } | own

    @cached_property
    def _mix_KC(self) -> torch.Tensor:
        """The share of every class among every client's images."""
        labels_n, classes = self._train.labels_B.cpu(), self.base.dataset.classes
        counts = [torch.bincount(labels_n[torch.from_numpy(part)], minlength=classes) for part in self._parts]
        return torch.stack(counts).double()

    @cached_property
    def _parts(self) -> list[Part]:
        return parts_of(self.base, self._train.labels_B)

    def _clients(self, correct_n: torch.Tensor) -> dict[str, float]:
        """How right clients are: every class's validation accuracy, weighed by a client's own mix of the classes that
        validation has. Mean, standard deviation and worst over clients, in percent."""
        labels_n = self._splits["val"].labels_B.cpu()
        seen_C = torch.bincount(labels_n, minlength=self.base.dataset.classes).double()
        right_C = torch.bincount(labels_n[correct_n], minlength=self.base.dataset.classes).double()
        mix_KC = self._mix_KC * (seen_C > 0)
        accuracy_K = 100 * (mix_KC @ (right_C / seen_C.clamp(min=1))) / mix_KC.sum(1)
        self.client_accuracy_K = accuracy_K
        return {
            "client_accuracy": accuracy_K.mean().item(),
            "client_accuracy_std": accuracy_K.std(correction=0).item(),
            "client_accuracy_worst": accuracy_K.min().item(),
        }

    def client_table(self, accuracy_K: torch.Tensor) -> dict[str, list[float]]:
        """A column each: client, images, accuracy, and `class_<c>`, the images of every class."""
        counts_KC = self._mix_KC.long()
        classes = {f"class_{c}": counts_KC[:, c].tolist() for c in range(counts_KC.shape[1])}
        own = {"client": list(range(len(counts_KC))), "images": counts_KC.sum(1).tolist()}
        return {**own, "accuracy": accuracy_K.tolist(), **classes}
