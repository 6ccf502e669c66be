"""W&B runs, fed while jobs run or from records, online or offline.

The record is the truth and W&B a view of it: a row is logged only after a job's restart bundle or its record holds it,
and whoever gives the rows of a run gives all of them, of which those already there are skipped. An error of W&B's ends
the tracking of its run, is said in one line, and never reaches the training.

All runs of a command share one wandb-core service (0.4 s to start; a run with 20 rows then costs 0.02 to 0.03 s with
eight threads at it, 0.17 s with one; wandb 0.31 against a server on loopback). W&B's history only appends, so no two
commands write one run at the same time: a lock per run sees to that, and to the wandb-core of a killed command
`harness.tracking.wandb.services`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import TrackerConfig
from harness.storage import inside
from harness.storage.masking import masked, masked_text
from harness.storage.sockets import room_for_sockets
from harness.tracking.run_locks import RunLocks
from harness.tracking.tracker import STATUSES_THAT_SUCCEED, ArtifactFiles, Row, RunEnd, RunInfo, RunState, Say, Tracker
from harness.tracking.wandb.destination import api_key, has_key, resolve_mode, resolve_target, user_settings
from harness.tracking.wandb.server import Server, Unavailable
from harness.tracking.wandb.services import Services
from harness.tracking.wandb.transaction_log import local_state, read_offline

if TYPE_CHECKING:
    import wandb

INIT_SECONDS = 20
FINISH_SECONDS = 20
"""how long an online run may take to send its last rows; the record has them in any case"""
HEARD_SECONDS = 5
"""after so long without an answer a server is asked for one, before a run waits for it to take its last rows"""
CLOSE_SECONDS = 10
THREADS = 8
"""runs that are opened or finished at the same time"""


@dataclass
class _Open:
    """A run that is open; `run` None where W&B failed it."""

    run: wandb.Run | None
    name: str
    online: bool
    logged: int | None


class WandbTracker(Tracker):
    """Keeps W&B runs, with their files below `folder`/wandb.

    Online where the mode says so and the server answers, else offline; that a server cannot be used is said once, and
    from then on all runs are offline ones. `notice`: whether the mode that `auto` chose is said.
    """

    def __init__(self, config: TrackerConfig, folder: Path, say: Say, notice: bool = False) -> None:
        self.folder = folder.resolve()
        inside.known(self.folder, say)
        inside.check_writable(self.folder / "wandb")
        self._say = say
        self._runs: dict[str, _Open] = {}
        self._guard, self._setup = threading.Lock(), threading.Lock()
        self._said: set[str] = set()
        self._refused: set[str] = set()
        self._ended: dict[str, RunState] = {}
        """what runs that were closed here hold: a server may need a while to say so itself"""
        self._heard = 0.0
        """when the server last answered, on the monotonic clock"""
        self._used = False
        """whether a run was opened online"""
        self._left: list[Any] = []
        """connections to wandb-cores that take no more runs, and may have some open"""
        self._locks = RunLocks(self.folder / "wandb" / "locks")
        self._services = Services(self.folder / "wandb" / "services")
        mode, note = resolve_mode(config)
        self.target = resolve_target(config)
        self.server: Server | None = None
        self.trouble: str | None = None
        """why the server cannot be used, where it was to be"""
        self.entity = self.target.entity
        if mode == "online":
            self._connect()
        if notice and self.server is not None:
            self._say(f"W&B runs online at {self.where}")
        elif notice and note is not None and mode == "offline":
            self._say(f"{note}; they are kept in {self.where}, `traindyn sync` sends them")

    @property
    def where(self) -> str:  # type: ignore[override]
        if self.server is None:
            return str(self.folder / "wandb")
        return masked_text("/".join(filter(None, (self.target.server, self.entity, self.target.project))))

    def _connect(self) -> None:
        settings, url = user_settings(), self.target.server
        try:
            if not has_key(settings, url):
                raise Unavailable("no API key is configured (`wandb login` stores one, WANDB_API_KEY is one)")
            server = Server(url, api_key(settings, url))
            entity = server.default_entity()
            self.entity, self.server = self.entity or entity, server
        except Exception as error:
            self._lose(error)

    def _hear(self, recent: float = 0.0) -> None:
        """Unavailable where the server was not heard of within `recent` seconds and does not answer now either."""
        server = self.server
        if server is None or time.monotonic() - self._heard < recent:
            return
        try:
            server.default_entity()
        except Unavailable:
            time.sleep(1.0)
            server.default_entity()
        self._heard = time.monotonic()

    def _answers(self) -> bool:
        try:
            self._hear()
        except Unavailable:
            return False
        return self.server is not None and self.server.key is not None

    def _lose(self, error: Exception) -> None:
        """From now on offline; said once. Runs that are open online are left as they are."""
        with self._guard:
            self.server = None
            for known in self._runs.values():
                if known.online:
                    known.run = None
        if self._used:
            self._leave_service(kill=True)
        self.trouble = f"W&B at {self.target.server} cannot be used: {_one_line(error)}"
        self._once(
            f"{self.trouble}; runs go on offline in {self.folder / 'wandb'}, and `traindyn publish`, for trials of "
            "searches `traindyn sync`, sends them when it can be used",
            "server",
        )

    def _once(self, line: str, about: str) -> None:
        with self._guard:
            if about in self._said:
                return
            self._said.add(about)
        self._say(masked_text(line))

    def refuses(self, run_id: str) -> bool:
        return run_id in self._refused

    def states(self, run_ids: Iterable[str]) -> dict[str, RunState]:
        wanted = set(run_ids)
        ended = {run_id: state for run_id, state in self._ended.items() if run_id in wanted}
        wanted -= set(ended)
        if self.server is not None:
            try:
                return ended | self.server.states(self.entity, self.target.project, wanted)
            except Unavailable as error:
                self._lose(error)
        found = {run_id: local_state(self.folder, run_id) for run_id in wanted}
        return ended | {run_id: state for run_id, state in found.items() if state is not None}

    def start(self, info: RunInfo) -> None:
        if info.run_id in self._runs:
            return
        try:
            self._locks.take(info.run_id)
            self._services.end_orphans()  # before what the run holds is looked at
        except OSError as error:
            self._locks.release(info.run_id)
            self._once(f"W&B does not track {info.name}, its record goes on: {_one_line(error)}", "start")
            return
        known = self._open(info)
        if known is None:
            self._locks.release(info.run_id)
            return
        with self._guard:
            self._runs[info.run_id] = known

    def _open(self, info: RunInfo) -> _Open | None:
        if self.server is not None:
            try:
                run = self._init(info, online=True)
            except Exception as error:
                if self._answers():
                    self._leave_service()
                    self._refused.add(info.run_id)
                    # such as a run that was deleted there, whose id cannot be used again
                    self._once(f"W&B refuses {info.name} as {info.run_id}: {_one_line(error)}", info.run_id)
                    return None
                self._lose(error)
            else:
                # rows are sent in order, so the server's next step says all
                return _Open(run, info.name, True, run.starting_step - 1 if run.starting_step > 0 else None)
        try:
            state = local_state(self.folder, info.run_id)
            return _Open(self._init(info, False), info.name, False, None if state is None else state.epoch)
        except Exception as error:
            self._failed(info.run_id, error)
            self._once(f"W&B does not track {info.name}, its record goes on: {_one_line(error)}", "start")
            return None

    def _init(self, info: RunInfo, online: bool) -> wandb.Run:
        # read when wandb's service starts: no network call but the runs', no files but the results folder's
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        for name in ("DATA", "CACHE"):
            os.environ.setdefault(f"WANDB_{name}_DIR", str(self.folder / "wandb" / name.lower()))
        if os.environ.get("WANDB_PROJECT", self.target.project) != self.target.project:
            del os.environ["WANDB_PROJECT"]  # another was asked for, and wandb would refuse all for one that is none
        import wandb

        settings = _settings()
        with self._setup, room_for_sockets():
            wandb.setup(settings)
            self._note_service()
        if online:
            self._used = True
            settings.base_url = self.target.server
            settings.finish_timeout, settings.finish_timeout_raises = FINISH_SECONDS, True
        run = wandb.init(
            dir=self.folder,
            project=self.target.project,
            entity=self.entity,
            id=info.run_id,
            name=info.name,
            group=info.group,
            job_type=info.job_type,
            tags=tuple(dict.fromkeys([*info.tags, *self.target.tags])),
            notes=masked_text("\n".join(filter(None, (info.notes, self.target.notes)))) or None,
            config=masked(info.config),
            mode="online" if online else "offline",
            resume="allow",
            reinit="create_new",
            settings=settings,
        )
        run.define_metric("epoch")
        run.define_metric("*", step_metric="epoch")
        return run

    def _note_service(self) -> None:
        """Note the wandb-core that new runs are given to, where it is this process's own."""
        from wandb.sdk import wandb_setup

        connection = None if wandb_setup._singleton is None else wandb_setup._singleton._connection
        if connection is not None and connection._proc is not None:
            self._services.add(connection._proc._process.pid)

    def _leave_service(self, kill: bool = False) -> None:
        """Let the next run start a wandb-core of its own.

        The present one holds the id of a run that failed to start, and there is no way to have it let go that does
        not also end, or wait for, the other runs in it. `kill`: it ends now, before it sends rows behind the back of
        who gives them anew; the record has them.
        """
        from wandb.sdk import wandb_setup

        with self._setup:
            singleton, wandb_setup._singleton = wandb_setup._singleton, None
            if singleton is not None and singleton._connection is not None:
                self._left.append(singleton._connection)
            os.environ.pop("WANDB_SERVICE", None)
        while kill and self._left:
            service = self._left.pop()
            service._finalizer.close()
            service._cleanup()
            service._proc._process.kill()
            service._proc.join()  # it writes nothing behind what is read of its runs now

    def log(self, run_id: str, rows: Iterable[Row]) -> None:
        for row in rows:
            with self._tracking(run_id) as known:
                epoch = int(row["epoch"])
                if known is None or known.run is None or (known.logged is not None and epoch <= known.logged):
                    continue
                # W&B's own step is the epoch too: it refuses a second row for a step, and tells what a server has
                values = {key: value for key, value in row.items() if value is not None}
                known.run.log(values, step=epoch, commit=True)
                known.logged = epoch

    def end(self, run_id: str, end: RunEnd) -> None:
        with self._tracking(run_id) as known:
            if known is not None and known.run is not None:
                _describe(known.run, end, known.online)
                if self._finish(known, 0 if end.status in STATUSES_THAT_SUCCEED else 1):
                    last = None if known.logged is None else {"epoch": known.logged}
                    self._ended[run_id] = RunState(0, last, end.digest, known.run.tags or ())
        self._release(run_id)

    def _finish(self, known: _Open, exit_code: int) -> bool:
        """Whether it is known to have all."""
        run = known.run
        assert run is not None
        try:
            if known.online:
                self._hear(recent=HEARD_SECONDS)
            run.finish(exit_code=exit_code)
        except (TimeoutError, Unavailable) as error:
            self._lose(error)
            return False
        if known.online:
            self._heard = time.monotonic()
        else:
            _wait_until_closed(Path(run.settings.sync_file))
        return True

    def _release(self, run_id: str) -> None:
        with self._guard:
            self._runs.pop(run_id, None)
        self._locks.release(run_id)

    def close(self) -> None:
        def interrupt(run_id: str) -> None:
            with self._tracking(run_id) as known:
                if known is not None and known.run is not None:
                    self._finish(known, 130)
            self._release(run_id)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(interrupt, list(self._runs)))
        self._ended.clear()
        self._services.forget()

    @contextlib.contextmanager
    def _tracking(self, run_id: str) -> Iterator[_Open | None]:
        known = self._runs.get(run_id)
        try:
            yield known
        except Exception as error:
            assert known is not None
            known.run = None
            self._failed(run_id, error)
            self._once(f"W&B tracking of {known.name} stopped, its record goes on: {_one_line(error)}", "run")

    def _failed(self, run_id: str, error: Exception) -> None:
        """What W&B does not take it does not take the next time either; a disk or a network may come back."""
        if not isinstance(error, OSError | Unavailable):
            self._refused.add(run_id)


