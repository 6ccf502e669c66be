"""How far an epoch is, without a word to the loop that trains it: its images count the batches taken of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from harness.method import Batch
from harness.problem.images import Images, ImageSet
from harness.running.events import BatchesDone, Tell

TELL_SECONDS = 1.0
"""between two words of a job"""


class _Done:
    """How many batches a device has done, of those that were handed to it.

    A GPU is far behind the loop that fills its queue, so it is asked by events, and never waited for.
    """

    def __init__(self) -> None:
        self.count = 0
        self._handed: deque[torch.cuda.Event] = deque()

    def hand(self, device: torch.device) -> None:
        """All work of another batch is on its way to the device."""
        if device.type != "cuda":
            self.count += 1
            return
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._handed.append(event)
        while self._handed and self._handed[0].query():  # type: ignore[no-untyped-call]
            self._handed.popleft()
            self.count += 1


class CountedImages(Images):
    """Images as they are, whose training batches are told; a batch is handed over when the next one is asked for.

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
        of, done = self.steps(batch_size, limit), _Done()
        first: tuple[int, float] | None = None  # how many were done, and when: the first one takes longer than others
        batches = self._images.train_batches(batch_size, seed, epoch, augment, memory_format, limit)
        for batch in batches:
            now = time.monotonic()
            if first is None and done.count > 0:
                first = done.count, now
            due = self._told is None or now - self._told >= TELL_SECONDS
            if due and first is not None and done.count > first[0]:
                self._told = now
                seconds = max(now - first[1], 1e-9) / (done.count - first[0])
                self._tell(BatchesDone(epoch + 1 - self._before, done.count, of, batch_size / seconds, of * seconds))
            yield batch
            done.hand(batch.images_B.device)
