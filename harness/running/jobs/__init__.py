"""The jobs that an engine runs, each in a process of its own.

After an epoch, but at most once in `trajectory.bundle_seconds`, a job writes one atomic bundle with all it needs to go
on; only then are its rows told, for W&B. A job that is started again, after whatever end, goes on from its bundle to
the same numbers.
"""

from __future__ import annotations

import sys

import torch

from harness.federated.elsewhere import Connect
from harness.running.events import Tell
from harness.running.jobs.adopted import AdoptedWorker
from harness.running.jobs.branch import BranchWorker
from harness.running.jobs.job import Job, ended, note_loss, record_end, record_failure
from harness.running.jobs.replay import ReplayWorker
from harness.running.jobs.shadow import ShadowWorker
from harness.running.jobs.train import TrainWorker
from harness.running.jobs.worker import Worker

__all__ = ["WORKERS", "Job", "Worker", "ended", "note_loss", "record_end", "record_failure", "run_job"]

WORKERS: dict[str, type[Worker]] = {
    one.kind: one for one in (TrainWorker, ReplayWorker, ShadowWorker, BranchWorker)
} | {"adopted": AdoptedWorker}
"""what runs the jobs of a suite, by kind"""


def run_job(job: Job, tell: Tell, connect: Connect | None = None) -> None:
    """Run a job to its end in this process; what it has to say goes to `tell`.

    `connect` makes the transport to clients of a federation elsewhere; None: this process and its own train them.
    """
    torch.set_num_threads(job.settings.engine.threads)
    sys.path.extend(path for path in job.python_path if path not in sys.path)
    job.worker(job, tell, connect).run()
