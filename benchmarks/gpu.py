"""All that a GPU has to show of this project, in one command and a few minutes, the most telling first.

a. every method held to the contract on the GPU, a job that is killed and goes on, deterministic mode repeating itself
b. the loop for ResNet-18 against one written by hand and one behind a DataLoader, by precision and compiler
c. CMD on the GPU against reading the trajectory there once
d. a base of suite=fashion with all observers and two branchers, beside the plain loop and beside the CPU
e. three seeds on one GPU at once against one after the other

Each part runs in a process of its own, for its share of the minutes that are left. What is finished is in gpu.md and
gpu.json in the folder, which are written anew as it comes in; what fails, for want of memory too, says so there, and
the rest goes on. Runs from the repository without installation, where the packages are that --wheels lists. Exit code
0: all that there was time for is as it should be, 1: something is not or failed, 2: it cannot start, 130: interrupted.

    python benchmarks/gpu.py [--minutes 8] [--out results/gpu] [--data FOLDER] [--device cuda] [--tiny] [--parts abcde]
    python benchmarks/gpu.py --wheels > wheels.txt   # then, with a network: pip download --no-deps -r wheels.txt
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
for folder in (str(ROOT), str(Path(__file__).resolve().parent)):
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)

OLDEST = (3, 11)


class Parser(argparse.ArgumentParser):
    """Errors in one line."""

    def error(self, message: str) -> NoReturn:
        refuse(message)


def refuse(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="after which it has ended (default 8)")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu", help="folder of gpu.md and gpu.json")
    parser.add_argument("--data", type=Path, help="folder of Fashion-MNIST's four files, gzipped or not")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="everything as small as it goes, to see that it works")
    parser.add_argument("--parts", default="abcde", help="which, in the order in which they are told above")
    parser.add_argument("--wheels", action="store_true", help="list what a machine with torch alone needs, and leave")
    given = parser.parse_args(words)
    if not 0 < given.minutes <= 24 * 60:
        refuse(f"--minutes must be above 0 and at most {24 * 60}, got {given.minutes:g}")
    if not given.parts or not set(given.parts) <= set("abcde"):
        refuse(f"--parts must be some of abcde, got {given.parts!r}")
    return given


def main(words: list[str] | None = None) -> int:
    if sys.version_info < OLDEST:
        refuse(f"Python must be 3.11 or newer, got {sys.version.split()[0]}")
    given = arguments(words)
    from gpu_parts.packages import missing, wheels

    if given.wheels:
        print("\n".join(wheels(ROOT)))
        return 0
    if lacking := missing(ROOT):
        refuse(
            f"missing packages: {', '.join(lacking)}; python {Path(__file__).name} --wheels lists them with versions"
        )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    from gpu_parts.course import Course
    from gpu_parts.options import BadInput, options

    try:
        chosen = options(given)
        return Course(chosen).run()
    except BadInput as error:
        refuse(str(error))


if __name__ == "__main__":
    raise SystemExit(main())
