"""What watching costs: one base with all its observers against the base alone, and against every cell on its own.

Each job runs in a process of its own, as in a real run, in a fresh results folder, without W&B. Seconds of a job are
those of its clock, all phases; those of evaluation are shown apart, since every way of running has to pay them.

    python benchmarks/matrix_cost.py [overrides, such as model=test_vit]
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path

from harness.planning.compose import Request
from harness.planning.plan import make_plan
from harness.planning.resolve import resolve
from harness.running.engine.local import LocalEngine, warm_up
from harness.running.events import JobEnded, Message
from harness.running.jobs import WORKERS, Job
from harness.storage.store import Store

DEFAULTS = ("suite=quick", "model=test_resnet", "seeds=[0]", "tracker=none", "engine.workers=1")


def run(overrides: tuple[str, ...], methods: tuple[str, ...] | None) -> tuple[float, float, list[str]]:
    """Seconds of one base with these methods (None: all of the suite), without and within evaluation; its methods."""
    with tempfile.TemporaryDirectory() as folder:
        study = resolve(Request((*overrides, f"results_dir={folder}")), "benchmark")
        plan = make_plan(study, Store(Path(folder)))
        (base,) = plan.bases
        cells = tuple(c for c in base.cells if c.kind != "brancher" and (methods is None or c.method.name in methods))
        base = dataclasses.replace(base, cells=cells)
        wanted = base.snapshots(list(cells), "none")
        job = Job(
            WORKERS["train"],
            base,
            cells,
            frozenset(wanted),
            frozenset(),
            False,
            study.evaluate,
            study.settings,
            study.composed,
            (),
        )
        engine = LocalEngine(study.settings.engine, base.config.device, Path(folder))
        engine.submit(job)
        while engine.busy:
            for _, event in engine.events(1.0):
                if isinstance(event, Message) or (isinstance(event, JobEnded) and event.died is not None):
                    print(event, file=sys.stderr)
        record = plan.store.base(base.key)
        assert record is not None, "the job left no record"
        phases = record["seconds"]
        evaluation = sum(seconds for name, seconds in phases.items() if name.startswith("eval/"))
        return sum(phases.values()) - evaluation, evaluation, [cell.method.name for cell in cells]


def main() -> None:
    overrides = (*DEFAULTS, *sys.argv[1:])
    warm_up()
    run(overrides, ("base",))  # the first job pays for imports
    alone, alone_evaluation, _ = run(overrides, ("base",))
    together, together_evaluation, names = run(overrides, None)
    again, again_evaluation, _ = run(overrides, ("base",))
    alone, alone_evaluation = (alone + again) / 2, (alone_evaluation + again_evaluation) / 2
    apart = [run(overrides, (name,)) for name in names]
    apart_seconds, apart_evaluation = (sum(one[i] for one in apart) for i in (0, 1))
    print(f"{' '.join(overrides)}: {len(names)} methods: {', '.join(names)}")
    print(f"{'':34s}without evaluation   evaluation        all")
    for label, seconds, evaluation in (
        ("the base alone (mean of 2)", alone, alone_evaluation),
        ("the base with all methods watching", together, together_evaluation),
        ("every cell trained on its own", apart_seconds, apart_evaluation),
    ):
        print(f"{label:34s}{seconds:16.1f} s{evaluation:11.1f} s{seconds + evaluation:9.1f} s")
    print(f"all watching / base alone: {together / alone:.2f} without evaluation")
    all_apart = apart_seconds + apart_evaluation
    print(f"all watching / each on its own: {(together + together_evaluation) / all_apart:.2f} in all")


if __name__ == "__main__":
    main()
