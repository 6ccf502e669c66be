"""One search: a method on one model, dataset and optimizer, as an Optuna study that asks and is told.

What counts against the budget: trials that completed, were pruned or diverged, and those that failed twice. A trial
that failed is tried once more as a trial of its own; a setting that the method refuses was never tried. The setting
without tuning is valued first, whether it lies in the space or not.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, fail_stale_trials
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from harness.config import ConfigError, EvaluateConfig, MethodConfig, TuneConfig
from harness.planning.methods import fit_method
from harness.planning.plan import BasePlan, CellPlan, plan_cell
from harness.storage.keys import harness_digest, source_digest
from harness.storage.schemas import TrialAttributes, TrialResult, read_as
from harness.tune.sampling import make_pruner, make_sampler, next_grid_point, setting
from harness.tune.space import Space
from harness.tune.storage import quiet
from harness.validation import reason

RUNGS = 4
"""looks at a branch, after each quarter of its epochs, where trials may be pruned"""
REFUSALS = 10
"""times the budget: so many settings may be refused before a search gives up"""
REPEATS = 100
"""settings in a row that were all tried before: the space is exhausted"""
ORPHAN = timedelta(seconds=60)
DEFAULT = -1
"""the number under which the setting without tuning goes"""

Result = dict[str, Any]
"""of one setting on one seed: status, val_accuracy, val_loss, seconds, epoch, reason, traceback"""


@dataclass(frozen=True)
class Problem:
    """A model, dataset and optimizer, with a base per seed."""

    label: str
    bases: tuple[BasePlan, ...]

    @property
    def seeds(self) -> list[int]:
        return [base.config.seed for base in self.bases]

    @property
    def epochs(self) -> int:
        return self.bases[0].config.epochs


@dataclass
class Candidate:
    """A setting under way: a trial, or the setting without tuning."""

    number: int
    params: dict[str, Any]
    """the searched ones"""
    cells: tuple[CellPlan, ...]
    """one per base"""
    trial: Trial | None
    results: dict[int, Result] = field(default_factory=dict)
    """final ones, by seed"""
    pruned: bool = False
    same_as: int | None = None
    """the trial that had this setting before, whose results these are"""

    @property
    def key(self) -> str:
        """Settings with equal keys have equal numbers."""
        return self.cells[0].key

    @property
    def failure(self) -> Result | None:
        return next((r for r in self.results.values() if r["status"] == "failed"), None)

    @property
    def over(self) -> bool:
        """Whether no more seed has to be tried: it was pruned, failed or diverged."""
        return self.pruned or any(r["status"] != "done" for r in self.results.values())


@dataclass
class Search:
    """A method's search on a problem. `exclusive`: no other coordinator can work on this study."""

    method: MethodConfig
    problem: Problem
    space: Space
    config: TuneConfig
    evaluate: EvaluateConfig
    folder: Path
    study: optuna.Study
    storage: BaseStorage
    exclusive: bool
    leads: bool
    """whether it may make the setting without tuning the first trial"""
    repeats: int = 0
    ended: str | None = None
    """why it asks for no more trials: its budget is spent, or what stopped it"""
    failed: bool = False
    """whether something stopped it that was not its budget"""

    @property
    def label(self) -> str:
        return f"{self.method.name} on {self.problem.label}"

    @cached_property
    def default_cells(self) -> tuple[CellPlan, ...]:
        """The setting without tuning, on every base."""
        return self.cells({})

    @property
    def kind(self) -> str:
        return self.default_cells[0].kind

    @property
    def default_params(self) -> dict[str, Any]:
        return {name: self.method.params[name] for name in self.space.distributions}

    @property
    def steps(self) -> int:
        """Looks at a trial: of every seed, and of a branch that may be pruned at every rung."""
        return len(self.problem.bases) * (RUNGS if self.prunes else 1)

    @property
    def prunes(self) -> bool:
        return self.kind == "brancher" and self.config.pruner != "none"

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def cells(self, params: dict[str, Any]) -> tuple[CellPlan, ...]:
        """A setting on every base; ConfigError where it is refused."""
        method = replace(self.method, params={**self.method.params, **params})
        fitted = fit_method(method, self.problem.epochs)
        bases = self.problem.bases
        return tuple(plan_cell(b.config, b.key, fitted, self.evaluate) for b in bases)

    @property
    def default(self) -> dict[str, Any] | None:
        """Results of the setting without tuning, by seed as text, once they are known."""
        known: dict[str, Any] | None = self.study.user_attrs.get("default")
        return known

    def spent(self) -> tuple[int, float]:
        """Trials that count and the seconds of all, those under way included."""
        trials = self.trials
        return sum(map(counts, trials)), sum(t.user_attrs.get("seconds", 0.0) for t in trials)

    def wants(self) -> bool:
        """Whether the budget allows another trial; `ended` says why not."""
        if not self.failed:
            self.ended = self._end()
        return self.ended is None

    def _end(self) -> str | None:
        trials, seconds = self.spent()
        asked, limit = self.config.trials, self.config.seconds
        if (asked is not None and trials >= asked) or (limit is not None and seconds >= limit):
            return "done"
        if self._exhausted():
            return "every setting of its space was tried"
        if sum("refused" in t.user_attrs for t in self.trials) > REFUSALS * (asked or self.config.batch):
            self.failed = True
            return "too many of its settings are refused; narrow its search space"
        return None

    def _exhausted(self) -> bool:
        finished = [t for t in self.trials if t.state.is_finished()]
        if self.config.sampler == "grid" and next_grid_point(self.config, self.space, self.trials) is None:
            return True
        size = self.space.size
        tried = {setting(t.params) for t in finished if counts(t) or "refused" in t.user_attrs}
        return self.repeats >= REPEATS or (size is not None and len(tried) >= size)

    def batch(self) -> list[Candidate]:
        """The setting without tuning where it is not valued yet, trials that were left under way, and new ones."""
        found = [] if self.default is not None else [self._restored_default()]
        if not self.exclusive:
            with quiet():
                fail_stale_trials(self.study)
        self._retry()
        resumed = [c for c in map(self._resume, self._mine()) if c is not None]
        found += resumed
        while self.wants() and not (resumed and len(self.trials) % self.config.batch == 0):
            trial = self._ask()
            if trial is None:
                break
            candidate = self._candidate(trial)
            if candidate is not None:
                found.append(candidate)
            if (trial.number + 1) % self.config.batch == 0:
                break
        return found

    def _restored_default(self) -> Candidate:
        results = self.stored(self.study.user_attrs)
        return Candidate(DEFAULT, self.default_params, self.default_cells, None, results)

    def stored(self, attrs: dict[str, Any]) -> dict[int, Result]:
        """Results by seed, among the attributes of a trial or, for the setting without tuning, of the study."""
        return {seed: attrs[f"seed {seed}"] for seed in self.problem.seeds if f"seed {seed}" in attrs}

    def _mine(self) -> list[FrozenTrial]:
        """Trials under way that nobody works on: all of them where the study is this process's alone."""
        running = [t for t in self.trials if t.state == TrialState.RUNNING]
        if self.exclusive:
            return running
        for orphan in [t for t in running if "owner" not in t.user_attrs]:
            if orphan.datetime_start is not None and datetime.now() - orphan.datetime_start > ORPHAN:
                self._drop(orphan._trial_id)
        return [t for t in running if self.owns(t.user_attrs)]

    def _drop(self, trial_id: int) -> None:
        """A trial that was lost before it began, unless someone else was faster to say so."""
        try:
            self.storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return

    @property
    def work(self) -> Path:
        """Where jobs keep what they go on from; other machines may work on the same study in the same folder."""
        return self.folder / "work" / socket.gethostname()

    @property
    def owner(self) -> str:
        """Who works on a trial: whoever holds this folder on this machine."""
        return f"{socket.gethostname()}:{os.path.realpath(self.folder)}"

    def owns(self, attrs: dict[str, Any], name: str = "owner") -> bool:
        """Whether what has these attributes is this folder's and machine's own."""
        return self.exclusive or attrs.get(name) == self.owner

    @property
    def _who(self) -> str:
        """What else a suggestion depends on: several coordinators may ask for the same number at once."""
        return "" if self.exclusive else self.owner

    def _resume(self, frozen: FrozenTrial) -> Candidate | None:
        """The candidate of a trial that was left under way, perhaps before all of its parameters were suggested.

        Parameters that a sampler draws one by one come from one stream: those that the trial holds are drawn again, and
        let go, so that the others are what they would have been.
        """
        sampler = self.study.sampler = make_sampler(self.config, frozen.number, self._who)
        trial = Trial(self.study, frozen._trial_id)
        for name, distribution in frozen.distributions.items():
            if not trial._is_relative_param(name, distribution) and not distribution.single():
                sampler.sample_independent(self.study, frozen, name, distribution)
        return self._candidate(trial)

    def _retry(self) -> None:
        """Enqueue once more what has failed and was not tried again."""
        trials = self.trials
        again = {t.user_attrs["retry_of"] for t in trials if "retry_of" in t.user_attrs}
        for trial in trials:
            if trial.state == TrialState.FAIL and "error" in trial.user_attrs and trial.number not in again:
                self._enqueue_retry(trial)

    def _enqueue_retry(self, trial: FrozenTrial) -> None:
        if self.owns(trial.user_attrs) and retry_of(trial) is None:
            self.study.enqueue_trial(trial.params, user_attrs={"retry_of": trial.number})

    def _ask(self) -> Trial | None:
        """A new trial, with its parameters; None where others have meanwhile taken what was left of the budget."""
        trials = self.trials
        number = len(trials)
        waiting = any(t.state == TrialState.WAITING for t in trials)
        if self.leads and not trials and self.space.holds(self.default_params):
            self.study.enqueue_trial(self.default_params)
        elif self.config.sampler == "grid" and not waiting:
            point = next_grid_point(self.config, self.space, trials)
            if point is None:
                return None
            self.study.enqueue_trial(point)
        # TPE learns from what is refused, GP would suggest it again
        refused = bool(trials) and "refused" in trials[-1].user_attrs
        self.study.sampler = make_sampler(self.config, number, self._who, at_random=refused)
        with quiet():
            trial = self.study.ask()
        if not self.exclusive:
            trial.set_user_attr("owner", self.owner)
            self._beat(trial._trial_id)
            before = [t for t in self.trials if counts(t) and t.number < trial.number]
            if self.config.trials is not None and len(before) >= self.config.trials:
                trial.set_user_attr("surplus", True)
                self.study.tell(trial, state=TrialState.FAIL)
                return None
        return trial

    def _candidate(self, trial: Trial) -> Candidate | None:
        """The trial as a setting to be valued, which it is already where another had it; None where it is refused."""
        with quiet():
            params = {name: suggest(trial, name, d) for name, d in self.space.distributions.items()}
        try:
            cells = self.cells(params)
        except ConfigError as error:
            trial.set_user_attr("refused", str(error))
            self.study.tell(trial, state=TrialState.PRUNED)
            return None
        twin = self._twin(params, trial.number)
        self.repeats = 0 if twin is None else self.repeats + 1
        if twin is None:
            return Candidate(trial.number, params, cells, trial, self.stored(trial.user_attrs))
        candidate = Candidate(trial.number, params, cells, trial, same_as=twin.number)
        for seed, result in self.stored(twin.user_attrs).items():
            self.keep(candidate, seed, result)
        candidate.pruned = twin.state == TrialState.PRUNED
        return candidate

    def _twin(self, params: dict[str, Any], number: int) -> FrozenTrial | None:
        """A trial with this setting that has ended without failing."""
        for trial in self.trials:
            ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and trial.number != number
            if ended and trial.params == params:
                return trial
        return None

    def keep(self, candidate: Candidate, seed: int, result: Result) -> None:
        """What a setting came to on one seed, so that a killed search need not try it again."""
        if seed in candidate.results:
            return
        candidate.results[seed] = result
        if candidate.trial is None:
            self.study.set_user_attr(f"seed {seed}", result)
        elif result["status"] != "failed":
            candidate.trial.set_user_attr(f"seed {seed}", result)

    def look(self, candidate: Candidate, step: int, value: float) -> None:
        """Report the mean so far, and prune where the pruner says so; the setting without tuning never is."""
        trial = candidate.trial
        if trial is None or candidate.over:
            return
        if step not in self.trials[trial.number].intermediate_values:
            trial.report(value, step)
        candidate.pruned = step < self.steps - 1 and trial.should_prune()

    def tell(self, candidate: Candidate) -> None:
        """End a trial with what it came to."""
        results = candidate.results
        if candidate.trial is None:
            if not self.exclusive:
                self.study.set_user_attr("default_owner", self.owner)
            self.study.set_user_attr("default", {str(seed): result for seed, result in results.items()})
            return
        trial = candidate.trial
        if candidate.same_as is not None:
            trial.set_user_attr("same_as", candidate.same_as)
        else:
            trial.set_user_attr("seconds", sum(result["seconds"] for result in results.values()))
        failure = candidate.failure
        if failure is not None:
            trial.set_user_attr("error", failure["reason"])
            trial.set_user_attr("traceback", failure["traceback"])
            self.study.tell(trial, state=TrialState.FAIL)
        elif candidate.over:
            reason = next((r["reason"] for r in results.values() if r["status"] == "diverged"), None)
            if reason is not None:
                trial.set_user_attr("diverged", reason)
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, mean(self.config.metric, results.values()))

    def beat(self, candidates: Iterable[Candidate]) -> None:
        """Tell a shared storage that the trials under way are alive."""
        if not self.exclusive:
            for candidate in candidates:
                if candidate.trial is not None:
                    self._beat(candidate.trial._trial_id)

    def _beat(self, trial_id: int) -> None:
        record = getattr(self.storage, "record_heartbeat", None)
        if record is not None:
            record(trial_id)


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """A parameter of a trial: what the storage has, or a new suggestion."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


def mean(metric: str, results: Iterable[Result]) -> float:
    """Of a validation metric over seeds."""
    values = [float(result[f"val_{metric}"]) for result in results]
    return sum(values) / len(values)


def retry_of(trial: FrozenTrial) -> int | None:
    """The number of the failed trial that this one repeats."""
    number: int | None = trial.user_attrs.get("retry_of", trial.system_attrs.get("failed_trial"))
    return number


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial counts against the budget; one under way has its place there already."""
    if trial.state == TrialState.PRUNED:
        return "refused" not in trial.user_attrs
    if trial.state == TrialState.FAIL:
        return retry_of(trial) is not None and "surplus" not in trial.user_attrs
    return trial.state in (TrialState.COMPLETE, TrialState.RUNNING)


