"""Every model and every method of `suite=paper` for a moment, on Fashion-MNIST: done, and in how many seconds.

The real command in a folder of its own, 6 epochs of 3 batches each (`fast=true`); it takes 7 GB of disk on the way,
and 8 GB of memory.

    python benchmarks/paper_shrunk.py [--dataset fashion_mnist] [overrides ...]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import load_frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("overrides", nargs="*", help="such as device=cuda or model=[lenet5,resnet18]")
    arguments = parser.parse_args()
    command = [str(Path(sys.executable).parent / "traindyn"), "run", "suite=paper", "fast=true", "tracker=none"]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        words = [*command, f"dataset={arguments.dataset}", f"results_dir={folder}", *arguments.overrides]
        done = subprocess.run(words, check=False)
        taken = time.perf_counter() - began
        frame = load_frame(folder)
    counts = frame.groupby("model", sort=False)["status"].value_counts().unstack(fill_value=0)
    print(counts.to_string())
    print(f"{frame['model'].nunique()} models, {frame['method'].nunique()} methods: {taken:.0f} s")
    raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
