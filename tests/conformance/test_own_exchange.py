"""An exchange from outside the project is planned, and two lines hold it to the contract; a breach is named."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import SECONDS, here

from harness.conformance import ExchangeConformance, MethodConformance
from harness.validation import ConfigError

PAGE = Path(__file__).parents[2] / "docs" / "federated.md"
FILES = re.compile(r'^```(?:python|yaml) title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@pytest.fixture
def mine(tmp_path):
    """What docs/federated.md has its reader write."""
    for path, content in FILES.findall(PAGE.read_text()):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    return tmp_path


def test_plan_finds_it(mine):
    given = ("--config-dir", mine / "mine", "method=[base,fed_signs]", "federation=iid_10", "tracker=none")
    assert "fed_signs" in here("plan", *given, results=mine / "out").stdout


def held(folder):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)


@pytest.mark.long
def test_two_lines_hold_it_to_the_contract(mine):
    found = held(mine)
    assert found.returncode == 0, found.stdout
    (counts,) = re.findall(r"^(\d+ passed) in ", found.stdout, flags=re.MULTILINE)
    assert int(counts.split()[0]) > 15


SMUGGLED = """
    def down(self, k, theta_N):
        type(self).step = 0.01 * (1 + k)
        return super().down(k, theta_N)

    def start(self, client, payload):
        return payload["theta_N"] * type(self).step
"""
"""what the server leaves in the class, and no payload brings"""
WRITTEN = """
    def start(self, client, payload):
        return payload["theta_N"].mul_(0.5)
"""
BREACHES = {
    "a client knows nothing but its payloads": ("    def up(self", f"{SMUGGLED}\n    def up(self"),
    "A payload is never written into": ("    def up(self", f"{WRITTEN}\n    def up(self"),
    "makes the new weights of all answers": ("* (2 * votes_N - 1).float()", "* (2 * votes_N - 1)"),
}


@pytest.mark.long
@pytest.mark.parametrize("clause", BREACHES)
def test_a_breach_is_named(mine, clause):
    path = mine / "mine" / "fed_signs.py"
    before, after = BREACHES[clause]
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after, 1))
    found = held(mine)
    assert found.returncode == 1
    assert clause in found.stdout


def test_suites_are_of_their_kind():
    with pytest.raises(ConfigError, match=r"method.fed_half must be held by ExchangeConformance"):
        type("Suite", (MethodConformance,), {"preset": "fed_half"})
    with pytest.raises(ConfigError, match=r"method.swa._target_ must be an Exchange, got SWA"):
        type("Suite", (ExchangeConformance,), {"preset": "swa"})
