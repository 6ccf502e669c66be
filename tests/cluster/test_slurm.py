"""`engine=slurm` on a real Slurm of one node: `make test-slurm`.

What happens to a job in mid-training happens while it waits at a step of its fourth epoch, however fast the machine is.
"""

import os
import signal

import pytest
from command import SECONDS, assert_same, curves, hold, numbers, start, traindyn, wait_until
from slurm_cluster import SlurmCluster, missing

pytestmark = pytest.mark.slurm
OPTIONS = ("engine=slurm", "engine.poll_seconds=1", "engine.partition=low", "tracker=none")
RUN = ("run", "suite=smoke", "save=final", "trajectory.bundle_seconds=0", *OPTIONS)
STEP = 20
"""of the 36 of a base of `suite=smoke`, whose epochs have six"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if name := missing():
        pytest.skip(f"{name} is not installed (Debian: slurmctld slurmd slurm-client munge)")
    with SlurmCluster(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield cluster


def assert_as_local(smoke, results):
    assert_same(numbers(smoke.results, "smoke"), numbers(results, "smoke"))
    assert_same(curves(smoke.results, "smoke"), curves(results, "smoke"))


def assert_seed_0_as_local(smoke, results):
    """The cells of seed 0 are those of the same suite with more seeds."""
    expected = numbers(smoke.results, "smoke")
    expected = expected[expected["seed"] == 0]
    assert_same(expected, numbers(results, "smoke"))
    history = curves(smoke.results, "smoke")
    own = history[history.index.get_level_values("cell_key").isin(expected.index)]
    assert_same(own, curves(results, "smoke"))


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
    held = hold(STEP, *RUN, results=tmp_path / "results", variables=cluster.environment)
    identities = cluster.call("squeue", "--noheader", "--array", "--format=%i").split()
    held.end(signal.SIGINT)
    assert held.process.returncode == 130
    assert len({identity.partition("_")[0] for identity in identities}) == 1
    assert {identity.partition("_")[2] for identity in identities} == {"0", "1"}
    cluster.wait_until_empty()


@pytest.fixture
def held(cluster, tmp_path):
    """A run of one seed whose job has begun its fourth epoch."""
    return hold(STEP, *RUN, "seeds=[0]", results=tmp_path / "results", variables=cluster.environment)


def assert_comes_to_its_end(process, smoke, results):
    """A run of seed 0 makes of it what a run on this machine does; what it printed."""
    stdout, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, (stdout, stderr)
    assert_seed_0_as_local(smoke, results)
    return stdout


def assert_went_on(results):
    (line,) = resumed(results)
    assert "goes on after epoch 3, " in line


def restarts(stdout):
    """Lines that say that a job was lost and is started again."""
    return [line for line in stdout.splitlines() if "it goes on from its last epoch" in line]


def test_preempted_requeued_and_gone_on_with(cluster, smoke, held, tmp_path):
    """A job of a higher partition takes the node away in mid-training, and gives it back."""
    (identity,) = cluster.jobs()
    cluster.take_the_node("true")
    cluster.start_at_once_when_requeued(identity)
    assert restarts(assert_comes_to_its_end(held.process, smoke, tmp_path / "results")) == []
    assert_went_on(tmp_path / "results")


def test_the_time_limit_is_no_end(cluster, smoke, held, tmp_path):
    """USR2, which Slurm sends before the limit, makes a job requeue itself."""
    (identity,) = cluster.jobs()
    cluster.call("scancel", "--signal=USR2", identity)
    cluster.start_at_once_when_requeued(identity)
    assert restarts(assert_comes_to_its_end(held.process, smoke, tmp_path / "results")) == []
    assert_went_on(tmp_path / "results")


def test_a_job_that_is_cancelled_is_started_again(cluster, smoke, held, tmp_path):
    """After SIGTERM it has as long as Slurm's KillWait, in which a short one that is not held comes to its end."""
    (identity,) = cluster.jobs()
    cluster.call("scancel", identity)
    (line,) = restarts(assert_comes_to_its_end(held.process, smoke, tmp_path / "results"))
    assert f"Slurm job {identity}: CANCELLED" in line
    assert_went_on(tmp_path / "results")


def test_a_job_that_is_cancelled_before_it_starts_is_started_again(cluster, smoke, tmp_path):
    other = cluster.take_the_node("sleep 3600")
    process = start(*RUN, "seeds=[0]", results=tmp_path / "results", variables=cluster.environment)
    wait_until(lambda: len(cluster.jobs()) == 2, process)
    (identity,) = set(cluster.jobs()) - {other}
    cluster.call("scancel", identity, other)
    (line,) = restarts(assert_comes_to_its_end(process, smoke, tmp_path / "results"))
    assert f"Slurm job {identity}: CANCELLED" in line


def test_a_job_that_can_never_start_is_named(cluster, tmp_path):
    """The partition takes jobs of a minute: Slurm lists one of two hours for ever, and says why."""
    results = tmp_path / "results"
    process = start(*RUN, "seeds=[0]", "engine.partition=short", results=results, variables=cluster.environment)
    line = next(line for line in process.stdout if "waits" in line)
    (identity,) = cluster.jobs()
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert f"Slurm job {identity} waits: Partition" in line  # by Slurm's version PartitionTimeLimit or PartitionConfig
    cluster.wait_until_empty()


def test_no_slurm_here(tmp_path):
    done = traindyn(*RUN, results=tmp_path / "results", code=2, variables={"PATH": "/nonexistent"})
    (line,) = done.stderr.splitlines()
    assert line == "error: engine=slurm needs Slurm's commands on this machine, sbatch is not on the path"
