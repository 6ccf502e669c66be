"""A Slurm of one node and three partitions, on loopback, from Debian's packages and without systemd."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
SECONDS = 60

CONFIG = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
ReturnToService=2
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=low Nodes=localhost Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=0 MaxTime=INFINITE State=UP
PartitionName=short Nodes=localhost PreemptMode=REQUEUE MaxTime=1 State=UP
PartitionName=high Nodes=localhost PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """What is not installed of what this needs, if anything."""
    return next((name for name in PROGRAMS if shutil.which(name) is None), None)


def _port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class SlurmCluster:
    """Started on entry, gone on exit; `environment` makes Slurm's commands speak to it."""

    def __init__(self, folder: Path, cpus: int = 2) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._config = folder / "slurm.conf"
        values = {"controller": _port(), "daemon": _port(), "folder": folder, "host": socket.gethostname()}
        folder.mkdir(parents=True)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        self._config.write_text(CONFIG.format(cpus=cpus, **values))
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self._config)}

    def _start(self, *command: str) -> None:
        log = open(self.folder / f"{command[0]}.out", "wb")  # noqa: SIM115
        environment = {**os.environ, **self.environment}
        self._processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        log.close()

    def call(self, *command: str) -> str:
        """What one of Slurm's commands prints."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def jobs(self) -> list[str]:
        """The ids of all jobs that wait, run or are being ended."""
        return self.call("squeue", "--noheader", "--array", "--format=%i").split()

    def take_the_node(self, command: str) -> str:
        """Run a shell command on the whole node before all others; its job's id."""
        options = ("--parsable", "--partition=high", "--exclusive", "--output=/dev/null", f"--wrap={command}")
        return self.call("sbatch", *options).strip()

    def start_at_once_when_requeued(self, identity: str) -> None:
        """Wait until a job that ran waits again, and spare it the two minutes for which Slurm then holds it back."""
        self._wait(f"requeueing of {identity}", ("scontrol", "show", "job", "--oneliner", identity), "Restarts=1 ")
        self._wait(f"requeueing of {identity}", ("scontrol", "show", "job", "--oneliner", identity), "JobState=PENDING")
        self.call("scontrol", "update", f"JobId={identity}", "StartTime=now")

    def _wait(self, what: str, command: tuple[str, ...], expected: str) -> None:
        deadline = time.monotonic() + SECONDS
        said = ""
        while time.monotonic() < deadline:
            try:
                said = self.call(*command)
            except subprocess.CalledProcessError as error:
                said = error.stderr
            if expected in said:
                return
            time.sleep(0.1)
        logs = "\n".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("*.log")))
        raise TimeoutError(f"{what} did not come: {said}\n{logs}")

    def wait_until_empty(self) -> None:
        """No job is listed any more; TimeoutError."""
        deadline = time.monotonic() + SECONDS
        while self.call("squeue", "--noheader"):
            if time.monotonic() > deadline:
                raise TimeoutError("jobs do not end")
            time.sleep(0.1)

    def __enter__(self) -> SlurmCluster:
        folder = self.folder
        os.chmod(folder, 0o755)
        self._start(
            "munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={folder}/munge.key",
            f"--log-file={folder}/munged.log", f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munge.seed",
        )  # fmt: skip
        deadline = time.monotonic() + SECONDS
        while not (folder / "munge.socket").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        self._start("slurmctld", "-D", "-f", str(self._config))
        self._wait("slurmctld", ("scontrol", "ping"), "UP")
        self._start("slurmd", "-D", "-f", str(self._config), "-N", "localhost")
        self._wait("slurmd", ("sinfo", "--noheader", "--partition=low", "--format=%T"), "idle")
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.CalledProcessError, TimeoutError):
            self.call("scancel", f"--user={os.getuid()}")
            self.wait_until_empty()
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
