"""The course of the script: one part after the other, each in a process of its own, while there is time."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from gpu_parts.findings import Deadline, Findings, Found, read
from gpu_parts.options import Options, lay_out_images
from gpu_parts.report import Document, Part
from harness.running.engine.local import METHOD, on_its_own, run_alone


class Kind(NamedTuple):
    """A part as it is planned."""

    title: str
    module: str
    share: float
    """of the time, beside the other parts'"""


KINDS = {
    "m": Kind("The machine", "machine", 0.05),
    "a": Kind("Methods held to the contract, resume, deterministic mode", "held", 0.27),
    "b": Kind("The loop", "loops", 0.28),
    "c": Kind("CMD where the weights are", "modes", 0.12),
    "d": Kind("A base of suite=fashion with all that watches it", "suite", 0.18),
    "e": Kind("Three seeds at once", "seeds", 0.12),
}
LEAST_SECONDS = 5.0
"""below which no part is begun"""
LOOK_SECONDS = 0.5
"""between looks at a part and at what it found"""
PATIENCE_SECONDS = 3.0
"""from asking a process to end to ending it"""


class Running(Protocol):
    """A part under way."""

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after at most so long."""

    @property
    def exit_code(self) -> int:
        """Of one that has ended; negative for a signal."""

    def end(self) -> None:
        """End it and what it has started, now."""


Start = Callable[[str, Options, float, Path], Running]


def nothing() -> None:
    """The work of a process that is only to show that the server is there that it is forked from."""


class PartProcess:
    """A part in a process, which leads a session of its own with all that it starts."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        with on_its_own():
            process.start()

    def wait(self, seconds: float) -> bool:
        self._process.join(seconds)
        return not self._process.is_alive()

    @property
    def exit_code(self) -> int:
        code = self._process.exitcode
        return 0 if code is None else code

    def end(self) -> None:
        for how in (signal.SIGTERM, signal.SIGKILL):
            # a session of its own, with the jobs that it has started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid or 0, how)
            self._process.join(PATIENCE_SECONDS)
            if not self._process.is_alive():
                return
        self._process.kill()
        self._process.join()


def start_part(letter: str, options: Options, seconds: float, path: Path) -> PartProcess:
    """A part in a process that is forked from a server with all libraries, which never touched a GPU."""
    context = multiprocessing.get_context(METHOD)
    return PartProcess(context.Process(target=run_part, args=(letter, options, seconds, path)))  # type: ignore[attr-defined]


def run_part(letter: str, options: Options, seconds: float, path: Path) -> None:
    """The work of a part's process. What it prints goes beside its findings."""
    os.setsid()
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    printed = os.open(path.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    try:
        work = importlib.import_module(f"gpu_parts.{KINDS[letter].module}")
        work.run(options, Findings(path, Deadline(seconds)))
    except Exception:
        traceback.print_exc()
        sys.exit(1)


class Course:
    """One run of the script."""

    def __init__(self, options: Options, start: Start = start_part, now: Callable[[], float] = time.monotonic) -> None:
        self.options = options
        self._start = start
        self._now = now
        self._deadline = Deadline(60 * options.minutes - PATIENCE_SECONDS, now)
        letters = [letter for letter in KINDS if letter == "m" or letter in options.parts]
        facts: dict[str, Any] = {
            "command": shlex.join(["python", *sys.argv]),
            "began": time.strftime("%Y-%m-%d %H:%M:%S"),
            "device": options.device,
            "minutes": options.minutes,
            "tiny": options.tiny,
            "images": options.images,
        }
        self.document = Document(facts, [Part(letter, KINDS[letter].title) for letter in letters])

    def run(self) -> int:
        """Run all parts that there is time for; the exit code."""
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            lay_out_images(self.options)
            run_alone(nothing)
            for part in self.document.parts:
                self._run(part)
                print(f"{part.letter}. {part.title}: {part.status}, {part.seconds:.0f} s {part.message}", flush=True)
        except KeyboardInterrupt:
            print(f"interrupted; what was finished is in {self.options.out / 'gpu.md'}", file=sys.stderr)
            return 130
        finally:
            signal.signal(signal.SIGTERM, before)
            shutil.rmtree(self.options.work, ignore_errors=True)
        print(self.options.out / "gpu.md")
        return 0 if all(part.as_it_should_be for part in self.document.parts) else 1

    def _run(self, part: Part) -> None:
        """Run a part for its share of what is left."""
        left = self._deadline.left
        if left < LEAST_SECONDS:
            part.status, part.message = "left out", "the time was up"
            self.document.write(self.options.out)
            return
        place = self.document.parts.index(part)
        shares = [KINDS[other.letter].share for other in self.document.parts[place:]]
        part.status, part.limit, began = "running", left * shares[0] / sum(shares), self._now()
        path = self.options.work / f"{part.letter}.jsonl"
        self.document.write(self.options.out)
        running = self._start(part.letter, self.options, part.limit - min(5.0, part.limit / 10), path)
        try:
            while not running.wait(LOOK_SECONDS) and self._now() - began < part.limit:
                self._look(part, path, began)
            ended = running.wait(0)
        except BaseException:
            part.status, part.message = "ended", "it was interrupted"
            running.end()
            self._look(part, path, began)
            self.document.write(self.options.out)
            raise
        if not ended:
            running.end()
        self._look(part, path, began)
        found = part.found or Found()
        if not ended:
            part.status, part.message = "ended", "its time was up"
        elif running.exit_code != 0:
            part.status, part.message = "failed", _why(running.exit_code, path.with_suffix(".log"))
        elif found.failed and not found.tables:
            part.status, part.message = "failed", found.failed[0]
        else:
            part.status = "partly done" if found.failed or found.left_out else "done"
        self.document.write(self.options.out)

    def _look(self, part: Part, path: Path, began: float) -> None:
        """Take over what a part has found since it was looked at last."""
        part.seconds = self._now() - began
        found = read(path)
        if found != part.found:
            part.found = found
            self.document.write(self.options.out)


def _why(code: int, log: Path) -> str:
    """How a process ended, with the last line that it printed."""
    printed = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    last = next((line.strip() for line in reversed(printed) if line.strip()), "it printed nothing")
    return f"{signal.Signals(-code).name if code < 0 else f'exit code {code}'}: {last[:500]}"
