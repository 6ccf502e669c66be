"""Sending what was kept offline, and saying what is where.

`wandb sync` sends a fragment as it is: again where the server has it already, and not at all where one of its
arguments is empty. Here the server is asked first, and every run is given only what it lacks, in the order of its
epochs: cells and suites from their records, all others from their fragments.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.arguments import SyncArguments
from harness.config import ConfigError, TrackerConfig
from harness.publishing.publish import OTHER, REFUSED, SENT, THERE, Publisher, publish_text
from harness.publishing.suite_run import suite_info
from harness.storage import inside
from harness.storage.files import read_json
from harness.storage.inside import below
from harness.storage.masking import masked_text
from harness.storage.paths import plan_files
from harness.storage.store import Store
from harness.storage.views import read_plan
from harness.tracking.tracker import Row, RunEnd, RunInfo, RunState, Say
from harness.tracking.wandb.destination import forget_single_run
from harness.tracking.wandb.live import THREADS, WandbTracker
from harness.tracking.wandb.transaction_log import fragments_in, is_empty, local_state, read_offline, transaction_logs
from harness.validation import reason, shown

if TYPE_CHECKING:
    from harness.tracking.wandb.transaction_log import OfflineRun


def sync(request: SyncArguments, say: Say) -> int:
    """Send all runs below results_dir/wandb; 0 where the server then has them, 1 otherwise. ConfigError: no server."""
    root = Path(request.results_dir)
    inside.known(root, say)
    fragments = fragments_in(root, "*run-*", "run-*.wandb")
    if not fragments:
        say(f"no W&B run is kept in {root / 'wandb'}")
        return 0
    empty = [path for path in fragments if is_empty(path)]
    run_ids = dict.fromkeys(path.stem.removeprefix("run-") for path in fragments if path not in empty)
    problems: list[str] = []
    given = {**request.tracker, "name": "wandb", "mode": "online"}
    code = 0
    for project, of_project in _by_project(root, run_ids, given).items():
        config = TrackerConfig(**{**given, "project": project or None})
        tracker = WandbTracker(config, root, problems.append)
        forget_single_run()
        if tracker.server is None:
            stay = f"the runs stay in {root / 'wandb'}, and the same command sends them when it can be used"
            raise ConfigError(f"{masked_text(tracker.trouble or problems[0])}; {stay}")
        where = tracker.where
        outcomes = _send(root, of_project, config, tracker, say)
        tracker.close()
        say(publish_text(outcomes, where))
        for line in problems:
            say(line)
        code = max(code, 1 if problems or outcomes[OTHER] or outcomes[REFUSED] else 0)
    say(f"{len(fragments)} fragments in {root / 'wandb'}, {len(empty)} of them empty and skipped")
    return code


def _by_project(root: Path, run_ids: Iterable[str], given: dict[str, Any]) -> dict[str, list[str]]:
    """Run ids by the project that they are to go to: what was asked for, or that of their fragments."""
    found: dict[str, list[str]] = defaultdict(list)
    for run_id in run_ids:
        project = given.get("project") or read_offline(_whole(root, run_id)[-1]).project
        found[project].append(run_id)
    return dict(found)


def _whole(root: Path, run_id: str) -> list[Path]:
    return [path for path in transaction_logs(root, run_id) if not is_empty(path)]


def _send(root: Path, run_ids: list[str], config: TrackerConfig, tracker: WandbTracker, say: Say) -> Counter[str]:
    store = Store(root, say)
    states = tracker.states(run_ids)
    cells, suites = _recorded(store)

    def one(run_id: str) -> str:
        if run_id in suites:
            return Publisher(store, suites[run_id], config, tracker, say).suite_run()
        if run_id in cells:
            key, suite = cells[run_id]
            return Publisher(store, suite, config, tracker, say).cell(key, states.get(run_id))
        return _from_fragments(root, run_id, tracker, states.get(run_id))

    with ThreadPoolExecutor(THREADS) as pool:
        return Counter(pool.map(one, run_ids))


def _recorded(store: Store) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """By run id the cells of all suites' last plans that have a record, each with its suite, and the suites."""
    cells: dict[str, tuple[str, str]] = {}
    suites: dict[str, str] = {}
    for path in plan_files(store.root):
        plan = read_plan(store.root, path.parent.name)
        suites[suite_info(plan, store.store_id).run_id] = plan["suite"]
        for cell in plan["cells"]:
            record = store.record(cell["cell_key"])
            if record is not None:
                cells.setdefault(record["run_id"], (cell["cell_key"], plan["suite"]))
    return cells, suites


def _from_fragments(root: Path, run_id: str, tracker: WandbTracker, state: RunState | None) -> str:
    """Give a run that no record is of, such as a trial or one that was cut short, as its fragments hold it."""
    fragments = _whole(root, run_id)  # before a run is opened, which has a fragment of its own
    runs = [read_offline(path) for path in fragments]
    known, last = local_state(root, run_id), runs[-1]
    if known is not None and state is not None and known.epoch == state.epoch and known.digest == state.digest:
        return THERE
    rows: dict[int, Row] = {int(row["epoch"]): row for run in runs for row in run.history if "epoch" in row}
    info = RunInfo(run_id, last.name, last.group, last.job_type, last.tags, last.config, last.notes or None)
    tracker.start(replace(info, tags=tuple(dict.fromkeys([*(state.tags if state else ()), *info.tags]))))
    tracker.log(run_id, (rows[epoch] for epoch in sorted(rows)))
    if last.finished:
        tracker.end(run_id, _end(last, fragments[-1].parent / "files"))
    return REFUSED if tracker.refuses(run_id) else SENT


def _end(run: OfflineRun, files: Path) -> RunEnd:
    """A finished fragment's summary, its tables read back from their files."""
    summary = {k: v for k, v in run.summary.items() if k not in ("status", "record", "tables")}
    tables = {}
    for name, entry in _tables(run.summary):
        try:
            stored = read_json(below(files, str(entry.get("path"))))
            tables[name] = pd.DataFrame(stored["data"], columns=stored["columns"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{files} must hold the table {shown(name)}: {reason(error)}") from error
        summary.pop(f"tables/{name}", None)
    status = str(run.summary.get("status", "done" if run.exit_code == 0 else "failed"))
    return RunEnd(summary, tables, status=status, digest=run.summary.get("record"))


def _tables(summary: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    for name, value in summary.items():
        if name.startswith("tables/") and isinstance(value, dict) and value.get("_type") == "table-file":
            yield name.removeprefix("tables/"), value
