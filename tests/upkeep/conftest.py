"""A finished results folder of a suite whose jobs train nothing, to be changed by one test."""

import shutil

import pytest
from fake_work import FAKE_WORKERS, Ran, plan_of

from harness.running import scheduler


@pytest.fixture(scope="session")
def fake_results(tmp_path_factory):
    """Two bases with five cells each; not to be changed."""
    results = tmp_path_factory.mktemp("fake") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "WORKERS", FAKE_WORKERS)
        Ran(plan_of(results, "seeds=[0,1]"))
    return results


@pytest.fixture
def results(fake_results, tmp_path):
    """A copy that may be changed."""
    return shutil.copytree(fake_results, tmp_path / "results")
