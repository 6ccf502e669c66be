"""Serving observers and reconstructions from the stored snapshots of a base."""

from __future__ import annotations

from typing import ClassVar

from harness.running.audience import Audience
from harness.running.jobs.job import Refused
from harness.running.jobs.observing import ObservingWorker
from harness.storage.inside import is_file
from harness.storage.paths import snapshot_path
from harness.storage.trajectory import StoredTrajectory, read_snapshot


class ReplayWorker(ObservingWorker):
    """Runs epoch-cadence observers and reconstructions from stored snapshots, without training."""

    kind: ClassVar[str] = "replay"

    def work(self) -> None:
        known = self.store.base(self.job.base.key)
        if known is None:
            raise Refused("the base has no record to replay")
        self.base_digest = known["digests"][-1:]
        self.rows = self.store.base_history(self.job.base.key)
        folder = self.folder / "trajectory"
        audience = self._audience(StoredTrajectory(folder, self.device))
        self.open_runs(audience.cells)
        if all(is_file(snapshot_path(folder, t)) for t in range(len(self.rows) + 1)):
            self._feed(audience)
        if known["status"] == "diverged":
            audience.diverge(known["reason"])
        else:
            audience.trajectory = StoredTrajectory(folder, self.device)
            audience.reconstruct(self.rows)
            audience.finish(read_snapshot(folder, self.base.epochs, self.device))
        self._end_cells(audience, self.rows, known.get("moving"))

    def _feed(self, audience: Audience) -> None:
        """Show every stored snapshot to the observers, the present moving with it as it did live."""
        trajectory = audience.trajectory
        trajectory.rewind(-1)
        for entry in audience.cells:
            if entry.cell.kind == "observer" and entry.cell.cadence != "epoch":
                entry.status, entry.reason = "diverged", "its base diverged, and it watches optimizer steps"
        audience.begin()
        for t in range(len(self.rows) + 1) if audience.observers() else ():
            snapshot = read_snapshot(trajectory.folder, t, self.device)
            trajectory.extend(t)
            if t == 0:
                audience.start(snapshot)
            else:
                audience.epoch(snapshot, self.rows[t - 1])
