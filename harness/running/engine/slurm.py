"""Jobs on a Slurm cluster, by submitit: job arrays, and requeueing before the time limit and after preemption.

A job keeps its state after every epoch, so one that is requeued goes on from its last. submitit's own files (pickled
jobs of this run, Slurm's output) lie in a folder of the results that only its owner can read.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from harness.config import ConfigError, SlurmConfig
from harness.planning.slots import SLURM_JOBS
from harness.running.engine.following import Handed, Task
from harness.running.engine.remote import RemoteEngine
from harness.running.event_files import SLURM

MOST_LINES = 50
"""of a lost job's output that its log takes over"""
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol")
OVER = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")
"""states that Slurm may still list and never leaves"""
ORDINARY = ("None", "Priority", "Resources", "BeginTime", "JobArrayTaskLimit", "Cleaning", "Prolog")
"""why Slurm has a job wait that will start by itself"""


class Queued(NamedTuple):
    """A job as squeue lists it: its state, and why it waits where it does."""

    state: str
    reason: str


NOT_LISTED = Queued("", "")


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
        self._polled = -math.inf
        self._listed: dict[str, Queued] | None = None
        self._said: set[str] = set()
        """reasons to wait that were told"""
        self._news: list[tuple[Handed, str]] = []
        self._executor = submitit.SlurmExecutor(folder=folder / SLURM, max_num_timeout=config.requeues)
        self._executor.update_parameters(**sbatch_parameters(config, self.slots))

    def launch(self, waiting: list[Handed]) -> None:
        tasks = [Requeued(one.task.job, one.task.events, one.task.directory) for one in waiting]
        with self._executor.batch():
            handles = [self._executor.submit(task) for task in tasks]
        for handed, handle in zip(waiting, handles, strict=True):
            handed.handle = handle.job_id
        self._polled = -math.inf  # the last answer knows nothing of these

    def reasons(self, running: list[Handed]) -> dict[int, str]:
        if time.monotonic() - self._polled >= self._poll:
            self._listed, self._polled = self._queue(), time.monotonic()
        if self._listed is None:  # a controller that is busy or restarting ends no job
            return {}
        self._news += self._stuck(running, self._listed)
        states = {id(handed): self._listed.get(handed.handle, NOT_LISTED).state for handed in running}
        over = [handed for handed in running if states[id(handed)] in ("", *OVER)]
        return {
            id(handed): f"Slurm job {handed.handle}: {states[id(handed)] or self._last_state(handed.handle)}"
            for handed in over
        }

    def _stuck(self, running: list[Handed], listed: dict[str, Queued]) -> Iterator[tuple[Handed, str]]:
        """A line on the first job that waits for a reason that does not go by itself, and that was not told yet."""
        for handed in running:
            state, reason = listed.get(handed.handle, NOT_LISTED)
            if state == "PENDING" and reason not in (*ORDINARY, *self._said):
                self._said.add(reason)
                yield handed, f"{handed.job.label}: Slurm job {handed.handle} waits: {reason}"

    def news(self) -> list[tuple[Handed, str]]:
        news, self._news = self._news, []
        return news

    def output(self, handed: Handed) -> str:
        """The last lines of Slurm's own file of a job, such as what its node says of memory."""
        for path in sorted((self.folder / SLURM).glob(f"{handed.handle}_*_log.out")):
            with contextlib.suppress(OSError):
                return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-MOST_LINES:])
        return ""

    @staticmethod
    def _queue() -> dict[str, Queued] | None:
        """This user's jobs by id; None where Slurm does not say."""
        text = _output("squeue", "--me", "--noheader", "--array", "--format=%i %T %r")
        lines = [line.split(maxsplit=2) for line in (text or "").splitlines() if line.strip()]
        return None if text is None else {identity: Queued(state, reason) for identity, state, reason in lines}

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
