"""One W&B run per cell, fed while the cell's job runs.

The record is the truth and W&B a view of it: a row is logged only after the job's restart bundle holds it, and
a job that is started again gives all its rows again, of which those already there are skipped. An error of
W&B's ends the tracking of that run with one line, and never the training.

Each job's process has a wandb-core service of its own (0.3 to 0.4 s once, then 0.02 s per run with 15 rows). One
shared by all processes would save little, and would keep the run of a killed job open, so that nobody could
resume it. Checked with wandb 0.31, also in forkserver processes with wandb imported by the server.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import TrackerConfig
from harness.tracking.modes import connect, has_key, resolve_mode, user_settings
from harness.tracking.offline import read_offline, transaction_logs

if TYPE_CHECKING:
    import pandas as pd
    import wandb

Warn = Callable[[str], None]

INIT_SECONDS = 20
FINISH_SECONDS = 120
"""how long an online run may take to send its last rows; the record has them in any case"""
CLOSE_SECONDS = 10

_unusable_servers: set[str] = set()
"""servers that failed in this process: said once, tried once"""


@dataclass(frozen=True)
class RunInfo:
    """What a run is called and where it is put: `group` is the base, `job_type` the method."""

    run_id: str
    name: str
    group: str
    job_type: str
    tags: Sequence[str]
    """beside those of the configuration"""
    config: dict[str, Any]
    """the full resolved configuration as plain values, without secrets"""
    notes: str | None = None


class CellRun:
    """The tracked run of one cell; this one tracks nothing."""

    logged: int | None = None
    """the last epoch that is already there"""

    def log(self, row: Mapping[str, Any]) -> None:
        """Send one row, `epoch` and numbers; epochs must ascend, one that is already there is skipped.

        None is left out; NaN and infinities are sent, since a loss that diverged is a result.
        """

    def finish(
        self, summary: Mapping[str, Any], tables: Mapping[str, pd.DataFrame] | None = None, status: str = "done"
    ) -> None:
        """Close the run with the numbers of the comparison table, the method's tables and how the cell ended."""


class WandbRun(CellRun):
    """A CellRun over an open wandb run; `warn` takes the one line said when W&B fails."""

    def __init__(self, run: wandb.Run, name: str, logged: int | None, warn: Warn) -> None:
        self.logged = logged
        self._run: wandb.Run | None = run
        self._name = name
        self._warn = warn

    def log(self, row: Mapping[str, Any]) -> None:
        with self._tracking() as run:
            epoch = int(row["epoch"])
            if run is None or (self.logged is not None and epoch <= self.logged):
                return
            # W&B's own step is the epoch too: it refuses a second row for a step, and tells what a server has.
            run.log({key: value for key, value in row.items() if value is not None}, step=epoch, commit=True)
            self.logged = epoch

    def finish(
        self, summary: Mapping[str, Any], tables: Mapping[str, pd.DataFrame] | None = None, status: str = "done"
    ) -> None:
        with self._tracking() as run:
            if run is None:
                return
            import wandb

            run.summary.update({**{k: v for k, v in summary.items() if v is not None}, "status": status})
            for name, table in (tables or {}).items():
                # in the summary and not in the history, which holds the epochs' rows and nothing else
                run.summary[f"tables/{name}"] = wandb.Table(dataframe=table)
            run.finish(exit_code=0 if status in ("done", "diverged") else 1)
            self._run = None
            _wait_until_closed(Path(run.settings.sync_file))

    @contextlib.contextmanager
    def _tracking(self) -> Iterator[wandb.Run | None]:
        try:
            yield self._run
        except Exception as error:
            self._run = None
            self._warn(f"W&B tracking of {self._name} stopped, its record goes on: {_one_line(error)}")


def open_run(config: TrackerConfig, folder: Path, info: RunInfo, warn: Warn) -> CellRun:
    """Start or resume the run of a cell, with its files under `folder`/wandb.

    Online where the mode says so and the server answers, else offline; a CellRun that does nothing where
    tracking is off or W&B fails. What is not as asked for is said in one line to `warn`.
    """
    mode, _ = resolve_mode(config)
    if mode == "disabled":
        return CellRun()
    folder = folder.resolve()
    try:
        run = _open_online(config, folder, info, warn) if mode == "online" else None
        if run is not None:
            # rows are sent in order, so the server's next step says all
            logged = run.starting_step - 1 if run.starting_step > 0 else None
        else:
            logged = _last_logged(folder, info.run_id)
            run = _init(config, folder, info)
    except Exception as error:
        warn(f"W&B does not track {info.name}, its record goes on: {_one_line(error)}")
        return CellRun()
    return WandbRun(run, info.name, logged, warn)


def _open_online(config: TrackerConfig, folder: Path, info: RunInfo, warn: Warn) -> wandb.Run | None:
    """None where the server cannot be used: said once per process, and then not tried again."""
    settings = user_settings()
    server = str(settings.base_url)
    if server in _unusable_servers:
        return None
    try:
        if not has_key(settings):
            raise LookupError("no API key is configured")
        connect(server)
        return _init(config, folder, info, server)
    except Exception as error:
        _unusable_servers.add(server)
        warn(f"W&B at {server} cannot be used, runs go on offline in {folder / 'wandb'}: {_one_line(error)}")
        _leave_service()
        return None


def _init(config: TrackerConfig, folder: Path, info: RunInfo, server: str | None = None) -> wandb.Run:
    """Start a run at `server`, or offline."""
    # both are read when wandb's service starts: no network call but the runs', no files but the results folder's
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb" / "data"))
    import wandb

    settings = wandb.Settings(
        console="off",
        silent=True,
        symlink=False,
        use_dot_wandb=False,
        save_code=False,
        disable_code=True,
        disable_git=True,
        sagemaker_disable=True,
        init_timeout=INIT_SECONDS,
        x_disable_stats=True,
        x_save_requirements=False,  # half of a run's cost; versions are in its config
        x_transaction_log_flush_interval=1.0,
    )
    wandb.setup(settings)
    if server is not None:
        settings.base_url = server
        settings.finish_timeout, settings.finish_timeout_raises = FINISH_SECONDS, True
    run = wandb.init(
        dir=folder,
        project=config.project,
        entity=config.entity,
        id=info.run_id,
        name=info.name,
        group=info.group,
        job_type=info.job_type,
        tags=tuple(dict.fromkeys([*info.tags, *config.tags])),
        notes=info.notes,
        config=info.config,
        mode="offline" if server is None else "online",
        resume="allow",
        reinit="create_new",
        settings=settings,
    )
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch")
    return run


def _wait_until_closed(log: Path) -> None:
    """`finish` returns before wandb-core has written the last records, and a job's process may end right after."""
    deadline = time.monotonic() + CLOSE_SECONDS
    while not read_offline(log).finished:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{log} was not closed within {CLOSE_SECONDS} s")
        time.sleep(0.002)


def _leave_service() -> None:
    """Let the next run start a wandb-core of its own.

    The present one holds the id of a run that failed to start, and there is no way to have it let go
    that does not also end, or wait for, the other runs in it.
    """
    from wandb.sdk import wandb_setup

    wandb_setup._singleton = None
    os.environ.pop("WANDB_SERVICE", None)


def _last_logged(folder: Path, run_id: str) -> int | None:
    """The last epoch in a run's fragments; those recorded online count, since they can be sent as well."""
    rows = [row for path in transaction_logs(folder, run_id) for row in read_offline(path).history]
    return max((row["epoch"] for row in rows if "epoch" in row), default=None)


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
