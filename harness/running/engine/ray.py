"""Jobs on a Ray cluster, or on a local one that this starts; not retried by Ray. A worker of Ray's runs each in a
process of its own, forked from a server that has imported the libraries once, as on this machine.

The results folder must be shared by the cluster's machines: what a job leaves there is how it is resumed.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from harness.config import ConfigError, RayConfig
from harness.running.engine.following import Handed, Task
from harness.running.engine.local import run_alone
from harness.running.engine.remote import RemoteEngine
from harness.storage.sockets import room_for_sockets
from harness.validation import reason

CONNECT_SECONDS = 10
MOST_BYTES = 30
"""of a temporary folder's path: Ray makes sockets some seventy characters further down"""


def _run(task: Task) -> None:
    run_alone(task)


def _check_answers(address: str) -> None:
    """OSError where nobody listens at host:port; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


class RayEngine(RemoteEngine):
    """Starts jobs as Ray tasks with `threads` CPUs and `gpus` GPUs each."""

    def __init__(self, config: RayConfig, folder: Path) -> None:
        try:
            import ray
        except ImportError:
            raise ConfigError("engine=ray needs the package ray: pip install 'traindyn[ray]'") from None
        self._ray: Any = ray
        self._owned = not self._ray.is_initialized()
        local = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"} if config.address == "local" else {}
        address = None if local else config.address
        try:
            if self._owned:
                _check_answers(config.address)
                with room_for_sockets(MOST_BYTES):
                    self._ray.init(address=address, log_to_driver=False, logging_level="error", **local)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"engine.address must be a cluster that answers, got {config.address!r}: {reason(error)}"
            ) from None
        there = self._ray.cluster_resources()
        if config.gpus > there.get("GPU", 0.0):
            raise ConfigError(
                f"engine.gpus must be at most {there.get('GPU', 0.0):g}, the cluster's GPUs, got {config.gpus:g}"
            )
        rooms = [there.get("CPU", 1.0) // config.threads]
        if config.gpus > 0:
            rooms.append(there["GPU"] // config.gpus)
        super().__init__(folder, max(1, int(min(rooms))) if config.workers == "auto" else int(config.workers))
        resources = {"num_cpus": config.threads, "num_gpus": config.gpus}
        self._task = self._ray.remote(max_retries=0, **resources)(_run)

    def launch(self, waiting: list[Handed]) -> None:
        for handed in waiting:
            handed.handle = self._task.remote(handed.task)

    def reasons(self, running: list[Handed]) -> dict[int, str]:
        of = {handed.handle: handed for handed in running}
        ready, _ = self._ray.wait(list(of), num_returns=len(of), timeout=0) if of else ([], [])
        return {id(of[handle]): self._reason(handle) for handle in ready}

    def _reason(self, handle: Any) -> str:
        try:
            self._ray.get(handle)
        except Exception as error:
            lines = str(error).strip().splitlines()
            return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
        return "Ray task ended without a word"

    def cancel(self, running: list[Handed]) -> None:
        for handed in running:
            self._ray.cancel(handed.handle, force=True)

    def close(self) -> None:
        super().close()
        if self._owned:
            self._ray.shutdown()
