"""A plan on the terminal: what it will cost, its bases and cells, what is done or left, and on request the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import partial

from rich.table import Table

from harness.fitting import FirstThatFits
from harness.planning.duration import Duration
from harness.planning.estimate import Estimate, shadowed
from harness.planning.flops import Work
from harness.planning.model_cost import image_cost
from harness.planning.plan import STALE, BasePlan, Plan, watches_steps
from harness.planning.slots import most_jobs
from harness.problem.datasets import check_sizes
from harness.problem.sources import find_source
from harness.storage.views import resting_on

ROWS = 60
"""rows that a plan shows one by one"""
ORDER = ("done", "stale", "failed", "diverged", "skipped", "half-trained", "left")
SPARED = ("weights", "epochs", "seeds")
"""columns that a narrow terminal is spared, one after the other"""
LIBRARIES_BYTES, JOB_BYTES = 900_000_000, 300_000_000
"""what the command and the server of its jobs take with the libraries, and what a job takes beside what it holds"""


def _statuses(statuses: Iterable[str]) -> str:
    """`4 done, 2 left`"""
    counts = Counter(statuses)
    return ", ".join(f"{counts[status]} {status}" for status in ORDER if counts[status])


def counted(number: int, what: str) -> str:
    """`1 base` or `20 bases`"""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _seeds(seeds: Collection[int]) -> str:
    """`0-4` or `0, 2, 7`"""
    found = sorted(seeds)
    if len(found) > 2 and found[-1] - found[0] == len(found) - 1:
        return f"{found[0]}-{found[-1]}"
    return ", ".join(map(str, found))


def plan_table(plan: Plan) -> FirstThatFits:
    """One row per model, dataset, optimizer and length, with the states of their bases and cells; a narrow terminal is
    spared columns."""
    rows: dict[tuple[str, ...], list[BasePlan]] = {}
    for base in plan.bases:
        config = base.config
        names = config.model.name, config.dataset.name, config.optimizer.name, config.federation.name
        rows.setdefault((*names, str(config.epochs), f"{base.N:,}"), []).append(base)
    clients = any(base.config.federation.clients > 0 for base in plan.bases)

    def table(without: Collection[str]) -> Table:
        made = Table(box=None, pad_edge=False)
        spared = {*without} if clients else {*without, "federation"}
        for name in ("model", "dataset", "optimizer", "federation", "seeds", "epochs", "weights", "bases", "cells"):
            if name not in spared:
                made.add_column(name, justify="right" if name in ("epochs", "weights") else "left", overflow="fold")
        for (model, dataset, optimizer, federation, epochs, weights), bases in list(rows.items())[:ROWS]:
            cells = {
                "model": model,
                "dataset": dataset,
                "optimizer": optimizer,
                "federation": federation,
                "seeds": _seeds([base.config.seed for base in bases]),
                "epochs": epochs,
                "weights": weights,
                "bases": _statuses(map(plan.base_status, bases)),
                "cells": _statuses(plan.statuses[cell.key] for base in bases for cell in base.cells),
            }
            made.add_row(*(text for name, text in cells.items() if name not in spared))
        if len(rows) > ROWS:
            made.add_row(f"and {len(rows) - ROWS} more")
        return made

    return FirstThatFits(*(partial(table, SPARED[:count]) for count in range(len(SPARED) + 1)))


def bases_table(plan: Plan) -> Table:
    """One row per base with its key and the state of its training and of its cells, the first of them where there are
    many."""
    table = Table(box=None, pad_edge=False)
    for name in ("base", "key", "training", "cells"):
        table.add_column(name, overflow="fold")
    for base in plan.bases[:ROWS]:
        cells = _statuses(plan.statuses[cell.key] for cell in base.cells)
        table.add_row(base.config.label, base.key[:8], plan.base_status(base), cells)
    if len(plan.bases) > ROWS:
        table.add_row(f"and {len(plan.bases) - ROWS} more")
    return table


def size(count: float) -> str:
    """`31 MB` or `1.4 GB`"""
    if count < 0.95e9:
        return f"{max(round(count / 1e6), 1)} MB"
    return f"{count / 1e9:.{1 if count < 9.95e9 else 0}f} GB"


def _held(plan: Plan) -> str:
    """What every method holds, the most over the bases."""
    held: dict[str, float] = {}
    for base, cell in plan.cells:
        held[cell.method.name] = max(held.get(cell.method.name, 0.0), cell.memory_floats / base.N)
    return ", ".join(f"{name} {floats:.3g}" for name, floats in held.items())


def _dead_weights(plan: Plan) -> Iterator[str]:
    """Per model that has weights which meet nothing but padding, how many they are."""
    for (model, data, pixels), base in {
        (b.config.model.name, b.config.dataset.name, b.config.dataset.image_size): b
        for b in plan.bases
        if not b.is_adopted
    }.items():
        share = image_cost(base.config.model, base.config.dataset).unreached / base.N
        if share > 0.01:
            yield (
                f"{share:.0%} of the weights of {model} meet nothing but padding at {pixels} pixels and never get a "
                f"gradient; larger images (dataset.{data}.resize) give them work"
            )


def _image_bytes(plan: Plan) -> int:
    """Of the largest data set that a job holds in memory."""
    found = [0]
    trained = [base.config.dataset for base in plan.bases if not base.is_adopted]
    for config in {dataset.name: dataset for dataset in trained}.values():
        if not find_source(config).streams:
            found.append(sum(check_sizes(config)) * config.channels * config.size**2)
    return max(found)


def memory_bytes(plan: Plan, cost: Estimate, work: Work) -> int:
    """What all processes of the rest of a plan take on one machine."""
    held = cost.memory_bytes + 2 * work.activation_bytes + _image_bytes(plan)
    if plan.bases[0].config.device == "cuda":
        held = _image_bytes(plan)
    settings = plan.experiment.settings
    open_bases = sum(any(plan.statuses[cell.key] == "left" for cell in base.cells) for base in plan.bases)
    jobs = min(most_jobs(settings.engine, plan.bases[0].config.device) or open_bases, open_bases)
    return LIBRARIES_BYTES + jobs * (JOB_BYTES + held)


def _left(plan: Plan) -> bool:
    return "left" in plan.statuses.values()


def cost_text(plan: Plan, cost: Estimate, time: Duration, work: Work) -> str:
    """What the rest will take, in a line, and what the time follows from, in another."""
    if not _left(plan):
        return f"nothing is left to do: {_statuses(plan.statuses.values())}"
    asked = f"{size(cost.disk_bytes)} of disk at most"
    if plan.bases[0].config.device == "cuda":
        asked += f", {size(cost.memory_bytes + work.activation_bytes)} of GPU memory a job"
    if plan.experiment.settings.engine.name == "local":
        asked += f", {size(memory_bytes(plan, cost, work))} of memory"
    return f"{time.text if time.seconds is not None else 'time unknown'}, {asked}\n{time.why}"


def sums_text(plan: Plan, cost: Estimate) -> str:
    """How many bases and cells there are, how many of them are done, and what is to be trained, in a line."""
    bases, cells = counted(len(plan.bases), "base"), counted(len(plan.statuses), "cell")
    text = f"{bases}, {cells}: {_statuses(plan.statuses.values())}"
    trained = {
        "of bases": cost.base_epochs,
        "of branches": cost.branch_epochs,
        _shadow_runs(plan): cost.shadow_epochs,
        "of bases run again for restart states that are gone": cost.rederived_epochs,
    }
    epochs = ", ".join(f"{count} {what}" for what, count in trained.items() if count)
    return text + (f"; epochs to train: {epochs}" if epochs else "; nothing to train")


def _shadow_runs(plan: Plan) -> str:
    """`in shadow runs of 2 bases for ema, which watches optimizer steps`"""
    steps: dict[str, None] = {}
    lost: dict[str, None] = {}
    bases = 0
    for base in plan.bases:
        cells = shadowed(plan, base, [cell for cell in base.cells if plan.statuses[cell.key] == "left"])
        bases += bool(cells)
        for cell in cells:
            (steps if watches_steps(cell) else lost)[cell.method.name] = None
    reasons = [
        *([f"{' and '.join(steps)}, which watch{'' if len(steps) > 1 else 'es'} optimizer steps"] if steps else []),
        *([f"{' and '.join(lost)}, whose snapshots are not stored"] if lost else []),
    ]
    return f"in shadow runs of {counted(bases, 'base')} for {'; and for '.join(reasons)}"


def _stale(plan: Plan) -> Iterator[str]:
    """Per reason how many finished cells are stale."""
    reasons: Counter[str] = Counter()
    for base, cell in plan.cells:
        if plan.statuses[cell.key] == "stale":
            record = plan.store.record(cell.key)
            reasons[(record and plan.why_stale(base, record)) or "sources"] += 1
    for reason, text in STALE.items():
        if count := reasons[reason]:
            yield f"{counted(count, 'stale cell')} {text}; redo=stale makes {'it' if count == 1 else 'them'} anew"


def _retrained(plan: Plan) -> Iterator[str]:
    """What `redo` asks of bases means for cells that are not planned."""
    again = {base.key for base in plan.bases if plan.retrains(base)}
    others = resting_on(plan.store, again, {cell.key for _, cell in plan.cells})
    if others:
        views = ", ".join(f"{count} of {view}" for view, count in others.items())
        yield (
            f"{counted(len(again), 'base')} will be trained anew: cells of views that rest on the present weights and "
            f"are not among these ({views}) are stale where the weights change"
        )


def plan_text(plan: Plan, cost: Estimate) -> str:
    """The methods, the sums, and notes, as lines."""
    methods = dict.fromkeys(cell.method.name for _, cell in plan.cells)
    lines = [sums_text(plan, cost), f"methods: {', '.join(methods)}", *plan.notes, *_dead_weights(plan)]
    lines += [*_stale(plan), *_retrained(plan)]
    ended = Counter(plan.statuses.values())
    if failed := ended["failed"] + ended["skipped"]:
        was, it = ("was", "it") if failed == 1 else ("were", "them")
        lines.append(f"{counted(failed, 'cell')} failed or {was} skipped; redo=failed runs {it} again")
    return "\n".join(lines)


def details_text(plan: Plan, cost: Estimate, work: Work) -> str:
    """What jobs and methods hold, and the operations, as lines."""
    largest = f" ({cost.largest})" if cost.largest else ""
    lines = [
        f"memory of the largest job: {size(cost.memory_bytes)} beside libraries, images and activations{largest}",
        f"held beside the model, in floats per weight: {_held(plan)}",
        *work.sentences(),
    ]
    return "\n".join(lines)


def run_text(plan: Plan, cost: Estimate, time: Duration) -> str:
    """What a run is about to do, as lines: what is planned, reused and left, and how long it will take."""
    half = sum(plan.base_status(base) == "half-trained" for base in plan.bases)
    reused = sum(status != "left" for status in plan.statuses.values())
    lines = [sums_text(plan, cost)]
    if reused:
        lines.append(f"reused as they are: {counted(reused, 'cell')}")
    if half:
        lines.append(f"go on from their last stored epoch: {counted(half, 'half-trained base')}")
    why = time.why if time.seconds is None else f"{time.text} ({time.why.removeprefix('time: ')})"
    return "\n".join([*lines, why])
