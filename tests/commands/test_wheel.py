"""The built wheel, installed elsewhere, works outside the checkout: package data, command and a user's presets."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import OWN, SECONDS, environment

CHECKOUT = Path(__file__).parents[2]
SOURCES = ("harness", "baselines", "conf", "pyproject.toml", "README.md")
COMMAND = "import sys; from harness.cli import main; main(sys.argv[1:])"


def run(*arguments, cwd, code=0, **variables):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds the installed wheel, built from a copy so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "sources"
    copy.mkdir()
    for name in SOURCES:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", cwd=copy)
    (wheel,) = (folder / "dist").glob("*.whl")
    target = folder / "target"
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel, cwd=folder)
    shutil.rmtree(copy)
    return target


@pytest.fixture
def python(installed, tmp_path):
    """Run Python in an empty folder with the installed wheel in front of everything else."""
    return lambda *arguments, code=0: run(*arguments, cwd=tmp_path, code=code, PYTHONPATH=str(installed))


def test_it_holds_what_the_checkout_holds(installed):
    """Every module, preset and published number; nothing of the tests."""
    patterns = ("*.py", "*.yaml", "*.csv", "*.md", "py.typed")
    for package in ("harness", "baselines", "conf"):
        here, there = (
            {path.relative_to(root) for pattern in patterns for path in (root / package).rglob(pattern)}
            for root in (CHECKOUT, installed)
        )
        assert there == here
    assert not (installed / "tests").exists()


def test_it_is_what_is_imported(python, installed):
    names = "harness", "baselines", "conf", "harness.conformance"
    lines = "; ".join(f"import {name}; print({name}.__file__)" for name in names)
    for path in python("-c", lines).splitlines():
        assert Path(path).is_relative_to(installed)


def test_it_plans_a_suite(python, tmp_path):
    shown = python("-c", COMMAND, "plan", "suite=smoke")
    for method in ("cmd_online", "cmd_posthoc", "lookahead"):
        assert method in shown
    assert os.listdir(tmp_path) == []


def test_it_finds_a_method_of_the_users_own(python):
    own = ("--config-dir", OWN, "suite=smoke", "method=[base,last_weights]")
    assert "last_weights" in python("-c", COMMAND, "plan", *own)
