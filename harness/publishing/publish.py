"""Runs from records: whatever a tracker lacks of a suite is given to it, as often as you like, and nothing twice.

Neither a configuration is resolved nor anything trained: what a suite consists of is read from its plan.json, so this
works on another machine, after a run without a network, and after a process was killed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from harness.arguments import PublishArguments
from harness.config import ConfigError, Name, TrackerConfig, from_mapping
from harness.publishing.suite_run import suite_end, suite_info
from harness.report.views import write_views
from harness.storage.inside import entries
from harness.storage.masking import MASK
from harness.storage.parquet import read_parquet
from harness.storage.store import Record, Store
from harness.storage.views import read_plan, said_view
from harness.tracking import open_tracker, tracks
from harness.tracking.runs import cell_artifacts, cell_digest, cell_end, cell_info, holds
from harness.tracking.tracker import Row, RunEnd, RunInfo, RunState, Say, Tracker, WholeRun
from harness.tracking.wandb.destination import check_server
from harness.tracking.wandb.live import THREADS
from harness.validation import reason, shown, validated

SENT, THERE, LEFT, OTHER, REFUSED = "sent", "there", "left", "other", "refused"
"""what became of a run: given, complete already, without a record yet, holding rows that are not its record's, or not
taken"""
PAUSES = (0.5, 2.0, 4.0)
"""seconds between looks at whether a service has all"""


def record_rows(history: pd.DataFrame) -> list[Row]:
    """The rows of a record as its job gave them: what an epoch lacks is left out."""
    return [{str(k): v for k, v in row.items() if v == v} for row in history.to_dict("records")]


@dataclass
class Publisher:
    """Gives a suite's runs to a tracker."""

    store: Store
    suite: str
    config: TrackerConfig
    tracker: Tracker
    say: Say
    digests: dict[str, str] = field(default_factory=dict)
    """What `all` found of records, by the ids of their runs: `cell_digest` without artifacts."""

    def cell(self, cell_key: str, state: RunState | None = None) -> str:
        """Give a cell's run as a whole; `state`: what the tracker holds of it, None where it is not known."""
        found = self.store.cell(cell_key)
        if found is None:
            return LEFT
        record, info = found[0], cell_info(found[0], self.suite)
        kept = cell_artifacts(self.store, record, self.config)
        digest = cell_digest(record, [artifact.type for artifact in kept])
        if state is not None and holds(state.digest, digest) and set(info.tags) <= set(state.tags):
            return THERE
        rows = record_rows(read_parquet(found[1]))
        return self._give(info, rows, cell_end(record, rows, self._tables(record), kept), state)

    def runs(self, runs: Sequence[WholeRun], done: Callable[[], None] = lambda: None) -> Counter[str]:
        """Give what the tracker lacks of runs that no record is of, such as trials; `done` is called after each."""
        states = self.tracker.states([info.run_id for info, *_ in runs])

        def one(run: WholeRun) -> str:
            outcome = self._give(*run, states.get(run.info.run_id))
            done()
            return outcome

        with ThreadPoolExecutor(THREADS) as pool:
            return Counter(pool.map(one, runs))

    def _tables(self, record: Record) -> dict[str, pd.DataFrame]:
        """A method's own tables; those of an earlier generation are not a failed one's."""
        if record["status"] != "done":
            return {}
        folder = self.store.cell_folder(record["cell_key"]) / "tables"
        return dict(filter(None, map(self._table, entries(folder, "*.parquet"))))

    def _table(self, path: Path) -> tuple[str, pd.DataFrame] | None:
        """A table with its name, None where it is damaged, which is said."""
        try:
            return validated("tables", Name, path.stem), read_parquet(path)
        except (OSError, ValueError) as error:
            self.say(f"not sent: {path}: {reason(error)}")
            return None

    def _give(self, info: RunInfo, rows: Sequence[Row], end: RunEnd, state: RunState | None) -> str:
        if state is not None:
            if holds(state.digest, end.digest or "") and set(info.tags) <= set(state.tags):
                return THERE
            if not _begins(rows, state):
                self.say(f"{info.name}: {info.run_id} holds rows that are not its record's: redo gives it another run")
                return OTHER
            info = replace(info, tags=tuple(dict.fromkeys([*state.tags, *info.tags])))
        return self._record(info, rows, end)

    def _record(self, info: RunInfo, rows: Sequence[Row], end: RunEnd) -> str:
        self.tracker.record(info, rows, end)
        return REFUSED if self.tracker.refuses(info.run_id) else SENT

    def suite_run(self) -> str:
        """Give the suite's own run, with its views built anew from the records."""
        plan = read_plan(self.store.root, self.suite)
        frame = write_views(self.store, self.suite)
        info = suite_info(plan, self.store.store_id)
        end = suite_end(self.store.suite_folder(self.suite), plan, frame, self.config)
        state = self.tracker.states([info.run_id]).get(info.run_id)
        if state is not None and holds(state.digest, end.digest or ""):
            return THERE
        return self._record(info, (), end)

    def all(self, done: Callable[[], None] = lambda: None) -> Counter[str]:
        """Give what the tracker lacks of the last plan's cells and of the suite itself; runs by what became of them.

        `done` is called after each.
        """
        plan = read_plan(self.store.root, self.suite)
        made: dict[str, str | None] = {}
        for cell in plan["cells"]:
            key = cell["cell_key"]
            record = self.store.record(key)
            made[key] = None if record is None else record["run_id"]
            if record is not None:
                self.digests[record["run_id"]] = cell_digest(record, ())
        states = self.tracker.states(self.digests)

        def one(key: str) -> str:
            run_id = made[key]
            outcome = self.cell(key, states.get(run_id)) if run_id is not None else LEFT
            done()
            return outcome

        with ThreadPoolExecutor(THREADS) as pool:
            outcomes = Counter(pool.map(one, made))
        outcomes[self.suite_run()] += 1
        done()
        return outcomes


