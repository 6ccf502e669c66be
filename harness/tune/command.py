"""`traindyn tune`: from a resolved experiment to searches, and from searches to what they came to."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from optuna.exceptions import StorageInternalError
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from harness.config import BaseConfig, ConfigError, nearest
from harness.planning.compose import available, load_yaml
from harness.planning.experiment import Experiment
from harness.planning.plan import BasePlan, Plan
from harness.planning.tuned import search_folder
from harness.processes import METHOD
from harness.publishing.tracking_process import TrackingProcess
from harness.running.engine import Engine
from harness.running.event_files import EventFolder
from harness.running.event_loop import no_notices
from harness.running.events import RunsEnded
from harness.running.origin import ask_origin
from harness.storage.retention import prune
from harness.tracking import tracks
from harness.tune.display import TuneDisplay
from harness.tune.figures import draw_search
from harness.tune.results import sentence, spread_text, write_results, write_unsearched
from harness.tune.space import make_space
from harness.tune.storage import first_line, held, open_storage
from harness.tune.study import Candidate, Problem, Search, make_search
from harness.tune.tracking import group_of, trial_runs
from harness.tune.tuner import Tuner


def tunable(experiment: Experiment) -> Experiment:
    """The experiment with the methods that have a search space; ConfigError where none has or a key is another's."""
    chosen = experiment.tune.parameters
    methods = {method.name: method.config for _, methods in experiment.bases for method in methods}
    spaces = {name: m.search for name, m in methods.items() if m.search and (not chosen or set(m.search) & set(chosen))}
    for name in chosen or ():
        known = {parameter for method in methods.values() for parameter in method.search}
        if name not in known:
            raise ConfigError(f"tune.parameters: no chosen method searches {name!r}{nearest(str(name), known)}")
    if not spaces:
        raise ConfigError(f"method must name at least 1 with a search space, got {', '.join(methods)}")
    if experiment.settings.redo:
        raise ConfigError(
            f"redo is for run, got {', '.join(experiment.settings.redo)}; tune.name=... makes a new study"
        )
    bases = tuple((base, tuple(m for m in methods if m.name in spaces)) for base, methods in experiment.bases)
    return replace(experiment, bases=bases)


def problems(bases: Sequence[BasePlan]) -> list[Problem]:
    """Bases by model, dataset, optimizer and federation; ConfigError where those of one problem differ in more than the
    seed."""
    grouped: dict[str, list[BasePlan]] = {}
    for base in bases:
        grouped.setdefault(base.config.problem, []).append(base)
    for label, group in grouped.items():
        if len({_unseeded(base.config) for base in group}) > 1:
            raise ConfigError(f"bases must differ in the seed alone where they share a name, got several of {label}")
    return [Problem(label, tuple(group)) for label, group in grouped.items()]


def _unseeded(base: BaseConfig) -> str:
    return repr(replace(base, seed=0))


def make_searches(
    plan: Plan, config_dirs: tuple[Path, ...], stack: contextlib.ExitStack
) -> tuple[list[Search], list[str]]:
    """A search per method and problem, its folder held until `stack` closes; and what was cut off their spaces."""
    experiment, files = plan.experiment, available("method", config_dirs)
    suite, root = experiment.settings.suite, plan.store.root
    spaces, lines = [], []
    for problem in problems(plan.bases):
        for cell in problem.bases[0].cells:
            own = load_yaml(files[cell.method.name]).get(cell.method.name, {}).get("search") or {}
            space, cut = make_space(cell.method, problem.epochs, own, experiment.tune.parameters)
            lines += cut
            spaces.append((cell.method, problem, space))
    if not any(space.distributions for *_, space in spaces):
        raise ConfigError(f"method must have something to search in {plan.bases[0].config.epochs} epochs, got nothing")
    searches = []
    for method, problem, space in spaces:
        folder = search_folder(root, suite, method.name, problem.label, experiment.tune.name)
        if not space.distributions:
            write_unsearched(folder, method, problem, experiment)
            continue
        stack.enter_context(held(folder, experiment.tune.storage is not None))
        storage = open_storage(experiment.tune.storage, folder)
        searches.append(
            make_search(method, problem, space, experiment.tune, experiment.evaluate, suite, folder, storage)
        )
    return searches, list(dict.fromkeys(lines))


