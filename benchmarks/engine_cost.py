"""What scheduling costs: seconds per job of each engine, two workers against one, and a store of 10,000 cells.

Jobs that do nothing are handed to each engine, one worker at a time and two at a time; what is left when their work is
none is the engine's own. Speed-up: a suite of small bases with one and with two workers, in turn. The store: records
with a history of 200 epochs written and read one by one, and `traindyn plan` on a suite of so many cells, with none and
with all of them recorded.

    python benchmarks/engine_cost.py [--jobs 40] [--cells 10000] [--engines local ray slurm]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))
os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # for jobs on a cluster

from slurm_cluster import SlurmCluster, missing

from harness.planning.compose import Request
from harness.planning.plan import Plan, make_plan
from harness.planning.resolve import resolve
from harness.running.engine import Engine, open_engine
from harness.running.engine.local import warm_up
from harness.running.event_files import EventFolder
from harness.running.events import JobEnded
from harness.running.jobs import Job
from harness.running.jobs.worker import Worker
from harness.storage.store import Store

COMMAND = Path(sys.executable).parent / "traindyn"
SUITE = ("suite=smoke", "tracker=none")


class IdleWorker(Worker):
    """Does nothing."""

    kind = "train"

    def work(self) -> None: ...

    def run(self) -> None: ...


def idle_job(plan: Plan) -> Job:
    import engine_cost  # jobs travel by names, and this module's own is __main__

    experiment, base = plan.experiment, plan.bases[0]
    return Job(
        worker=engine_cost.IdleWorker,
        base=base,
        cells=(),
        snapshots=frozenset(),
        starts=frozenset(),
        retrain=False,
        evaluate=experiment.evaluate,
        settings=experiment.settings,
        composed={},
        python_path=(),
    )


def drain(engine: Engine, job: Job, count: int) -> float:
    """Seconds for so many jobs, as many at once as the engine takes."""
    start, left = time.perf_counter(), count
    while left or engine.busy:
        while left and engine.free > 0:
            engine.submit(job)
            left -= 1
        for _, event in engine.events(0.5):
            if isinstance(event, JobEnded) and event.died is not None:
                raise SystemExit(f"a job died: {event.died}")
    return time.perf_counter() - start


def plan_for(folder: Path, *overrides: str) -> Plan:
    experiment = resolve(Request((*SUITE, f"results_dir={folder}", *overrides), ()), "benchmark")
    return make_plan(experiment, Store(folder))


def overhead(name: str, jobs: int, folder: Path) -> None:
    options = {"local": (), "ray": (), "slurm": ("engine.poll_seconds=1",)}[name]
    for workers in (1, 2):
        plan = plan_for(folder / name, f"engine={name}", f"engine.workers={workers}", *options)
        start = time.perf_counter()
        with (
            EventFolder(plan.store) as events,
            contextlib.closing(
                open_engine(plan.experiment.settings.engine, "cpu", events.path, plan.clients)
            ) as engine,
        ):
            drain(engine, idle_job(plan), 2)
            first = time.perf_counter() - start
            seconds = drain(engine, idle_job(plan), jobs)
        print(f"engine {name:6s} {workers} workers: {seconds / jobs:8.3f} s a job, start and first two {first:6.1f} s")


def run_command(*words: str) -> float:
    start = time.perf_counter()
    subprocess.run([COMMAND, *words], check=True, capture_output=True)
    return time.perf_counter() - start


def speed_up(folder: Path, rounds: int) -> None:
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for i in range(rounds):
        for workers in (1, 2) if i % 2 == 0 else (2, 1):
            results = f"results_dir={folder / f'speed-{workers}-{i}'}"
            words = ("run", *SUITE, "seeds=[0,1,2,3,4,5]", "epochs=12", f"engine.workers={workers}", results)
            seconds[workers].append(run_command(*words))
    one, two = (sorted(values)[len(values) // 2] for values in seconds.values())
    print(f"6 bases, 54 cells: 1 worker {one:.1f} s, 2 workers {two:.1f} s, ratio {one / two:.2f}")


def store(folder: Path, cells: int) -> None:
    seeds = "seeds=[" + ",".join(map(str, range(-(-cells // 9)))) + "]"
    words = ("plan", *SUITE, seeds, f"results_dir={folder / 'store'}")
    empty = run_command(*words)
    plan = plan_for(folder / "store", seeds)
    rows = [{"epoch": t, "train_loss": 1 / t, "val_loss": 1 / t, "val_accuracy": 50.0} for t in range(1, 201)]
    opened, keys = Store(folder / "store"), [(base, cell) for base, cell in plan.cells]
    start = time.perf_counter()
    for base, cell in keys:
        opened.write_record(
            {
                "cell_key": cell.key,
                "base_key": base.key,
                "status": "done",
                "generation": 0,
                "base_digest": [],
                "sources": {"harness": "", "method": cell.source},
                "holds": {"epochs": list(range(1, 7)), "test_epochs": [6], "weights": False},
                "summary": {"val_accuracy": 50.0},
            },
            rows,
        )
    written = time.perf_counter() - start
    start = time.perf_counter()
    for _, cell in keys:
        opened.record(cell.key)
    read = time.perf_counter() - start
    full = run_command(*words)
    print(f"store of {len(keys)} cells: {len(keys) / written:.0f} writes/s, {len(keys) / read:.0f} verified reads/s")
    print(f"traindyn plan on {len(keys)} cells: {empty:.1f} s with none recorded, {full:.1f} s with all")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="*", default=["local", "ray", "slurm"])
    given = parser.parse_args()
    warm_up()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for engine in given.engines:
            if engine == "slurm" and missing():
                print(f"engine slurm: left out, {missing()} is not installed")
                continue
            if engine == "slurm":
                with SlurmCluster(folder / "cluster") as cluster:
                    os.environ.update(cluster.environment | {"PYTHONPATH": str(Path(__file__).parent)})
                    overhead(engine, given.jobs, folder)
            else:
                overhead(engine, given.jobs, folder)
        if given.rounds:
            speed_up(folder, given.rounds)
        if given.cells:
            store(folder, given.cells)


if __name__ == "__main__":
    import engine_cost  # so that its jobs are of a module that other processes can import

    engine_cost.main()
