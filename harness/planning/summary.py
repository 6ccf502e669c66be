"""A plan on the terminal: bases and cells, what is done, stale or left, and what the rest will cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.table import Table

from harness.planning.estimate import Estimate
from harness.planning.model_cost import image_cost
from harness.planning.plan import Plan

ROWS = 60
"""bases that a plan shows one by one"""
ORDER = ("done", "stale", "failed", "diverged", "skipped", "left")


def plan_table(plan: Plan) -> Table:
    """One row per base with the state of its training and of its cells, the first of them where there are many."""
    settings = plan.experiment.settings
    table = Table(
        title=f"view {settings.view} in {settings.results_dir}", title_justify="left", box=None, pad_edge=False
    )
    for name in ("model", "dataset", "optimizer"):
        table.add_column(name)
    for name in ("seed", "epochs", "weights"):
        table.add_column(name, justify="right")
    for name in ("base", "key", "cells"):
        table.add_column(name)
    for base in plan.bases[:ROWS]:
        counts = Counter(plan.statuses[cell.key] for cell in base.cells)
        config = base.config
        table.add_row(
            config.model.name,
            config.dataset.name,
            config.optimizer.name,
            str(config.seed),
            str(config.epochs),
            f"{base.N:,}",
            plan.base_status(base),
            base.key[:8],
            ", ".join(f"{counts[status]} {status}" for status in ORDER if counts[status]),
        )
    if len(plan.bases) > ROWS:
        table.add_row(f"and {len(plan.bases) - ROWS} more")
    return table


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _held(plan: Plan) -> str:
    """What every method holds, the most over the bases."""
    held: dict[str, float] = {}
    for base, cell in plan.cells:
        held[cell.method.name] = max(held.get(cell.method.name, 0.0), cell.memory_floats / base.N)
    return ", ".join(f"{name} {floats:.3g}" for name, floats in held.items())


def _dead_weights(plan: Plan) -> Iterator[str]:
    """Per model that has weights which meet nothing but padding, how many they are."""
    for (model, data, size), base in {
        (b.config.model.name, b.config.dataset.name, b.config.dataset.image_size): b for b in plan.bases
    }.items():
        share = image_cost(base.config.model, base.config.dataset).unreached / base.N
        if share > 0.01:
            yield (
                f"{share:.0%} of the weights of {model} meet nothing but padding at {size} pixels and never get a "
                f"gradient; larger images (dataset.{data}.resize) give them work"
            )


def plan_text(plan: Plan, cost: Estimate) -> str:
    """The methods, the sums, and notes, as lines."""
    methods = dict.fromkeys(cell.method.name for _, cell in plan.cells)
    counts = Counter(plan.statuses.values())
    sums = ", ".join(f"{counts[status]} {status}" for status in ORDER if counts[status])
    epochs = [f"{cost.base_epochs} of bases", f"{cost.branch_epochs} of branches"]
    if cost.shadow_epochs:
        epochs.append(f"{cost.shadow_epochs} of bases run again for cells that snapshots cannot serve")
    if cost.rederived_epochs:
        epochs.append(f"{cost.rederived_epochs} of bases run again for restart states that are gone")
    lines = [
        f"methods: {', '.join(methods)}",
        f"{len(plan.bases)} bases, {len(plan.statuses)} cells: {sums}",
        f"to do: epochs {', '.join(epochs)}; disk at most about {_size(cost.disk_bytes)}; "
        f"memory of the largest job about {_size(cost.memory_bytes)} beside libraries, images and activations"
        + (f" ({cost.largest})" if cost.largest else ""),
        f"held beside the model, in floats per weight: {_held(plan)}",
        *plan.notes,
        *_dead_weights(plan),
    ]
    stale = counts["stale"]
    if stale:
        lines.append(f"{stale} cells were made by other harness sources than these; redo=stale runs them anew")
    return "\n".join(lines)
