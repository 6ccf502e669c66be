"""How far an epoch is, without a word to the loop that trains it: its images count the batches taken of them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from harness.method import Batch
from harness.problem.images import Images, ImageSet
from harness.running.events import BatchesDone, Tell

TELL_SECONDS = 1.0
"""between two words of a job"""
FIRST = 2
"""batches after which a job first says how fast it is: the first one takes longer than others"""


class CountedImages(Images):
    """Images as they are, whose training batches are told; a batch is done when the next one is asked for.

    `before`: epochs of the run's clock that are not the job's own.
    """

    def __init__(self, images: Images, tell: Tell, before: int = 0) -> None:
        self._images = images
        self._tell = tell
        self._before = before
        self._told: float | None = None

    @property
    def labels_B(self) -> Tensor:
        return self._images.labels_B

    def __len__(self) -> int:
        return len(self._images)

    def to(self, device: torch.device | str) -> CountedImages:
        return CountedImages(self._images.to(device), self._tell, self._before)

    def subset(self, indices: Tensor) -> CountedImages:
        return CountedImages(self._images.subset(indices), self._tell, self._before)

    def labelled(self, labels_B: Tensor) -> CountedImages:
        return CountedImages(self._images.labelled(labels_B), self._tell, self._before)

    def held(self) -> ImageSet:
        return self._images.held()

    def steps(self, batch_size: int, limit: int | None = None) -> int:
        return self._images.steps(batch_size, limit)

    def batches(
        self, batch_size: int, memory_format: torch.memory_format = torch.contiguous_format
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return self._images.batches(batch_size, memory_format)

    def train_batches(
        self,
        batch_size: int,
        seed: int,
        epoch: int,
        augment: bool = True,
        memory_format: torch.memory_format = torch.contiguous_format,
        limit: int | None = None,
    ) -> Iterator[Batch]:
        of, first_done = self.steps(batch_size, limit), 0.0
        batches = self._images.train_batches(batch_size, seed, epoch, augment, memory_format, limit)
        for done, batch in enumerate(batches):
            now = time.monotonic()
            if done == 1:
                first_done = now
            if done >= FIRST and (self._told is None or now - self._told >= TELL_SECONDS):
                self._told = now
                seconds = max(now - first_done, 1e-9) / (done - 1)
                self._tell(BatchesDone(epoch + 1 - self._before, done, of, batch_size / seconds, of * seconds))
            yield batch
