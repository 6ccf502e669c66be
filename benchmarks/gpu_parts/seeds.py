"""e: three seeds on one GPU at once against one after the other."""

from __future__ import annotations

import time
from typing import NamedTuple

from gpu_parts.course import nothing
from gpu_parts.findings import Findings
from gpu_parts.machine import Utilisation
from gpu_parts.options import Options
from gpu_parts.plans import base_records, carry_out, planned
from harness.running.engine.local import run_alone

SEEDS = 3


class Problem(NamedTuple):
    """What is trained with each seed."""

    model: str
    epochs: int
    batches: int
    seconds: float
    """that both ways take together, about, on a GPU of 2022"""


FULL = (Problem("resnet18", 3, 100, 40.0), Problem("test_resnet", 6, 200, 30.0))
TINY = (Problem("test_resnet", 2, 2, 0.0),)


def run(options: Options, findings: Findings) -> None:
    """Each model, one seed at a time and all at once."""
    run_alone(nothing)  # the server that jobs are forked from takes a while to be there
    findings.note("Seconds from handing over the first job to the end of the last, with the start of their processes.")
    for problem in TINY if options.tiny else FULL:
        with findings.piece(problem.model):
            findings.deadline.need(problem.seconds)
            _measure(problem, options, findings)


def _measure(problem: Problem, options: Options, findings: Findings) -> None:
    seconds: dict[int, float] = {}
    digests: dict[int, list[str]] = {}
    row: dict[str, object] = {"model": problem.model}
    for at_once in (1, SEEDS):
        plan = planned(
            options,
            options.work / f"seeds-{problem.model}-{at_once}",
            f"model={problem.model}",
            "dataset=fashion_mnist",
            f"seeds=[{','.join(map(str, range(SEEDS)))}]",
            "method=[base]",
            f"epochs={problem.epochs}",
            f"batches_per_epoch={problem.batches}",
            *(["fast=true"] if options.tiny else []),
            f"device={options.device}",
            # jobs share a CPU by its cores
            f"engine.{'per_device' if options.device == 'cuda' else 'workers'}={at_once}",
        )
        began = time.perf_counter()
        with Utilisation() as utilisation:
            carry_out(plan, in_processes=True)
        seconds[at_once] = time.perf_counter() - began
        digests[at_once] = [record["digests"][-1] for record in base_records(plan)]
        row[f"{at_once} at once, s"] = seconds[at_once]
        row[f"{at_once} at once, GPU utilisation, percent"] = utilisation.mean
    row |= {"times as fast": seconds[1] / seconds[SEEDS], "the same weights": digests[1] == digests[SEEDS]}
    findings.row(f"{SEEDS} seeds", row, ok=digests[1] == digests[SEEDS])
