"""Jobs on a Slurm cluster, by submitit: job arrays, and requeueing before the time limit and after preemption.

A job keeps its state after every epoch, so one that is requeued goes on from its last. submitit's own files (pickled
jobs of this run, Slurm's output) lie in a folder of the results that only its owner can read.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from harness.config import ConfigError, SlurmConfig
from harness.planning.slots import SLURM_JOBS
from harness.running.engine.following import Handed, Task
from harness.running.engine.remote import RemoteEngine
from harness.running.event_files import SLURM

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol")
OVER = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")
"""states that Slurm may still list and never leaves"""


class Requeued(Task):
    """A task that submitit hands in again, as it is, when the time limit is near or the node is taken."""

    def checkpoint(self, *arguments: Any) -> Any:
        """submitit's hook: the same task, which goes on from its last epoch."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments)


class SlurmEngine(RemoteEngine):
    """Submits jobs to Slurm and follows them by their events and by squeue, asked every `poll_seconds`."""

    def __init__(self, config: SlurmConfig, folder: Path) -> None:
        missing = [name for name in COMMANDS if shutil.which(name) is None]
        if missing:
            raise ConfigError(f"engine=slurm needs Slurm's commands on this machine, {missing[0]} is not on the path")
        try:
            import submitit
        except ImportError:
            raise ConfigError("engine=slurm needs the package submitit: pip install 'traindyn[slurm]'") from None
        super().__init__(folder, SLURM_JOBS if config.workers == "auto" else int(config.workers))
        self._poll = config.poll_seconds
        self._polled = 0.0
        self._listed: dict[str, str] | None = None
        self._executor = submitit.SlurmExecutor(folder=folder / SLURM, max_num_timeout=config.requeues)
        self._executor.update_parameters(**sbatch_parameters(config, self.slots))

    def launch(self, waiting: list[Handed]) -> None:
        tasks = [Requeued(one.task.job, one.task.events, one.task.directory) for one in waiting]
        with self._executor.batch():
            handles = [self._executor.submit(task) for task in tasks]
        for handed, handle in zip(waiting, handles, strict=True):
            handed.handle = handle.job_id
        self._polled = 0.0  # the last answer knows nothing of these

    def reasons(self, running: list[Handed]) -> dict[int, str]:
        if time.monotonic() - self._polled >= self._poll:
            self._listed, self._polled = self._queue(), time.monotonic()
        if self._listed is None:  # a controller that is busy or restarting ends no job
            return {}
        states = {id(handed): self._listed.get(handed.handle) for handed in running}
        over = [handed for handed in running if states[id(handed)] is None or states[id(handed)] in OVER]
        return {
            id(handed): f"Slurm job {handed.handle}: {states[id(handed)] or self._last_state(handed.handle)}"
            for handed in over
        }

    def _queue(self) -> dict[str, str] | None:
        """States of this user's jobs by id; None where Slurm does not say."""
        text = _output("squeue", "--me", "--noheader", "--array", "--format=%i %T")
        return None if text is None else dict(line.split(maxsplit=1) for line in text.splitlines() if line.strip())

    @staticmethod
    def _last_state(job_id: str) -> str:
        """What Slurm says of a job that is no longer listed, while it remembers it."""
        text = _output("scontrol", "show", "job", "--oneliner", job_id) or ""
        words = dict(word.partition("=")[::2] for word in text.split())
        return f"{words.get('JobState', 'gone')} (exit code {words.get('ExitCode', 'unknown')})"

    def cancel(self, running: list[Handed]) -> None:
        if running:
            subprocess.run(["scancel", *(handed.handle for handed in running)], capture_output=True, check=False)


def sbatch_parameters(config: SlurmConfig, slots: int) -> dict[str, Any]:
    """A configuration as submitit's names for sbatch's options; those that are not given are left out."""
    given = {
        "partition": config.partition,
        "account": config.account,
        "qos": config.qos,
        "mem": None if config.memory_gb is None else f"{round(config.memory_gb * 1024)}MB",
        "gres": f"gpu:{config.gpus}" if config.gpus else None,
        "setup": list(config.setup) or None,
        "additional_parameters": {"requeue": True, **config.parameters},
    }
    return {
        "job_name": "traindyn",
        "time": config.minutes,
        "cpus_per_task": config.threads,
        "signal_delay_s": config.signal_seconds,
        "array_parallelism": slots,
        "stderr_to_stdout": True,
        **{name: value for name, value in given.items() if value is not None},
    }


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