def _begins(rows: Sequence[Row], state: RunState) -> bool:
    """Whether a record goes on from what a tracker holds: the last row there is the record's of that epoch."""
    if state.last is None:
        return True
    own = next((row for row in rows if row["epoch"] == state.epoch), None)
    return own is not None and all(_same(value, state.last.get(name)) for name, value in own.items())


def _same(value: Any, there: Any) -> bool:
    return not isinstance(there, int | float) or there != there or abs(value - there) <= 1e-9 * abs(value)


def chosen_tracker(planned: Mapping[str, Any], given: Mapping[str, Any]) -> TrackerConfig:
    """The tracker that a plan names, and over it what the command line gives of `tracker.*`."""
    known = {each.name for each in fields(TrackerConfig)}
    if not isinstance(planned, Mapping):
        raise ConfigError(f"tracker must be a mapping in the plan, got {shown(planned)}")
    values = {k: v for k, v in planned.items() if k in known and not (isinstance(v, str) and MASK in v)}
    return from_mapping(TrackerConfig, "tracker", {**values, **given})


def publish(request: PublishArguments, say: Say) -> int:
    """Give the suite's runs, and say what became of them: 0 where the tracker then has all, otherwise 1."""
    root = Path(request.results_dir)
    name = said_view(root, request.view, say)
    plan = read_plan(root, name)
    config = chosen_tracker(plan["config"].get("tracker", {}), request.tracker)
    if not tracks(config):
        raise ConfigError("tracker must be wandb or csv for publish, got none; tracker=wandb chooses one")
    if "base_url" not in request.tracker:
        check_server(config)
    store = Store(root, say)
    tracker = open_tracker(config, root, say, notice=True)
    if tracker.where is None:
        return 0
    publisher = Publisher(store, name, config, tracker, say)
    outcomes = publisher.all()
    tracker.close()
    say(publish_text(outcomes, tracker.where))
    missing = lacking(tracker, publisher.digests)
    if missing:
        say(f"{missing} of these are not complete there: the same command again gives what is missing")
    return 1 if missing or outcomes[OTHER] or outcomes[REFUSED] else 0


def lacking(tracker: Tracker, digests: Mapping[str, str]) -> int:
    """Runs that a tracker, asked anew, does not hold as their records' digests say, those aside that it refuses.

    A service may need some seconds.
    """
    open_ones = {run_id: digest for run_id, digest in digests.items() if not tracker.refuses(run_id)}
    for pause in PAUSES:
        states = tracker.states(open_ones)
        open_ones = {k: d for k, d in open_ones.items() if k not in states or not holds(states[k].digest, d)}
        if not open_ones:
            break
        time.sleep(pause)
    return len(open_ones)


def publish_text(outcomes: Counter[str], where: str) -> str:
    """`18 sent, 1 there already: http://...`"""
    words = {
        SENT: "sent",
        THERE: "there already",
        LEFT: "not run yet",
        OTHER: "not as their record",
        REFUSED: "refused",
    }
    return f"{', '.join(f'{outcomes[key]} {word}' for key, word in words.items() if outcomes[key])}: {where}"
