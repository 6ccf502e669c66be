"""Running a trained base again, for cells that its stored snapshots cannot serve."""

from __future__ import annotations

from typing import ClassVar

from harness.running.jobs.job import Refused
from harness.running.jobs.train import TrainWorker


class ShadowWorker(TrainWorker):
    """Repeats a base, whose weights must have the recorded digest after every epoch."""

    kind: ClassVar[str] = "shadow"
    bundle_name = "shadow.safetensors"

    def work(self) -> None:
        self.expected = self.store.base(self.job.base.key)
        if self.expected is None:
            raise Refused("the base has no record to compare with")
        self.expected_rows = self.store.base_history(self.job.base.key)
        with self.threads_of(self.expected):
            self.follow()