def tune(
    plan: Plan,
    engine: Engine,
    events: EventFolder,
    console: Console,
    config_dirs: tuple[Path, ...],
    python_path: tuple[str, ...],
) -> int:
    """Run every search of a plan made from a `tunable` experiment; exit code 1 where one failed.

    `events`: where the engine's jobs say what happens.
    """
    experiment, store = plan.experiment, plan.store

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    with contextlib.ExitStack() as stack:
        searches, lines = make_searches(plan, config_dirs, stack)
        for line in lines:
            say(line)
        settings, tracking = experiment.settings, None
        if tracks(settings.tracker):
            tracking = TrackingProcess(settings.tracker, store.root, settings.suite, METHOD, events.path, records=False)

        def track(search: Search, candidates: Sequence[Candidate] | None = None) -> None:
            if tracking is not None:
                numbers = None if candidates is None else {candidate.number for candidate in candidates}
                events.tell(RunsEnded(group_of(search), trial_runs(search, settings, store.store_id, numbers)))

        def told(search: Search, candidates: Sequence[Candidate]) -> None:
            write_results(search, experiment.command)
            track(search, candidates)

        display = TuneDisplay(console, searches)
        origin = ask_origin(experiment.command, store.root)
        tuner = Tuner(searches, store, settings, engine, display, told, python_path, experiment.composed, origin)
        try:
            display.start()
            try:
                tuner.run(no_notices if tracking is None else tracking.lines)
            finally:
                display.stop()
            for base in plan.bases:
                prune(store, base.key, base.kept(settings.trajectory.keep))
            code = _show(searches, experiment, console)
            for search in searches:  # also what an earlier command, or one that was killed, left out
                track(search)
            for line in () if tracking is None else tracking.finish():
                say(line)
        except BaseException as error:
            if tracking is not None:
                tracking.leave()
            if isinstance(error, StorageInternalError | SQLAlchemyError):
                raise ConfigError(f"tune.storage must stay reachable, lost it: {first_line(error)}") from None
            raise
        return code


def _show(searches: Sequence[Search], experiment: Experiment, console: Console) -> int:
    """Write figures and results, print the table and a sentence per search."""
    config = experiment.tune
    table = Table(
        title=f"suite {experiment.settings.suite}: best of {config.budget} per method, {config.sampler}",
        title_justify="left", box=None, pad_edge=False,
    )  # fmt: skip
    for name in ("method", "problem", "trials", "seconds", "default", "best", "difference", "beyond\nnoise"):
        left = name in ("method", "problem")
        table.add_column(name, justify="left" if left else "right", overflow="fold", no_wrap=not left)
    sentences, failed = [], False
    for search in searches:
        found = write_results(search, experiment.command)
        failed = failed or search.failed or found is None
        if found is None:
            sentences.append(f"{search.label}: no setting could be valued: {search.ended}")
            continue
        draw_search(search)
        metric, default = search.config.metric, found.default
        gain = f"{found.differences.mean():+.{2 if metric == 'accuracy' else 4}f}" if default is not None else ""
        noise = {True: "yes", False: "no", None: "cannot tell"}[found.beyond_noise]
        table.add_row(
            search.method.name, search.problem.label, str(found.trials), f"{search.spent()[1]:.1f}",
            "" if default is None else spread_text(default, metric), spread_text(found.values, metric), gain, noise,
        )  # fmt: skip
        sentences += [sentence(search, found), f"  {search.folder / 'best.yaml'}"]
    console.print(table)
    for text in sentences:
        console.print(text, highlight=False, soft_wrap=True)
    return 1 if failed else 0
