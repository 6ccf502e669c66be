"""How fast this machine trains a model: from bases like it that are recorded, or from a short probe on the CPU.

A probe times training steps of the very model on noise, in CPU seconds, so that it says what an idle machine takes
whatever else runs, and is remembered in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from harness.config import BaseConfig
from harness.packages import installed
from harness.planning.model_cost import image_cost
from harness.storage.cache import remembered

TRAINED = 3
"""forward passes that a trained image costs: forward, and backward to inputs and weights"""
LATEST = 200
"""recorded bases of a results folder that are looked at, the latest"""
ALIKE = ("precision", "compile", "memory_format", "deterministic", "device")
"""what bases of one speed have in common, beside model and image size"""
PROBE_OPERATIONS = 2e10
"""of a probe's step at most, about half a second on one core, unless a single image takes more"""
STEPS = 3


class Speed(NamedTuple):
    """Seconds that one job takes."""

    trained_image: float
    rest_of_epoch: float | None
    """evaluation, methods and files of an epoch of a base with its cells; None where only training is known"""
    recorded: int
    """bases that say so; 0: a probe does"""


def machine() -> dict[str, Any]:
    """What tells this machine from others, as records have it."""
    return {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()}


def _kind(config: dict[str, Any], threads: int) -> str:
    """What bases of one speed have in common."""
    model, data = config["model"], config["dataset"]
    size = data["size"] if data.get("resize") is None else data["resize"]
    shape = [{k: v for k, v in model.items() if k not in ("name", "pretrained")}, data["channels"], size]
    return json.dumps([shape, [config[name] for name in ALIKE], threads], sort_keys=True, default=str)


def recorded_speeds(root: Path, threads: int) -> dict[str, Speed]:
    """What the latest bases of a results folder took on this machine, by what they have in common."""
    found: dict[str, list[tuple[float, float]]] = {}
    for path in _latest(root.glob("bases/*/base.json")):
        try:
            record = json.loads(path.read_bytes())
            seconds, images = record["seconds"], record["counts"]["gradients_full"]
            epochs = len(record["digests"]) - 1
            here = record.get("machine", machine()).items() >= machine().items() and record["threads"] == threads
            if record["status"] == "done" and here and images > 0 and epochs > 0 and seconds["train"] > 0:
                rest = (sum(seconds.values()) - seconds["train"]) / epochs
                found.setdefault(_kind(record["config"], threads), []).append((seconds["train"] / images, rest))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return {
        kind: Speed(median(one[0] for one in several), median(one[1] for one in several), len(several))
        for kind, several in found.items()
    }


def _latest(paths: Iterable[Path]) -> list[Path]:
    def written(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except OSError:
            return 0.0

    return sorted(paths, key=written, reverse=True)[:LATEST]


def speed(config: BaseConfig, threads: int, recorded: dict[str, Speed]) -> Speed | None:
    """How fast jobs of a base are here; None where nothing like it is recorded and no probe can tell."""
    known = recorded.get(_kind(asdict(config), threads))
    if known is not None or config.device != "cpu" or config.compile:
        return known
    follows_from = [_kind(asdict(config), threads), config.batch_size, machine(), platform.node(), installed("torch")]
    key = hashlib.sha256(json.dumps(follows_from, default=str).encode()).hexdigest()
    try:
        return Speed(remembered("speed", key, lambda: _probe(config, threads), plain=float, read=float), None, 0)
    except Exception:  # of whatever kind a model raises that a job will say more about
        return None


def _probe(config: BaseConfig, threads: int) -> float:
    """CPU seconds of each of so many threads that training on one image takes: the least of a few steps."""
    import torch
    from torch.nn.functional import cross_entropy

    from harness.problem.models import build_model

    data = config.dataset
    operations = max(TRAINED * image_cost(config.model, data).operations, 1)
    images = int(min(max(PROBE_OPERATIONS / operations, 1), config.batch_size))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            # in evaluation mode a norm takes a single image, too; a pass costs the same
            model = build_model(replace(config.model, pretrained=False), data, 0).eval()
            images_B = torch.randn(images, data.channels, data.image_size, data.image_size)
            if config.memory_format == "channels_last":
                images_B = images_B.contiguous(memory_format=torch.channels_last)
            labels_B = torch.zeros(images, dtype=torch.int64)
            steps = []
            for _ in range(STEPS):
                begun = time.process_time()
                torch.autograd.backward(cross_entropy(model(images_B), labels_B))
                steps.append((time.process_time() - begun) / threads)
                if sum(steps) > 1:
                    break
    finally:
        torch.set_num_threads(before)
    return min(steps) / images