def open_search(
    search_name: str, made_with: dict[str, Any], storage: BaseStorage, config: TuneConfig
) -> tuple[optuna.Study, bool]:
    """The study of that name, made where there is none, and whether it was made here.

    ConfigError, naming what differs, where there is another.
    """
    direction = StudyDirection.MAXIMIZE if config.metric == "accuracy" else StudyDirection.MINIMIZE
    made = search_name not in {study.study_name for study in storage.get_all_studies()}
    with quiet():
        try:
            study = (
                optuna.create_study(storage=storage, study_name=search_name, direction=direction)
                if made
                else optuna.load_study(study_name=search_name, storage=storage)
            )
        except DuplicatedStudyError:  # another machine was faster
            made, study = False, optuna.load_study(study_name=search_name, storage=storage)
    if made:
        study.set_user_attr("made_at", datetime.now().isoformat())
        study.set_user_attr("readable_run_ids", True)  # those of an earlier version's study stay as they are
    known = study.user_attrs.get("made_with")
    if not isinstance(known, dict):
        study.set_user_attr("made_with", made_with)
        known = made_with
    for name in {**made_with, **known}:
        if known.get(name) != made_with.get(name):
            then, now = _differing(known.get(name), made_with.get(name))
            raise ConfigError(
                f"tune.name must be of a study with the same {name}, got {search_name!r}, made with {then} instead of "
                f"{now}; tune.name={config.name or 'study'}2 makes a new one"
            )
    return study, made


