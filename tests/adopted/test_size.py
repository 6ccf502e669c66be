"""Memory does not grow with the number of snapshots."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "adopt_cost.py"
VECTOR = 40_000_000
"""bytes of ten million weights in float32"""


def peaks(tmp_path, snapshots):
    """Bytes of anonymous memory that each piece of work takes beside the libraries, of ten million weights."""
    words = ["--weights", "1e7", "--snapshots", snapshots, "--dtype", "bfloat16", "--folder", tmp_path]
    printed = subprocess.run(
        [sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True, check=True
    ).stdout
    found = re.findall(r"^(\S.*?)\s{2,}[\d.]+\s+[\d.]+\s+[\d.]+\s+[\d.]+\s+(\d+)\s+\d+$", printed, flags=re.MULTILINE)
    assert len(found) == 6, printed
    return {name: 1e6 * float(peak) for name, peak in found}


@pytest.mark.long
def test_ninety_snapshots_of_ten_million_weights_fit(tmp_path):
    found = peaks(tmp_path, 90)
    assert found["adopt"] < 5 * VECTOR
    assert found["one pass"] < 5 * VECTOR
    assert found["analyse's pass"] < 10 * VECTOR
    assert found["fit of post-hoc CMD"] < 16 * VECTOR
