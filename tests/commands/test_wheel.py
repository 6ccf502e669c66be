"""The built wheel, installed elsewhere, works outside the checkout: package data, command and a user's presets."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from command import OWN, SECONDS, environment

CHECKOUT = Path(__file__).parents[2]
PACKAGES = ("harness", "baselines", "conf")
SOURCES = (*PACKAGES, "docs", "examples", "results/published")
FILES = (
    "*.md",
    "LICENSE",
    "CITATION.cff",
    "MANIFEST.in",
    "Makefile",
    "constraints.txt",
    "mkdocs.yml",
    "pyproject.toml",
)


def run(*arguments, cwd, code=0):
    done = subprocess.run(
        [*map(str, arguments)], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


class Built(NamedTuple):
    """What `python -m build` made of a copy of the checkout, and an environment with the wheel alone."""

    wheel: Path
    sdist: Path
    environment: Path

    @property
    def bin(self):
        return self.environment / "bin"

    @property
    def packages(self):
        (found,) = self.environment.glob("lib/python*/site-packages")
        return found


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Built from a copy, so that the checkout stays clean, which is gone when the wheel is used."""
    folder = tmp_path_factory.mktemp("wheel")
    copy, dist, place = folder / "sources", folder / "dist", folder / "environment"
    copy.mkdir()
    for name in SOURCES:
        shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (path for pattern in FILES for path in CHECKOUT.glob(pattern)):
        shutil.copy(path, copy)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, cwd=copy)
    shutil.rmtree(copy)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=folder)
    found = Built(wheel, sdist, place)
    # the libraries are those of this environment; a line in a .pth file is a folder, whose own .pth files are not read
    others = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (found.packages / "libraries.pth").write_text("".join(f"{path}\n" for path in others))
    python = ("--python", found.bin / "python")
    run(sys.executable, "-m", "pip", *python, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    return found


@pytest.fixture
def traindyn(built, tmp_path):
    """The installed command in an empty folder."""
    return lambda *arguments, code=0: run(built.bin / "traindyn", *arguments, cwd=tmp_path, code=code)


def test_it_holds_what_the_checkout_holds(built):
    """Every module, preset and published number of the packages."""
    patterns = ("*.py", "*.yaml", "*.csv", "*.md", "py.typed", "*.html", "*.css", "*.js", "*.json")
    for package in PACKAGES:
        here, there = (
            {path.relative_to(root) for pattern in patterns for path in (root / package).rglob(pattern)}
            for root in (CHECKOUT, built.packages)
        )
        assert there == here


def test_it_holds_nothing_else(built):
    """Nothing that only developers need: no tests, documentation, examples, benchmarks or results."""
    with zipfile.ZipFile(built.wheel) as wheel:
        names = wheel.namelist()
        (metadata,) = (wheel.read(name).decode() for name in names if name.endswith("/METADATA"))
    tops = {name.partition("/")[0] for name in names}
    (information,) = tops - {*PACKAGES}
    assert information.endswith(".dist-info")
    assert f"{information}/licenses/LICENSE" in names
    assert "License-Expression: MIT" in metadata
    assert "Home-page" not in metadata


def test_the_sources_hold_what_the_readme_links_to(built):
    with tarfile.open(built.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    text = (CHECKOUT / "README.md").read_text()
    places = [*re.findall(r"\]\(([^)]+)\)", text), *re.findall(r'(?:src|srcset)="([^"]+)"', text)]
    linked = {place for place in places if not place.startswith("https://")}
    assert "docs/start.md" in linked
    assert linked <= names
    assert not any(name.startswith(("tests/", ".ci/")) for name in names)


def test_it_is_what_is_imported(built, tmp_path):
    names = "harness", "baselines", "conf", "harness.conformance"
    lines = "; ".join(f"import {name}; print({name}.__file__)" for name in names)
    for path in run(built.bin / "python", "-c", lines, cwd=tmp_path).splitlines():
        assert Path(path).is_relative_to(built.packages)


def test_it_plans_a_suite(traindyn, tmp_path):
    shown = traindyn("plan", "suite=smoke")
    for method in ("cmd_online", "cmd_posthoc", "lookahead"):
        assert method in shown
    assert os.listdir(tmp_path) == []


@pytest.mark.long
def test_it_runs_the_smoke_suite_and_reports(traindyn, tmp_path):
    """From an empty folder to a page."""
    assert "cmd_online" in traindyn("run", "suite=smoke", "seeds=[0]", "tracker=none")
    assert "report: " in traindyn("report", "suite=smoke", "figures=none")
    page = tmp_path / "results" / "suites" / "smoke" / "report" / "index.html"
    assert "cmd_online" in page.read_text()


def test_it_says_its_version(traindyn):
    assert traindyn("--version").startswith("traindyn ")


def test_it_finds_a_method_of_the_users_own(traindyn):
    own = ("--config-dir", OWN, "suite=smoke", "method=[base,last_weights]")
    assert "last_weights" in traindyn("plan", *own)
