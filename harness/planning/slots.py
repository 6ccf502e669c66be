"""How many jobs an engine runs at once, as far as a plan can know it."""

from __future__ import annotations

import os

from harness.config import EngineConfig, RayConfig, SlurmConfig

SLURM_JOBS = 64
"""jobs in Slurm's queue at once where workers is auto"""


def gpus(device: str) -> int:
    """GPUs that jobs on `device` share."""
    if device != "cuda":
        return 0
    import torch

    return torch.cuda.device_count()


def local_slots(config: EngineConfig, device: str) -> int:
    """Jobs at once on this machine."""
    if config.workers != "auto":
        return int(config.workers)
    if device == "cuda":
        return gpus(device) * config.per_device
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // config.threads)


def most_jobs(config: EngineConfig, device: str) -> int | None:
    """Jobs at once at most, without asking a cluster; None where that depends on it."""
    if isinstance(config, RayConfig):
        return None if config.workers == "auto" else int(config.workers)
    if isinstance(config, SlurmConfig):
        return SLURM_JOBS if config.workers == "auto" else int(config.workers)
    return local_slots(config, device)
