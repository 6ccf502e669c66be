"""Engines' configuration. The engines themselves: test_local_engine.py and tests/cluster."""

import pytest

from harness.config import ConfigError, RayConfig, SlurmConfig, from_mapping
from harness.running.engine.slurm import sbatch_parameters


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
        (RayConfig, {"address": ""}, "engine.address must be text of at least 1 character, got ''"),
    ],
)
def test_bad_engines_are_one_line(kind, values, message):
    with pytest.raises(ConfigError) as error:
        from_mapping(kind, "engine", {"name": "slurm" if kind is SlurmConfig else "ray", **values})
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
