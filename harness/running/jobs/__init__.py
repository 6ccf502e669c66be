"""The jobs that an engine runs, each in a process of its own.

After each epoch a job writes one atomic bundle with all it needs to go on; only then are its rows told, for W&B. A
job that is started again, after whatever end, goes on from its bundle to the same numbers.
"""

from __future__ import annotations

import importlib
import sys

import torch

from harness.running.jobs.branch import BranchJob
from harness.running.jobs.job import Job, Tell, record_end, record_failure
from harness.running.jobs.train import ReplayJob, ShadowJob, TrainJob
from harness.running.jobs.worker import Worker

__all__ = ["Job", "Tell", "record_end", "record_failure", "run_job"]

KINDS: dict[str, type[Worker]] = {"train": TrainJob, "shadow": ShadowJob, "replay": ReplayJob, "branch": BranchJob}


def run_job(job: Job, tell: Tell) -> None:
    """Run a job to its end in this process; what it has to say goes to `tell`."""
    torch.set_num_threads(job.settings.engine.threads)
    sys.path.extend(path for path in job.python_path if path not in sys.path)
    workers: dict[str, type[Worker]] = importlib.import_module(job.workers).KINDS
    workers[job.kind](job, tell).run()
