"""Flower's own processes: a SuperLink that simulates nodes, and runs of the app on it or on one that is joined.

Each is started by a process that ends it, and all that it started, when this one is gone. They listen on loopback, send
no telemetry, look for no updates, install nothing, and have all their files in the command's folder of events.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

from harness.running.flower.desk import Desk

LOOPBACK = "127.0.0.1"
NAME = "traindyn"
ANSWER_SECONDS = 10
START_SECONDS = 300
"""until a SuperLink of our own answers"""
PATIENCE_SECONDS = 15
"""until what was asked to end is killed"""


class LinkFailed(Exception):
    """A process of Flower's ended, or never answered."""


def answers(address: str) -> None:
    """OSError where nobody listens at host:port, ValueError where that is no address."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ValueError("it is not host:port")
    socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()


def free_port() -> int:
    """One on loopback that nobody listens at."""
    with socket.socket() as found:
        found.bind((LOOPBACK, 0))
        port: int = found.getsockname()[1]
        return port


def environment(home: Path) -> dict[str, str]:
    """Of all that is Flower's, and of Ray below it."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # what keeps Ray on the loopback address on other systems than Linux; Flower passes it no address
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


class Watched:
    """A process of Flower's whose words go to a file."""

    def __init__(self, words: list[str], home: Path, log: Path) -> None:
        self._log = log
        with open(log, "wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "harness.running.flower.link", *words],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env=environment(home),
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def last_words(self) -> str:
        """The last line of what it said."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "it said nothing"

    def wait(self, seconds: float) -> None:
        """For its own end, so long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def end(self) -> None:
        """End it, and all that it started."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self.wait(2 * PATIENCE_SECONDS)


class Simulation:
    """A SuperLink of our own that simulates nodes, so many at work at once."""

    def __init__(self, home: Path, at_once: int, threads: int) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.address = f"{LOOPBACK}:{free_port()}"
        self.options = {"init-args-num-cpus": at_once * threads, "client-resources-num-cpus": threads}
        port = self.address.rpartition(":")[2]
        words = ["flower-superlink", "--insecure", "--simulation", "--host", LOOPBACK, "--port", port]
        self._process = Watched([*words, "--disable-runtime-dependency-installation"], home, home / "superlink.log")
        deadline = time.monotonic() + START_SECONDS
        while self._process.alive and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                answers(self.address)
                return
            time.sleep(0.1)
        self.end()
        raise LinkFailed(f"Flower's SuperLink did not start: {self._process.last_words}")

    @property
    def alive(self) -> bool:
        return self._process.alive

    def end(self) -> None:
        self._process.end()


class Joined:
    """A SuperLink that somebody else has started."""

    options: dict[str, int] = {}  # noqa: RUF012  the same for all
    alive = True

    def __init__(self, address: str) -> None:
        self.address = address

    def end(self) -> None:
        pass


class Run:
    """A run of the app: its ServerApp takes jobs from a desk in `folder`, which lies in the folder of events."""

    def __init__(self, link: Simulation | Joined, folder: Path, results: Path, clients: int, seconds: float) -> None:
        self.desk = Desk(folder)
        app, home = folder / "app", folder / "home"
        app.mkdir(parents=True)
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{NAME}"\n\n[superlink.{NAME}]\naddress = "{link.address}"\ninsecure = true\n',
            encoding="utf-8",
        )
        config = {
            "desk": str(folder),
            "results": str(results),
            "clients": clients,
            "seconds": seconds,
            "simulated": isinstance(link, Simulation),
        }
        (app / "pyproject.toml").write_text(_project(config), encoding="utf-8")
        words = ["flwr", "run", str(app), NAME, "--stream"]
        if link.options:
            options = {"num-supernodes": clients, **link.options}
            words += ["--federation-config", " ".join(f"{key}={value}" for key, value in options.items())]
        self._process = Watched(words, home, folder / "run.log")

    @property
    def alive(self) -> bool:
        return self._process.alive

    def wait_ready(self) -> None:
        """Until it takes jobs; LinkFailed where it never will."""
        while not self.desk.ready:
            if self.desk.refused is not None:
                raise LinkFailed(self.desk.refused)
            if not self.alive:
                raise LinkFailed(f"Flower's run of the app ended: {self._process.last_words}")
            time.sleep(0.1)

    def leave(self) -> None:
        """No more jobs: it ends on its own, or is ended."""
        self.desk.end()
        self._process.wait(PATIENCE_SECONDS)
        self._process.end()

    def end(self) -> None:
        """Leave the job that it runs."""
        self.desk.stop()
        self._process.end()


def _project(config: dict[str, object]) -> str:
    """The file that makes a folder an app of Flower's; its modules are the installed package's."""
    lines = [
        *("[project]", f'name = "{NAME}"', 'version = "1.0.0"', f'description = "{NAME}"', 'license = "MIT"'),
        *("dependencies = []", "", "[tool.flwr.app]", f'publisher = "{NAME}"', ""),
        *("[tool.flwr.app.components]", 'serverapp = "harness.running.flower.app:server"'),
        *('clientapp = "harness.running.flower.app:client"', "", "[tool.flwr.app.config]"),
        *(f"{key} = {json.dumps(value)}" for key, value in config.items()),
    ]
    return "\n".join(lines) + "\n"


def _watch(words: list[str], pipe: BinaryIO) -> int:
    """Run a command until it ends, or until nobody holds the other end of a pipe; nothing of it stays."""
    program = shutil.which(words[0])
    if program is None:
        print(f"no command {words[0]}")
        return 1
    process = subprocess.Popen([program, *words[1:]], stdin=subprocess.DEVNULL)

    def end_with_pipe() -> None:
        pipe.read()
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_SECONDS)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=end_with_pipe, daemon=True).start()
    return process.wait()


if __name__ == "__main__":
    sys.exit(_watch(sys.argv[1:], sys.stdin.buffer))
