"""`engine=slurm` on a real Slurm of one node: `make test-slurm`."""

import os
import signal

import pytest
from command import SECONDS, assert_same, curves, numbers, start, traindyn, wait_until
from slurm_cluster import SlurmCluster, missing

pytestmark = pytest.mark.slurm
OPTIONS = ("engine=slurm", "engine.poll_seconds=1", "engine.partition=low", "tracker=none")
RUN = ("run", "suite=smoke", "save=final", *OPTIONS)
LONG = (
    "suite=smoke",
    "seeds=[0]",
    "method=[base,swa]",
    "epochs=150",
    "batches_per_epoch=null",
    "batch_size=8",
    "tracker=none",
)
"""more than a minute of training"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if name := missing():
        pytest.skip(f"{name} is not installed (Debian: slurmctld slurmd slurm-client munge)")
    with SlurmCluster(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield cluster


def assert_as_local(smoke, results):
    assert_same(numbers(smoke.results, "smoke"), numbers(results, "smoke"))
    assert_same(curves(smoke.results, "smoke"), curves(results, "smoke"))


def bundles(results):
    return list(results.glob("bases/*/restart/latest.safetensors"))


def resumed(results):
    """Lines of the bases' logs that say that they went on."""
    texts = [path.read_text() for path in results.glob("bases/*/log.txt")]
    return [line for text in texts for line in text.splitlines() if "goes on after epoch" in line]


def test_the_same_numbers_as_on_this_machine(cluster, smoke, tmp_path):
    results = tmp_path / "results"
    traindyn(*RUN, results=results, variables=cluster.environment)
    assert_as_local(smoke, results)
    assert not (results / "engine").exists()
    assert cluster.call("squeue", "--noheader") == ""


def test_jobs_travel_as_arrays(cluster, tmp_path):
    results = tmp_path / "results"
    process = start(*RUN, "epochs=40", results=results, variables=cluster.environment)
    wait_until(lambda: bundles(results), process)
    identities = cluster.call("squeue", "--noheader", "--array", "--format=%i").split()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert len({identity.partition("_")[0] for identity in identities}) == 1
    assert {identity.partition("_")[2] for identity in identities} == {"0", "1"}
    cluster.wait_until_empty()


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """LONG on this machine."""
    results = tmp_path_factory.mktemp("long") / "results"
    process = start("run", *LONG, results=results)
    stdout, stderr = process.communicate(timeout=10 * SECONDS)
    assert process.returncode == 0, (stdout, stderr)
    return results


def test_preempted_requeued_and_gone_on_with(cluster, long_run, tmp_path):
    """A job of a higher partition takes the node away in mid-training, and gives it back."""
    results = tmp_path / "results"
    process = start("run", *LONG, *OPTIONS, results=results, variables=cluster.environment)
    wait_until(lambda: bundles(results), process)
    cluster.call("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=true")
    stdout, stderr = process.communicate(timeout=10 * SECONDS)  # Slurm holds a requeued job back for two minutes
    assert process.returncode == 0, (stdout, stderr)
    assert len(resumed(results)) == 1
    assert_same(numbers(long_run, "smoke"), numbers(results, "smoke"))
    assert_same(curves(long_run, "smoke"), curves(results, "smoke"))


def test_the_time_limit_is_no_end(cluster, long_run, tmp_path):
    """USR2, which Slurm sends before the limit, makes a job requeue itself."""
    results = tmp_path / "results"
    process = start("run", *LONG, *OPTIONS, results=results, variables=cluster.environment)
    wait_until(lambda: bundles(results), process)
    cluster.call("scancel", "--signal=USR2", f"--user={os.getuid()}")
    stdout, stderr = process.communicate(timeout=10 * SECONDS)
    assert process.returncode == 0, (stdout, stderr)
    assert len(resumed(results)) == 1
    assert_same(numbers(long_run, "smoke"), numbers(results, "smoke"))
    assert_same(curves(long_run, "smoke"), curves(results, "smoke"))


def test_a_job_that_is_cancelled_is_started_again(cluster, smoke, tmp_path):
    results = tmp_path / "results"
    process = start(*RUN, results=results, variables=cluster.environment)
    wait_until(lambda: bundles(results), process)
    cluster.call("scancel", f"--user={os.getuid()}")
    stdout, stderr = process.communicate(timeout=2 * SECONDS)
    assert process.returncode == 0, (stdout, stderr)
    assert "it goes on from its last epoch" in stdout
    assert_as_local(smoke, results)


def test_no_slurm_here(tmp_path):
    done = traindyn(*RUN, results=tmp_path / "results", code=2, variables={"PATH": "/nonexistent"})
    (line,) = done.stderr.splitlines()
    assert line == "error: engine=slurm needs Slurm's commands on this machine, sbatch is not on the path"
