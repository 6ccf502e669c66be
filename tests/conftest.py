"""One finished `suite=smoke` for all tests that look at it or go on from a copy, and which tests share a process."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from browser import opened
from command import traindyn
from command_server import start_server
from filelock import FileLock
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent
SLOWEST = (
    "recovery",
    "commands/test_wandb.py",
    "commands/test_tune.py",
    "tune",
    "commands",
    "tracking",
    "conformance",
    "docs",
)
"""The slowest tests, which begin first where several processes share all, so that none is left with them at the end."""

# how long an example takes says how busy the machine is
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Where tests run in several processes, those that share fixtures run in one, which makes these once."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            """Together are the tests of a folder with a conftest.py of its own, of a class, or of a file."""
            name = nodeid.partition("[")[0]
            folder = (config.rootpath / name.partition("::")[0]).parent
            shared = folder != TESTS and (folder / "conftest.py").exists()
            return str(folder) if shared else name.rpartition("::")[0]

    config.option.loadscopereorder = False  # in the order of the collection, see below
    return Scheduling(config, log)


def pytest_collection_modifyitems(items):
    """The slowest folders and files first."""

    def place(item):
        name = item.nodeid.removeprefix("tests/")
        return next((index for index, slow in enumerate(SLOWEST) if name.startswith(slow)), len(SLOWEST))

    items.sort(key=place)


def pytest_configure(config):
    """One server of commands for all processes of the tests."""
    if "PYTEST_XDIST_WORKER" not in os.environ and not config.option.collectonly:
        config.add_cleanup(start_server())


class Finished(NamedTuple):
    """A results folder, not to be changed, and what the command printed."""

    results: Path
    stdout: str


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """`suite=smoke` through the command, undisturbed: run once, by the first of the processes that needs it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "smoke"
    results, printed = folder / "results", folder / "printed.txt"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        if not printed.exists():
            printed.write_text(traindyn("run", "suite=smoke", "save=final", results=results).stdout)
    return Finished(results, printed.read_text())


@pytest.fixture(scope="module")
def chromium():
    """A browser for the pages of a module."""
    yield from opened()


@pytest.fixture(scope="module")
def one_thread():
    """torch on one thread, as a job has it: the last bits of a sum depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def smoke_copy(smoke, tmp_path):
    """The finished results folder, to be changed."""
    return shutil.copytree(smoke.results, tmp_path / "results")