def check_attributes(study: optuna.Study, seeds: Iterable[int], folder: Path) -> None:
    """ConfigError where a study or one of its trials holds what no search writes."""
    trials = study.get_trials(deepcopy=False)
    ended = [trial.user_attrs for trial in trials if trial.state == TrialState.COMPLETE]
    for attrs in (study.user_attrs, *(trial.user_attrs for trial in trials)):
        try:
            results = [value for name, value in attrs.items() if name.startswith("seed ")]
            if attrs.get("default") is not None:
                results += [attrs["default"][str(seed)] for seed in seeds]
            if any(attrs is one for one in ended):
                results += [attrs[f"seed {seed}"] for seed in seeds]
            for result in results:
                read_as(TrialResult, result)
            read_as(TrialAttributes, attrs)
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"tune.name must be of a study whose trials can be read, got one in {folder} with {reason(error)}; "
                "tune.name=... makes one beside it"
            ) from error


def _differing(then: Any, now: Any) -> tuple[str, str]:
    """Two values in words; of two mappings the entries that differ."""
    if isinstance(then, dict) and isinstance(now, dict):
        names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        one, other = (", ".join(f"{n} {side.get(n, 'not there')}" for n in names) for side in (then, now))
        return one, other
    return str(then), str(now)


def made_with(
    method: MethodConfig, problem: Problem, space: Space, evaluate: EvaluateConfig, suite: str, metric: str
) -> dict[str, Any]:
    """All that the values of a study's trials depend on, in the words of the configuration where it has some."""
    base = problem.bases[0].config
    fixed = {name: value for name, value in method.params.items() if name not in space.distributions}
    return {
        "suite": suite,
        "space": space.plain(),
        "seeds": problem.seeds,
        "epochs": base.epochs,
        "batch_size": base.batch_size,
        "metric": metric,
        "parameters": fixed,
        "batchnorm": method.batchnorm,
        "evaluate.recalibrate_images": evaluate.recalibrate_images,
        "bases": [one.key for one in problem.bases],
        "sources": [source_digest(method.target.rpartition(".")[0]), harness_digest()],
    }


def make_search(
    method: MethodConfig,
    problem: Problem,
    space: Space,
    config: TuneConfig,
    evaluate: EvaluateConfig,
    suite: str,
    folder: Path,
    storage: BaseStorage,
) -> Search:
    """A search on an opened storage."""
    asked = made_with(method, problem, space, evaluate, suite, config.metric)
    name = "/".join([suite, method.name, problem.label, *([] if config.name is None else [config.name])])
    study, made = open_search(name, asked, storage, config)
    check_attributes(study, problem.seeds, folder)
    exclusive = config.storage is None
    search = Search(
        method, problem, space, config, evaluate, folder, study, storage, exclusive, leads=exclusive or made
    )
    study.pruner = make_pruner(config, search.steps)
    return search
