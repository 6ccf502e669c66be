"""How many jobs an engine runs at once, as far as a plan can know it."""

from __future__ import annotations

import sys
from pathlib import Path

from harness.config import EngineConfig, FlowerConfig, RayConfig, SlurmConfig
from harness.processes import cores

SLURM_JOBS = 64
"""jobs in Slurm's queue at once where workers is auto"""


GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""what a Linux with a driver of NVIDIA's, of Windows below it, or of AMD's has"""


def finds_cuda() -> bool:
    """Whether torch finds a CUDA device here; not asked on a Linux without any driver, where importing it is slow."""
    if sys.platform == "linux" and "torch" not in sys.modules and not any(Path(name).exists() for name in GPU_FILES):
        return False
    import torch

    return torch.cuda.is_available()


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
    return max(1, cores() // config.threads)


def client_processes(config: EngineConfig, device: str, jobs: int) -> int:
    """Processes in which one of so many jobs trains clients at once: with `auto` the cores of this machine are shared
    by the jobs that run at once, and elsewhere a job has its own alone."""
    if config.clients != "auto":
        return int(config.clients)
    if config.name != "local" or device == "cuda":
        return 1
    at_once = max(1, min(local_slots(config, device), jobs))
    return max(1, cores() // (config.threads * at_once))


def most_jobs(config: EngineConfig, device: str) -> int | None:
    """Jobs at once at most, without asking a cluster; None where that depends on it."""
    if isinstance(config, RayConfig):
        return None if config.workers == "auto" else int(config.workers)
    if isinstance(config, SlurmConfig):
        return SLURM_JOBS if config.workers == "auto" else int(config.workers)
    if isinstance(config, FlowerConfig):
        return 1 if config.workers == "auto" else int(config.workers)
    return local_slots(config, device)
