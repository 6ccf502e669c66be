"""Plans of the harness carried out without a terminal."""

from __future__ import annotations

import contextlib
from pathlib import Path

from here_engine import HereEngine
from rich.console import Console

from gpu_parts.options import Options
from harness.planning.compose import Request
from harness.planning.plan import Plan, make_plan
from harness.planning.resolve import resolve
from harness.running.display import Display
from harness.running.engine import Engine, open_engine
from harness.running.event_files import EventFolder
from harness.running.scheduler import Scheduler, epochs_left
from harness.storage.store import Record, Store


class CellFailed(RuntimeError):
    """A cell did not end as done."""


def planned(options: Options, folder: Path, *overrides: str) -> Plan:
    """The plan of a run whose results go to a folder."""
    asked = (*options.overrides, f"results_dir={folder}", *overrides)
    return make_plan(resolve(Request(asked), "benchmark", compares=False), Store(folder))


def carry_out(plan: Plan, in_processes: bool) -> None:
    """Run all of a plan, each job in a process of its own or all of them in this one; CellFailed."""
    settings, device = plan.experiment.settings, plan.bases[0].config.device
    with contextlib.ExitStack() as stack:
        events = stack.enter_context(EventFolder(plan.store))
        engine: Engine = HereEngine()
        if in_processes:
            engine = open_engine(settings.engine, device, events.path, plan.clients)
            stack.callback(engine.close)
        display = Display(Console(quiet=True), 0, len(plan.statuses), epochs_left(plan), engine.slots)
        Scheduler(plan, engine, display, (), events.tell).run()
    for record in records(plan):
        if record["status"] != "done":
            raise CellFailed(f"{record['method']}: {record['status']}: {record['reason']}")


def records(plan: Plan) -> list[Record]:
    """Of all cells, in the plan's order."""
    found = [(cell, plan.store.record(cell.key)) for _, cell in plan.cells]
    lost = [cell.method.name for cell, record in found if record is None]
    if lost:
        raise CellFailed(f"{', '.join(lost)}: no record")
    return [record for _, record in found if record is not None]


def base_records(plan: Plan) -> list[Record]:
    """Of all bases, in the plan's order."""
    found = [plan.store.base(base.key) for base in plan.bases]
    return [record for record in found if record is not None]
