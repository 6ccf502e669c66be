"""How long commands take that have nothing to compute, and how much memory: beside `python -c pass` and `import torch`.

    python benchmarks/command_cost.py [--rounds 5] [--results DIR]

Every command is run once per round, in turn, in a process of its own; printed are medians over the rounds, and the
ratio to `import torch` in the same round. The first word is what a pseudo-terminal shows first after the command was
started. A finished `suite=smoke` is needed for a run with nothing left: it is made first, in DIR or a temporary folder.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

COMMAND = str(Path(sys.executable).parent / "traindyn")
BARE, TORCH = "python -c pass", "import torch"
ENVIRONMENT = {"WANDB_MODE": "disabled", "TERM": "xterm"}


def commands(results: Path) -> dict[str, list[str]]:
    """What is measured, by the name that is printed."""
    suite = [COMMAND, "plan", "suite=quick", f"results_dir={results}"]
    return {
        BARE: [sys.executable, "-c", "pass"],
        TORCH: [sys.executable, "-c", "import torch"],
        "--help": [COMMAND, "--help"],
        "--version": [COMMAND, "--version"],
        "plan suite=quick": suite,
        "run, nothing left": [COMMAND, "run", "suite=smoke", "tracker=none", f"results_dir={results}"],
        "bad input: a key": [*suite, "epoch=3"],
        "bad input: a type": [*suite, "epochs=many"],
        "bad input: a bound": [*suite, "epochs=0"],
        "bad input: of an optimizer": [*suite, "optimizer.sgd_momentum.lr=-1"],
        "bad input: of a method": [*suite, "method.cmd_online.modes=0"],
    }


def measure(words: Sequence[str]) -> tuple[float, float]:
    """Seconds, and MB of memory at the most, of one process and of those that it waits for."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | ENVIRONMENT
    )
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0  # it was waited for
    return time.perf_counter() - begun, used.ru_maxrss / 1024


def first_word(words: Sequence[str]) -> float:
    """Seconds until a terminal shows something."""
    ours, theirs = pty.openpty()
    begun = time.perf_counter()
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | ENVIRONMENT)
    os.close(theirs)
    os.read(ours, 1)
    seconds = time.perf_counter() - begun
    with contextlib.suppress(OSError):  # the process's end closes the terminal
        while os.read(ours, 65536):
            pass
    process.wait()
    os.close(ours)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        results = arguments.results or Path(temporary)
        made = [COMMAND, "run", "suite=smoke", "tracker=none", f"results_dir={results}"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
        measured = commands(results)
        seconds: dict[str, list[float]] = {name: [] for name in measured}
        memory: dict[str, list[float]] = {name: [] for name in measured}
        words: dict[str, list[float]] = {name: [] for name in ("plan suite=quick", "run, nothing left")}
        for words_of in measured.values():
            measure(words_of)  # compiled files, facts that are remembered, the disk's cache
        for _ in range(arguments.rounds):
            for name, words_of in measured.items():
                used = measure(words_of)
                seconds[name].append(used[0])
                memory[name].append(used[1])
            for name, times in words.items():
                times.append(first_word(measured[name]))
    print(f"{'':28}{'seconds':>9}{'x torch':>9}{'MB':>7}{'first word, s':>15}")
    for name in measured:
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds[TORCH], strict=True))
        word = f"{statistics.median(words[name]):15.2f}" if name in words else ""
        print(
            f"{name:28}{statistics.median(seconds[name]):9.2f}{ratio:9.2f}{statistics.median(memory[name]):7.0f}{word}"
        )


if __name__ == "__main__":
    main()