def _settings() -> wandb.Settings:
    import wandb

    return wandb.Settings(
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
        # of the machine that sends, which need not be the one that computed; what the record says is in the config
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,  # half of a run's cost; versions are in its config
        x_transaction_log_flush_interval=1.0,
    )


def _describe(run: wandb.Run, end: RunEnd, online: bool) -> None:
    """Summary, tables, images and artifacts of a run that ends."""
    import wandb

    summary = {k: v for k, v in end.summary.items() if v is not None} | {"status": end.status}
    if end.digest is not None:
        summary["record"] = end.digest
    if end.images:
        run.log({f"figures/{name}": wandb.Image(str(path)) for name, path in end.images.items()}, commit=True)
    for name, table in end.tables.items():
        # in the summary and not in the history, which holds the epochs' rows and nothing else
        run.summary[f"tables/{name}"] = wandb.Table(dataframe=table)
    for artifact in end.artifacts:
        run.log_artifact(_artifact(artifact, online))
    run.summary.update(masked(summary))


def _artifact(given: ArtifactFiles, online: bool) -> Any:
    import wandb

    artifact = wandb.Artifact(given.name, type=given.type, metadata=masked(dict(given.metadata)))
    for name, content in given.files.items():
        if isinstance(content, bytes):
            with artifact.new_file(name, "wb") as file:
                file.write(content)
        else:
            # offline a copy is kept until it is sent, since the file may be another by then
            artifact.add_file(str(content), name, policy="immutable" if online else "mutable")
    return artifact


def _wait_until_closed(log: Path) -> None:
    """`finish` returns before wandb-core has written the last records, and a process may end right after."""
    deadline = time.monotonic() + CLOSE_SECONDS
    while not read_offline(log).finished:
        if time.monotonic() > deadline:
            raise OSError(f"{log} was not closed within {CLOSE_SECONDS} s")
        time.sleep(0.002)


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    if isinstance(error, Unavailable):
        return lines[0]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
