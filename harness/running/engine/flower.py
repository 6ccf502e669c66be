"""Jobs in ServerApps of Flower's, their clients in its ClientApps: on a simulation that this starts, or on a SuperLink
whose SuperNodes are the clients.

A ServerApp runs one job after the other, since a simulation takes long to start. The results folder must be shared by
the machine of the SuperLink: jobs are handed over in it, and what they leave there is how they are resumed.
"""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

from harness.config import ConfigError, FlowerConfig
from harness.processes import cores
from harness.running.engine.following import FollowingEngine, Gone, Handed
from harness.running.flower.link import Joined, LinkFailed, Run, Simulation, answers
from harness.validation import reason


class FlowerEngine(FollowingEngine):
    """Runs jobs on bases of `clients` clients each, in as many ServerApps at once as `workers` says, one with auto."""

    def __init__(self, config: FlowerConfig, folder: Path, clients: set[int]) -> None:
        if importlib.util.find_spec("flwr") is None:
            raise ConfigError("engine=flower needs the package flwr: pip install 'traindyn[flower]'")
        super().__init__(folder, 1 if config.workers == "auto" else int(config.workers))
        self._config = config
        self._clients = max(clients)
        self._started = 0
        self._runs: dict[int, Run] = {}
        """those that are busy, by `id` of what they were handed"""
        self._idle: list[Run] = []
        if config.superlink is not None:
            self._check_link(config.superlink, clients)
        self._link: Simulation | Joined | None = None
        try:
            self._idle.append(run := self._start())
            run.wait_ready()
        except LinkFailed as error:
            self.close()
            key = "engine=flower" if config.superlink is None else f"engine.superlink={config.superlink}"
            raise ConfigError(f"{key}: {reason(error)}") from None
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _check_link(address: str, clients: set[int]) -> None:
        if len(clients) > 1:
            found = ", ".join(map(str, sorted(clients)))
            raise ConfigError(f"engine.superlink takes bases of one number of clients, its nodes, got {found}")
        try:
            answers(address)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"engine.superlink must be host:port of a SuperLink that answers, got {address!r}: {reason(error)}"
            ) from None

    def _start(self) -> Run:
        """A run of the app, on a simulation that is started where there is none or it is gone."""
        home, config = self.folder / "flower", self._config
        if config.superlink is not None:
            self._link = Joined(config.superlink)
        elif self._link is None or not self._link.alive:
            at_once = cores() // config.threads if config.clients == "auto" else int(config.clients)
            self._link = Simulation(home / f"link{self._started}", max(1, at_once), config.threads)
        self._started += 1
        results = self.folder.parent.parent
        return Run(self._link, home / f"run{self._started}", results, self._clients, config.nodes_seconds)

    def launch(self, waiting: list[Handed]) -> None:
        for handed in waiting:
            self._idle = [run for run in self._idle if run.alive]
            run = self._idle.pop() if self._idle else self._start()
            run.desk.put(handed.task)
            self._runs[id(handed)] = handed.handle = run

    def gone(self, running: list[Handed]) -> list[Gone]:
        """Jobs that said so, and those whose ServerApp refused its nodes or is gone."""
        found = []
        for handed in running:
            run: Run = handed.handle
            if handed.ended:
                self._idle.append(self._runs.pop(id(handed)))
                found.append(Gone(handed, None))
            elif not run.alive or run.desk.refused is not None:
                run.end()
                del self._runs[id(handed)]
                found.append(Gone(handed, run.desk.refused or "its ServerApp of Flower's is gone"))
        return found

    def cancel(self, running: list[Handed]) -> None:
        for handed in running:
            self._runs.pop(id(handed)).end()

    def close(self) -> None:
        super().close()
        for run in self._idle:
            with contextlib.suppress(OSError):
                run.leave()
        self._idle.clear()
        if self._link is not None:
            self._link.end()
            self._link = None
