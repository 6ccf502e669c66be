"""What jobs share that show a base to the cells that observe it, while it trains or from its snapshots."""

from __future__ import annotations

from harness.running.audience import Audience, Row
from harness.running.jobs.worker import Worker
from harness.storage.trajectory import StoredTrajectory
from harness.training.clock import Counts


class ObservingWorker(Worker):
    """Runs a base together with the observers and reconstructions among its cells."""

    def _audience(self, trajectory: StoredTrajectory) -> Audience:
        steps = self.images.steps(self.base.batch_size, self.base.batches_per_epoch)
        keep = self.job.settings.save == "final"
        cells = [self.start_cell(cell) for cell in self.job.cells]
        return Audience(self.base, cells, self.evaluator, self.clock, trajectory, steps, keep)

    def _end_cells(self, audience: Audience, rows: list[Row], counts: Counts) -> None:
        """Write the records of observers and reconstructions."""
        train_seconds = rows[-1]["train_seconds"] if rows else 0.0
        for entry in audience.cells:
            cost = {
                "train_seconds": train_seconds,
                "epochs": len(rows),
                "epochs_full": len(rows),
                "epochs_subspace": 0,
                "prefix_epochs": 0,
                "prefix_seconds": 0.0,
                "trainable_fraction": 1.0,
                **counts.as_dict(),
            }
            self.end_cell(entry, cost, audience.weights.get(entry.key))
