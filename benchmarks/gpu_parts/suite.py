"""d: a base with all observers and reconstructions and two branchers: seconds by phase, beside the plain loop, and its
numbers beside the CPU's."""

from __future__ import annotations

import math
import os
import time

import torch

from gpu_parts.findings import Findings
from gpu_parts.options import Options
from gpu_parts.plans import base_records, carry_out, planned, records
from harness.method import Brancher
from harness.planning.compose import available, load_yaml
from harness.planning.methods import load_class
from harness.planning.plan import Plan
from harness.problem.splits import load_split
from harness.storage.store import Record
from harness.training.loop import Trainer, set_determinism

BRANCHERS = ("cooldown", "cmd_embedded")
TINY_METHODS = ("base", "base_recalibrated", "cmd_online", "cmd_posthoc", "cooldown", "lookahead")
TOLERANCE = 0.02
"""by which validation losses on the GPU may differ from the CPU's, as a share: every step rounds otherwise"""
TRAINED = 3
"""bases' lengths that one base and two branchers train together, about"""
SHARE_OF_TIME = 0.25
"""of what is left, for training"""
PLAIN_BATCHES = 100
LEAST_BATCHES = 10


def run(options: Options, findings: Findings) -> None:
    """The plain loop, the base with all that watches it, and both devices beside each other."""
    plan = None
    with findings.piece("a base with all that watches it"):
        findings.deadline.need(0.0 if options.tiny else 20.0)
        speed = _plain_speed(options)
        findings.note(f"The plain loop, a Trainer that nobody watches, trains {speed:,.0f} images/s.")
        plan = planned(options, options.work / "watched", *_overrides(options, speed, findings))
        began = time.perf_counter()
        carry_out(plan, in_processes=False)
        _phases(plan, speed, time.perf_counter() - began, findings)
    with findings.piece("beside the CPU"):
        findings.deadline.need(0.0 if options.tiny else 30.0)
        there = plan if options.tiny and plan is not None else _fast(options, options.device)
        _compare(records(there), records(_fast(options, "cpu")), options, findings)


def _methods(options: Options) -> tuple[str, ...]:
    """All presets but the branchers, and two of these."""
    if options.tiny:
        return TINY_METHODS
    kinds = {name: load_class(name, load_yaml(path)[name]["_target_"]) for name, path in available("method").items()}
    return (*(name for name, kind in sorted(kinds.items()) if not issubclass(kind, Brancher)), *BRANCHERS)


def _problem(options: Options) -> tuple[str, ...]:
    if options.tiny:
        return ("model=test_resnet", "dataset=fashion_mnist", "optimizer=sgd_momentum", "fast=true", "evaluate.every=6")
    return ("suite=fashion", "model=resnet18", "optimizer=sgd_momentum")


def _overrides(options: Options, speed: float, findings: Findings) -> tuple[str, ...]:
    """Of the base, in epochs as long as there is time for."""
    common = (*_problem(options), "seeds=[0]", f"method=[{','.join(_methods(options))}]", f"device={options.device}")
    if options.tiny:
        return common
    (base,) = planned(options, options.work / "watched", *common).bases
    images = SHARE_OF_TIME * findings.deadline.left * speed / (TRAINED * base.config.epochs)
    batches = max(LEAST_BATCHES, int(images / base.config.batch_size))
    return (*common, f"batches_per_epoch={batches}", "trajectory.keep=none")


def _plain_speed(options: Options) -> float:
    """Images per second of the loop of the same base without anything around it."""
    common = (*_problem(options), "seeds=[0]", "method=[base]", f"device={options.device}")
    short = () if options.tiny else (f"batches_per_epoch={PLAIN_BATCHES}",)
    (plan,) = planned(options, options.work / "plain", *common, *short).bases
    base, device = plan.config, torch.device(options.device)
    torch.set_num_threads(1)
    set_determinism(base)
    trainer = Trainer(base, load_split(base.dataset, "train").to(device), device)
    trainer.train_epoch()
    began = time.perf_counter()
    trainer.train_epoch()  # ends with figures that the host waits for
    return trainer.steps_per_epoch() * base.batch_size / (time.perf_counter() - began)


def _phases(plan: Plan, speed: float, wall: float, findings: Findings) -> None:
    """Seconds by phase of the base's job, and of each method beside its evaluation."""
    (base,) = base_records(plan)
    seconds: dict[str, float] = base["seconds"]
    names = {cell.key: cell.method.name for _, cell in plan.cells}
    plain = base["counts"]["gradients_full"] / speed
    sums = {"training": seconds["train"]}
    sums["methods"] = sum(spent for name, spent in seconds.items() if name.startswith("method/"))
    sums["evaluation"] = sum(spent for name, spent in seconds.items() if name.startswith("eval/"))
    sums["files"] = seconds.get("io", 0.0)
    for name, spent in sums.items():
        row = {"phase of the base's job": name, "s": spent, "times the plain loop": spent / plain}
        findings.row("A base with all that watches it", row)
    whole = sum(seconds.values())
    row = {"phase of the base's job": "all of it", "s": whole, "times the plain loop": whole / plain}
    findings.row("A base with all that watches it", row)
    shape = base["config"]
    findings.note(
        f"{shape['epochs']} epochs of {base['counts']['gradients_full'] // shape['epochs']:,} images, {len(names)} "
        f"cells, {wall:.1f} s with the branchers. A trajectory is written to files and read from there."
    )
    for record in records(plan):
        cost = record["cost"]
        row = {"method": record["method"], "method, s": cost["method_seconds"], "evaluation, s": cost["eval_seconds"]}
        if record["method"] in (*BRANCHERS, "lookahead"):
            row["own training, s"] = cost["train_seconds"] - cost["prefix_seconds"]
        row["peak memory, MiB"] = cost["peak_memory_bytes"] / 2**20
        findings.row("Methods", row)


def _fast(options: Options, device: str) -> Plan:
    """The smallest version of the same, carried out on a device."""
    threads = 1 if options.tiny else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    plan = planned(
        options,
        options.work / f"fast-{device}",
        *_problem(options),
        "fast=true",
        "evaluate.every=6",
        "seeds=[0]",
        f"method=[{','.join(_methods(options))}]",
        f"device={device}",
        f"engine.threads={threads}",
    )
    carry_out(plan, in_processes=False)
    return plan


def _compare(there: list[Record], here: list[Record], options: Options, findings: Findings) -> None:
    """Validation losses at the end, method by method."""
    for ours, cpus in zip(there, here, strict=True):
        on_gpu, on_cpu = ours["summary"]["val_loss"], cpus["summary"]["val_loss"]
        apart = abs(on_gpu - on_cpu) / abs(on_cpu)
        row = {
            "method": ours["method"],
            f"validation loss on {options.device}": on_gpu,
            "on the CPU": on_cpu,
            "apart, as a share": apart,
            f"within {TOLERANCE:g}": apart <= TOLERANCE,
        }
        findings.row("Numbers beside the CPU's, float32", row, ok=math.isfinite(apart) and apart <= TOLERANCE)
