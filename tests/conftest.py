"""One finished `suite=smoke` for all tests that look at it or go on from a copy."""

import shutil
from typing import NamedTuple

import pytest
from command import traindyn


class Finished(NamedTuple):
    """A results folder, not to be changed, and what the command printed."""

    results: object
    stdout: str


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """`suite=smoke` through the command, undisturbed."""
    results = tmp_path_factory.mktemp("smoke") / "results"
    done = traindyn("run", "suite=smoke", "save=final", results=results)
    return Finished(results, done.stdout)


@pytest.fixture
def smoke_copy(smoke, tmp_path):
    """The finished results folder, to be changed."""
    return shutil.copytree(smoke.results, tmp_path / "results")
