"""What jobs run on and with, for their logs and records."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

PACKAGES = ("torch", "timm", "numpy", "scipy", "schedulefree", "traindyn")
"""whose versions are recorded"""


@cache
def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"  # as this project itself where it is run from its folder


def machine() -> dict[str, Any]:
    """What the job runs on, beside its device."""
    return {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()}


def device_name(device: torch.device) -> str:
    """What a device is called; `cuda` where its jobs run on other machines and this one has none."""
    found = device.type == "cuda" and torch.cuda.is_available()
    return torch.cuda.get_device_name(device) if found else device.type
