"""What tracking costs: a suite of many small cells with the tracker off, offline, and online at a server on loopback.

The whole command is timed, in turn and several times, each time in a fresh results folder; then the online folder's
records are published to a server that knows nothing. Seconds in tracking are those by which the whole command is longer
than with the tracker off, less what repeated runs with the tracker off differ by.

    python benchmarks/tracking_cost.py [--repeats 3] [overrides, such as seeds=[0,1]]
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from wandb_server import WandbServer

COMMAND = Path(sys.executable).parent / "traindyn"
DEFAULTS = ("suite=smoke", "seeds=[" + ",".join(map(str, range(22))) + "]")
"""22 bases of digits with 9 methods each, 198 cells"""
MODES = {"off": "tracker=none", "offline": "tracker.mode=offline", "online": "tracker.mode=online"}


def environment(server: WandbServer | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return {**kept, "NETRC": os.devnull, "WANDB_CONFIG_DIR": "/nonexistent", **(server.environment() if server else {})}


def timed(*words: str, server: WandbServer | None) -> tuple[float, float, str]:
    """Seconds on the wall and in CPUs of all processes of a command, and what it printed."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run([COMMAND, *words], env=environment(server), capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - start, os.times()
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, cpu, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    rates: list[float] = []
    cells = 0
    for repeat in range(given.repeats):
        order = list(MODES) if repeat % 2 == 0 else list(reversed(MODES))
        for mode in order:
            with tempfile.TemporaryDirectory() as folder, WandbServer() as server:
                words = (*DEFAULTS, *given.overrides, f"results_dir={folder}/results")
                used = server if mode == "online" else None
                seconds[mode].append(timed("run", *words, MODES[mode], server=used)[0])
                if mode != "online":
                    continue
                cells = len(server.runs) - 1
                with WandbServer() as empty:
                    where = ("suite=smoke", f"results_dir={folder}/results")
                    took, _, said = timed("publish", *where, server=empty)
                    nothing, _, _ = timed("publish", *where, server=empty)
                    sent = int(re.search(r"(\d+) sent", said)[1])
                    rates.append(sent / (took - nothing))
    base = statistics.median(seconds["off"])
    print(f"{' '.join((*DEFAULTS[:1], *given.overrides))}: {cells} cells, {given.repeats} repeats, median (min, max)")
    for mode, values in seconds.items():
        ratio = statistics.median(values) / base
        spread = f"({min(values):.1f}, {max(values):.1f})"
        print(f"tracker {mode:8s} {statistics.median(values):8.1f} s {spread:16s} {ratio:6.3f} of off")
    print(f"publish to a server that knows nothing: {statistics.median(rates):.1f} runs per second")


if __name__ == "__main__":
    main()
