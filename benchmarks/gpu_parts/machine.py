"""What all of it runs on, and how busy a GPU is."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
from importlib.metadata import version
from types import TracebackType

import torch

from gpu_parts.findings import Findings
from gpu_parts.options import Options

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "pandas", "schedulefree")
SAMPLE_MILLISECONDS = 100
PRODUCT = 8192
"""side of the matrices that show how fast the device multiplies"""


def run(options: Options, findings: Findings) -> None:
    """Facts, and whether the device computes at all."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {"Python": platform.python_version(), "system": platform.platform(), "cores": cores}
    facts |= {name: version(name) for name in PACKAGES} | {"CUDA of torch": torch.version.cuda}
    for name, value in facts.items():
        findings.row("What it runs on", {"fact": name, "value": value})
    if options.device != "cuda":
        return
    found = torch.cuda.get_device_properties(0)
    facts = {
        "GPU": found.name,
        "GPUs that are visible": torch.cuda.device_count(),
        "compute capability": f"{found.major}.{found.minor}",
        "memory, GiB": found.total_memory / 2**30,
        "driver and clocks, by nvidia-smi": _asked("driver_version,clocks.sm,clocks.max.sm,power.limit"),
    }
    for name, value in facts.items():
        findings.row("What it runs on", {"fact": name, "value": value})
    with findings.piece("cuDNN"):  # which refuses devices that are too old for it
        findings.row("What it runs on", {"fact": "cuDNN", "value": torch.backends.cudnn.version()})
    for name in ("float32", "bfloat16"):
        with findings.piece(f"products in {name}"):
            row = {"type": name, "TFLOP/s": _products(getattr(torch, name))}
            findings.row("Matrix products, TF32 off", row)


def _products(dtype: torch.dtype) -> float:
    """TFLOP/s of square products."""
    torch.backends.cuda.matmul.allow_tf32 = False
    x = torch.randn(PRODUCT, PRODUCT, device="cuda", dtype=dtype)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    x @ x
    begin.record()
    for _ in range(4):
        x @ x
    end.record()
    end.synchronize()
    return 4 * 2 * PRODUCT**3 / (begin.elapsed_time(end) / 1e3) / 1e12


def _smi(*words: str) -> list[str] | None:
    """The command that asks for the first visible GPU; None where there is none."""
    program = shutil.which("nvidia-smi")
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() or "0"
    return None if program is None else [program, f"--id={first}", *words, "--format=csv,noheader,nounits"]


def _asked(query: str) -> str | None:
    command = _smi(f"--query-gpu={query}")
    if command is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


class Utilisation:
    """Share of the time, in percent, in which the GPU computed anything, by nvidia-smi while the block runs.

    `mean` is None where there is no nvidia-smi, or the block was too short for it.
    """

    def __init__(self) -> None:
        self.mean: float | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Utilisation:
        command = _smi("--query-gpu=utilization.gpu", f"--loop-ms={SAMPLE_MILLISECONDS}")
        if command is not None:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is None:
            return
        self._process.terminate()
        printed, _ = self._process.communicate()
        samples = [float(line) for line in printed.split() if line.isdigit()]
        # the first ones tell of the time before
        self.mean = statistics.mean(samples[2:]) if len(samples) > 4 else None
