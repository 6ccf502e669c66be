"""Engines' configuration, and how Slurm's words are understood. The engines: test_local_engine.py, tests/cluster."""

import contextlib
import os
import sys
from types import SimpleNamespace

import pytest

from harness.config import ENGINES, ConfigError, FlowerConfig, RayConfig, SlurmConfig, from_mapping
from harness.running.engine import remote
from harness.running.engine.slurm import COMMANDS, SlurmEngine, sbatch_parameters
from harness.running.event_files import EventWriter
from harness.running.events import JobEnded, Message


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (SlurmConfig, {"minutes": 0}, "engine.minutes must be at least 1, got 0"),
        (SlurmConfig, {"minutes": 1, "signal_seconds": 60}, "engine.signal_seconds must be below 60, "),
        (SlurmConfig, {"requeues": -1}, "engine.requeues must be at least 0, got -1"),
        (SlurmConfig, {"gpus": 0.5}, "engine.gpus must be a whole number, got 0.5"),
        (SlurmConfig, {"memory_gb": 0}, "engine.memory_gb must be at least 0.1, got 0"),
        (SlurmConfig, {"partition": 3.5}, "engine.partition must be text, got 3.5"),
        (SlurmConfig, {"setup": "module load cuda"}, "engine.setup must be a list, got 'module load cuda'"),
        (SlurmConfig, {"parameters": ["exclusive"]}, "engine.parameters must be a mapping, got ['exclusive']"),
        (SlurmConfig, {"poll_seconds": 0}, "engine.poll_seconds must be at least 0.1, got 0"),
        (SlurmConfig, {"partitions": "gpu"}, "engine has no key 'partitions'; nearest: partition"),
        (SlurmConfig, {"workers": 0}, "engine.workers must be auto or at least 1, got 0"),
        (SlurmConfig, {"retries": -1}, "engine.retries must be at least 0, got -1"),
        (RayConfig, {"gpus": -1}, "engine.gpus must be at least 0, got -1"),
        (FlowerConfig, {"superlink": ""}, "engine.superlink must be text of at least 1 character, got ''"),
        (FlowerConfig, {"nodes_seconds": -1}, "engine.nodes_seconds must be at least 0, got -1"),
        (FlowerConfig, {"superlnk": None}, "engine has no key 'superlnk'; nearest: superlink"),
        (RayConfig, {"address": ""}, "engine.address must be text of at least 1 character, got ''"),
    ],
)
def test_bad_engines_are_one_line(kind, values, message):
    with pytest.raises(ConfigError) as error:
        from_mapping(kind, "engine", {"name": next(name for name, of in ENGINES.items() if of is kind), **values})
    assert str(error.value).startswith(message)


def test_what_sbatch_is_asked_for():
    """Nothing that was not given: the cluster's defaults stay its own."""
    assert sbatch_parameters(SlurmConfig("slurm"), 64) == {
        "job_name": "traindyn",
        "time": 120,
        "cpus_per_task": 1,
        "signal_delay_s": 90,
        "array_parallelism": 64,
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True},
    }
    config = SlurmConfig(
        "slurm", threads=4, partition="gpu", memory_gb=1.5, gpus=2, setup=["module load cuda"],
        parameters={"constraint": "a100"},
    )  # fmt: skip
    given = sbatch_parameters(config, 8)
    assert given["partition"] == "gpu"
    assert given["mem"] == "1536MB"
    assert given["gres"] == "gpu:2"
    assert given["cpus_per_task"] == 4
    assert given["setup"] == ["module load cuda"]
    assert given["additional_parameters"] == {"requeue": True, "constraint": "a100"}
    assert not {"account", "qos"} & set(given)


JOB = SimpleNamespace(label="net-s0")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """An engine with one job, 7, whose Slurm says what is given as `squeue` and `scontrol`, None where it is away."""
    for name in COMMANDS:
        (tmp_path / name).write_text(f'#!/bin/sh\ncat "{tmp_path}/{name}.txt"\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    executor = SimpleNamespace(
        update_parameters=lambda **_: None,
        batch=contextlib.nullcontext,
        submit=lambda task: SimpleNamespace(job_id="7"),
    )
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(SlurmExecutor=lambda **_: executor))
    monkeypatch.setattr(remote, "LAG_SECONDS", -1.0)
    engine = SlurmEngine(SlurmConfig("slurm"), tmp_path)
    engine._poll = 0.0
    engine.submit(JOB)

    def says(squeue, scontrol=""):
        (tmp_path / "squeue.txt").unlink(missing_ok=True)
        if squeue is not None:
            (tmp_path / "squeue.txt").write_text(squeue)
        (tmp_path / "scontrol.txt").write_text(scontrol)
        return [event for _, event in engine.events(timeout=0)]

    return says


@pytest.mark.parametrize("reason", ["JobHeldUser", "PartitionTimeLimit", "launch failed requeued held"])
def test_a_job_that_waits_for_somebody_is_named_once(slurm, reason):
    assert slurm("7 PENDING Priority\n") == []
    assert slurm(f"7 PENDING {reason}\n") == [Message(f"net-s0: Slurm job 7 waits: {reason}")]
    assert slurm(f"7 PENDING {reason}\n") == []
    assert slurm("7 RUNNING None\n") == []


def test_a_job_that_is_cancelled_is_lost_once_slurm_has_ended_it(slurm):
    """Not while it is being ended, when it may still say something, nor while Slurm does not answer."""
    assert slurm("7 RUNNING None\n") == []
    assert slurm("7 COMPLETING None\n8 RUNNING None\n") == []
    assert slurm(None) == []
    ended = slurm("8 RUNNING None\n", "JobId=7 JobState=CANCELLED Reason=None ExitCode=0:9")
    assert ended == [JobEnded("Slurm job 7: CANCELLED (exit code 0:9)")]


def test_a_job_that_is_cancelled_after_its_last_word_is_not_lost(slurm, tmp_path):
    """It had the time to come to its end before Slurm killed it."""
    assert slurm("7 RUNNING None\n") == []
    with EventWriter(tmp_path / "000001.jsonl") as file:
        file.tell(JobEnded())
    assert slurm("", "JobId=7 JobState=CANCELLED ExitCode=0:9") == [JobEnded(None)]
