"""The scripts of examples/ run, show pictures, and stand in the documentation as they are."""

import re
import subprocess
import sys
from unittest import mock

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from command import traindyn
from pages import DOCS, ROOT

sys.path.insert(0, str(DOCS / "tools"))

import examples

NAMES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
SHORTER = {
    "seeds=[0,1,2]": "seeds=[0,1]",
    '"epochs=20"': '"epochs=6"',
    '"epochs=16"': '"epochs=6"',
    "EPOCHS, WARMUP = 40, 8": "EPOCHS, WARMUP = 12, 4",
    "EPOCHS, BATCH = 40, 60": "EPOCHS, BATCH = 12, 60",
}


def forked(command, **options):
    """An example's command, by the server of commands, which has imported the libraries."""
    *words, results = map(str, command[1:])
    assert results.startswith("results_dir=")
    return traindyn(*words, results=results.partition("=")[2])


@pytest.fixture
def drawn(monkeypatch):
    """How many figures were shown, on no screen."""
    mpl.use("svg")
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    yield shown
    plt.close("all")


def run(script):
    space = {"__name__": "__main__"}
    with mock.patch.object(subprocess, "run", forked):
        exec(compile(script, "example", "exec"), space)
    return space


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_with_few_epochs(name, drawn, capsys):
    """The whole script, its runs made short."""
    script = (ROOT / "examples" / f"{name}.py").read_text()
    for given, shorter in SHORTER.items():
        script = script.replace(given, shorter)
    run(script)
    assert drawn
    assert capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name, drawn, capsys):
    run((ROOT / "examples" / f"{name}.py").read_text())
    assert drawn
    assert capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_its_page_shows_it_as_it_is(name):
    """Otherwise: make examples."""
    page = (DOCS / "examples" / f"{name}.md").read_text()
    parts = list(examples.cells((ROOT / "examples" / f"{name}.py").read_text()))
    assert examples.code_of(page) == [part.content for part in parts if not part.is_text]
    for part in parts:
        assert part.content in page
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page)
    assert pictures
    assert all((DOCS / "examples" / picture).is_file() for picture in pictures)
