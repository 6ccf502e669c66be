"""No command writes, renames, removes or touches anybody's checkpoints, also where one of them is damaged."""

import os
import sys
from pathlib import Path

import pytest
from command import here
from layouts import LAYOUTS, listing, written

TRUE = Path(__file__).parent / "answers.py"


def damage(folder):
    """Change bytes in the middle of the largest file, which keeps its size and its time."""
    path = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    state = path.stat()
    with open(path, "r+b") as file:
        file.seek(state.st_size // 2)
        file.write(bytes(255 - byte for byte in file.read(64)))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


EVALUATED = (
    "method=[base,swa]",
    "tracker=none",
    "evaluate.every=9",
    f"evaluate.command={sys.executable} -I -S {TRUE} {{{{checkpoint}}}}",
)
COMMANDS = (
    ("adopt", "mine", "from={folder}"),
    ("analyse", "mine", "figures=none", "modes=2", "samples=20"),
    ("run", "adopted=mine", *EVALUATED),
    ("report", "name=mine", "figures=none"),
    ("give", "mine", "method=swa", "to={folder}.given"),
    ("list",),
    ("doctor",),
    ("doctor", "repair=true"),
    ("doctor", "free=true"),
    ("adopt", "linked", "from={folder}", "keep=hardlink"),
    ("adopt", "copied", "from={folder}", "keep=copy"),
)


SHORT = (COMMANDS[0], COMMANDS[1], *COMMANDS[-2:])
"""what reads a layout, where all commands were tried on another"""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_stay_as_they_are(layout, tmp_path):
    folder = written(tmp_path / "runs", layout)
    before = listing(folder)
    for words in COMMANDS if layout in ("plain", "trainer") else SHORT:
        here(*(word.format(folder=folder) for word in words), results=tmp_path / "results", code=(0, 1, 2))
        assert listing(folder) == before, words


@pytest.mark.parametrize("layout", ["plain", "trainer", "distributed"])
def test_damaged_files_stay_as_they_are(layout, tmp_path):
    folder = written(tmp_path / "runs", layout)
    here(*(word.format(folder=folder) for word in COMMANDS[0]), results=tmp_path / "results")
    damage(folder)
    before = listing(folder)
    for words in (*COMMANDS[1:], *COMMANDS[:1]):
        here(*(word.format(folder=folder) for word in words), results=tmp_path / "results", code=(0, 1, 2))
        assert listing(folder) == before, words
