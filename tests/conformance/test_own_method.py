"""A method from outside the project: one Python file, one YAML, and two lines that hold it to the contract."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from command import SECONDS, here, view_folder

MODULE = '''
"""The midpoint between the initial and the present weights."""

from dataclasses import dataclass

from harness.method import Observer, Proposal


@dataclass(eq=False)
class Midpoint(Observer):
    share: float = 0.5

    def __post_init__(self):
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must be from 0 to 1, got {self.share}")

    def begin(self, run):
        self.start_N = self.present_N = None

    def observe(self, snapshot):
        self.present_N = snapshot.theta_N.clone()
        if snapshot.t == 0:
            self.start_N = self.present_N

    def propose(self):
        return Proposal(self.start_N.lerp(self.present_N, self.share))

    def scalars(self):
        return {"distance": float((self.present_N - self.start_N).norm())}

    def state_dict(self):
        return {"start_N": self.start_N, "present_N": self.present_N}

    def load_state_dict(self, state):
        self.start_N, self.present_N = state["start_N"], state["present_N"]
'''
PRESET = """
midpoint:
  _target_: midpoint.Midpoint
  share: 0.5
  batchnorm: recalibrate
  search:
    share: {type: float, low: 0.1, high: 0.9}
  fast: {}
"""
TEST = """
from pathlib import Path

from harness.conformance import MethodConformance


class TestMidpoint(MethodConformance):
    preset, config_dirs = "midpoint", [Path(__file__).parent / "mine"]
"""


@pytest.fixture
def mine(tmp_path) -> Path:
    """A person's folder with their module and preset, and their test beside it."""
    (tmp_path / "mine" / "method").mkdir(parents=True)
    (tmp_path / "mine" / "midpoint.py").write_text(MODULE)
    (tmp_path / "mine" / "method" / "midpoint.yaml").write_text(PRESET)
    (tmp_path / "test_mine.py").write_text(TEST)
    return tmp_path


def test_plan_and_run_find_it(mine):
    given = ("--config-dir", mine / "mine", "method=[base,midpoint]", "fast=true", "tracker=none")
    results = mine / "out"
    plan = here("plan", *given, results=results)
    assert "midpoint" in plan.stdout
    assert not results.exists()
    here("run", *given, results=results)
    frame = pd.read_parquet(view_folder(results) / "frame.parquet")
    assert dict(zip(frame["method"], frame["status"], strict=True)) == dict.fromkeys(
        ("base", "base_recalibrated", "midpoint"), "done"
    )
    history = pd.read_parquet(view_folder(results) / "history.parquet")
    distance = history["distance"].dropna()
    assert len(distance) == 6
    assert (distance > 0).all()


def test_without_its_folder_it_is_unknown(mine):
    plan = here("plan", "method=midpoint", results=mine / "out", code=2)
    assert plan.stderr.startswith("error: method: no preset named 'midpoint'")
    assert len(plan.stderr.splitlines()) == 1


def test_two_lines_hold_it_to_the_contract(mine):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    held = subprocess.run(command, cwd=mine, capture_output=True, text=True, timeout=SECONDS)
    assert held.returncode == 0, held.stdout
    (counts,) = re.findall(r"^(\d+ passed) in ", held.stdout, flags=re.MULTILINE)  # none skipped
    assert int(counts.split()[0]) > 10
