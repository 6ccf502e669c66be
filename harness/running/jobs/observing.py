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
        steps = 1 if self.base.federation.clients > 0 else steps  # a round is one
        keep = self.job.settings.save == "final"
        cells = [self.start_cell(cell) for cell in self.job.cells]
        return Audience(self.base, cells, self.evaluator, self.clock, trajectory, steps, keep)

    def _end_cells(self, audience: Audience, rows: list[Row], moving: float | None) -> None:
        """Write the records of observers and reconstructions, each charged the epochs that it read and its probes.

        `moving` is the share of the base's weights that ever had a gradient, None where nobody watched.
        """
        for entry in audience.cells:
            read = rows[: entry.cell.epochs_read]
            counts = {name: read[-1][name] if read else 0 for name in Counts().as_dict()}
            cost = {
                "train_seconds": read[-1]["train_seconds"] if read else 0.0,
                "epochs": len(read),
                "epochs_full": len(read),
                "epochs_subspace": 0,
                "prefix_epochs": 0,
                "prefix_seconds": 0.0,
                "trainable_fraction": 1.0,
                "moving": moving,
                **counts,
                "forward_passes": counts["forward_passes"] + entry.probed,
            }
            self.end_cell(entry, cost, audience.weights.get(entry.key))
