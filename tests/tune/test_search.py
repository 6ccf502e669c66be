"""Searches run in this process: what trials come to, what they cost, and what goes on after an interruption."""

import json
from types import SimpleNamespace

import optuna
import pandas as pd
import pytest
from command import LATEST, OWN, cell_folder, here
from optuna.trial import TrialState

import harness.problem.splits
from harness.config import ConfigError, TuneConfig
from harness.storage.store import Store
from harness.training.evaluate import Evaluator
from harness.tune.batch import Batch
from harness.tune.results import outcome, trials_frame
from harness.tune.sampling import make_sampler
from harness.tune.study import Search, counts

SAMPLES = "method.cmd_online.search.samples={type:int,low:50,high:99}"
CMD = ("method=cmd_online", "seeds=[0,1]", SAMPLES)
RUN = ("run", "suite=smoke", "fast=true", "tracker=none", f"--config-dir={OWN}")


class Stopped(BaseException):
    """Someone stopped the search."""


def table(search, *dropped):
    """The trials without what two runs may differ in."""
    return trials_frame(search).drop(columns=["seconds", "started", "ended", *dropped])


@pytest.fixture
def sealed(monkeypatch):
    """Whoever reads the test split fails."""
    indices = harness.problem.splits._split_indices

    def guarded(config, split):
        assert split != "test", "the test split was read"
        return indices(config, split)

    monkeypatch.setattr(harness.problem.splits, "_split_indices", guarded)


KINDS = {
    "observer of epochs": ("cmd_online", "replay"),
    "reconstruction": ("cmd_posthoc", "replay"),
    "observer of steps": ("ema", "shadow"),
    "brancher": ("lookahead", "branch"),
}


@pytest.mark.parametrize(("method", "kind"), KINDS.values(), ids=KINDS)
def test_a_trial_is_worth_what_the_cell_is_and_no_job_reads_test_data(
    tuned, sealed, monkeypatch, tmp_path, method, kind
):
    """`run` with a trial's settings gives its validation numbers to the last bit, though it goes another way: there the
    method watches the base while that is trained, or is the only one to branch. What is not searched stays as it is."""
    results = tmp_path / "results"
    done = tuned(results, f"method={method}", "trials=3", "seeds=[1]", "tune.pruner=median")
    (search,) = done.searches
    assert {job.kind for job in done.jobs} == {kind}
    trial = search.trials[-1]
    assert trial.state == TrialState.COMPLETE
    monkeypatch.undo()
    chosen = [f"method.{method}.{name}={value}" for name, value in trial.params.items()]
    names = f"method=[base,base_recalibrated,{method}]"
    here(*RUN, names, "seeds=[1]", *chosen, results=tmp_path / "again")
    folder = cell_folder(tmp_path / "again", LATEST, method, seed=1)
    summary = json.loads((folder / "record.json").read_text())["summary"]
    result = trial.user_attrs["seed 1"]
    assert (result["val_accuracy"], result["val_loss"]) == (summary["val_accuracy"], summary["val_loss"])
    assert trial.value == summary["val_accuracy"]


def test_an_evaluator_for_tuning_has_no_handle_to_the_test_split(tuned, monkeypatch, tmp_path):
    """Whatever kind of job makes it."""
    made = []
    monkeypatch.setattr(Evaluator, "prepare", recording(made, Evaluator.prepare))
    done = tuned(tmp_path / "results", "method=[swa,ema,lookahead,cmd_posthoc]", "trials=1", fresh=True)
    assert {job.kind for job in done.jobs} == {"train", "replay", "shadow", "branch"}
    assert made
    for evaluator in made:
        assert evaluator._splits.keys() == {"val"}
        assert evaluator.splits(last=True) == ("val",)


def recording(made, method):
    def recorded(self, *arguments):
        made.append(self)
        return method(self, *arguments)

    return recorded


def test_bases_are_trained_once_and_shared(tuned, tmp_path):
    """By all trials of all methods, and with `run`; trials leave no cell."""
    results = tmp_path / "results"
    done = tuned(results, "method=[swa,lawa,cmd_posthoc]", "trials=2", "seeds=[0,1]", fresh=True)
    assert [job.base.config.seed for job in done.jobs if job.kind == "train"] == [0, 1]
    assert not (results / "cells").exists()
    assert "train" not in {job.kind for job in tuned(results, "method=lawa", "trials=4", "seeds=[0,1]").jobs}
    here(*RUN, "method=[base,swa]", "seeds=[0,1]", results=results)
    assert "nothing to train" in here("plan", *RUN[1:], "method=[base,lawa]", "seeds=[0,1]", results=results).stdout


def test_all_candidates_of_a_batch_share_one_shadow_run(tuned, tmp_path):
    done = tuned(tmp_path / "results", "method=ema", "trials=7", "tune.batch=4")
    assert [len(job.cells) for job in done.jobs] == [4, 3]  # the default is the first trial
    assert sum(counts(trial) for trial in done.searches[0].trials) == 7


def test_snapshots_that_are_gone_are_made_again(tuned, tmp_path):
    """The base is repeated, with the digest of every epoch checked, and trials are worth what they were."""
    results = tmp_path / "results"
    first = tuned(results, *CMD, "trials=3", "tune.name=one").searches[0]
    (key, _) = (base.key for base in first.problem.bases)
    snapshot = results / "bases" / key / "trajectory/00003.safetensors"
    data = snapshot.read_bytes()
    snapshot.unlink()
    second = tuned(results, *CMD, "trials=3", "tune.name=two")
    assert [job.kind for job in second.jobs].count("train") == 1
    assert len(snapshot.read_bytes()) == len(data)
    pd.testing.assert_frame_equal(table(first), table(second.searches[0]))


@pytest.mark.parametrize(
    "sampler", ["tpe", *(pytest.param(name, marks=pytest.mark.long) for name in ("random", "qmc", "gp", "grid"))]
)
def test_samplers_are_reproducible_and_stay_in_the_space(tuned, tmp_path, sampler):
    """Models of what is good are made from 10 trials on, so those that have some get more."""
    given = (*CMD, "seeds=[0]", f"tune.sampler={sampler}", "tune.batch=4", "tune.parameters=[modes,warmup]")
    trials = 13 if sampler in ("gp", "tpe") else 7
    first, second, other = (
        tuned(tmp_path / "results", *given, f"tune.seed={seed}", f"tune.name={name}", f"trials={count}").searches[0]
        for name, seed, count in (("one", 0, trials), ("two", 0, trials), ("three", 1, 4))
    )
    pd.testing.assert_frame_equal(table(first), table(second))
    assert all(first.space.holds(trial.params) for trial in first.trials)
    assert [t.params for t in other.trials] != [t.params for t in first.trials][: len(other.trials)]


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_search_that_is_stopped_goes_on_to_the_same_trials(tuned, tmp_path, monkeypatch, after):
    """Stopped when the so-many-th value comes in: no trial is lost, tried twice, or suggested anew."""
    given = ("method=swa", "seeds=[0,1]", "trials=12", "tune.batch=5")
    whole = tuned(tmp_path / "whole", *given).searches[0]
    take, seen = Batch.take, []

    def stopping(self, job, key, result):
        seen.append(key)
        if len(seen) == after:
            raise Stopped
        take(self, job, key, result)

    monkeypatch.setattr(Batch, "take", stopping)
    with pytest.raises(Stopped):
        tuned(tmp_path / "stopped", *given)
    monkeypatch.undo()
    again = tuned(tmp_path / "stopped", *given).searches[0]
    pd.testing.assert_frame_equal(table(whole), table(again))
    assert sum(counts(trial) for trial in again.trials) == 12


def test_more_trials_go_on_from_those_that_are_there(tuned, tmp_path):
    first = tuned(tmp_path / "results", *CMD, "trials=3").searches[0]
    before = [(t.number, t.params, t.value) for t in first.trials]
    assert (len(before), sum(map(counts, first.trials))) == (3, 3)
    second = tuned(tmp_path / "results", *CMD, "trials=5").searches[0]
    assert [(t.number, t.params, t.value) for t in second.trials][: len(before)] == before
    assert sum(map(counts, second.trials)) == 5
    assert tuned(tmp_path / "results", *CMD, "trials=5").jobs == []


RAISES = ("method=raises", "+method.raises.search={at:{type:int,low:3,high:10}}", "tune.batch=4")


def test_a_failed_trial_is_recorded_with_its_error_and_tried_once_more(tuned, tmp_path):
    """`raises` raises at an epoch of the six, or never: what is searched above 6 completes."""
    done = tuned(tmp_path / "results", *RAISES, "trials=12", "tune.sampler=random")
    (search,) = done.searches
    failed = [trial for trial in search.trials if trial.state == TrialState.FAIL]
    first = [trial for trial in failed if "retry_of" not in trial.user_attrs]
    assert first
    assert all(trial.params["at"] <= 6 for trial in failed)
    assert all(trial.params["at"] > 6 for trial in search.trials if trial.state == TrialState.COMPLETE)
    assert all(t.user_attrs["error"] == f"RuntimeError: nothing works at t = {t.params['at']}" for t in failed)
    assert all("ends_badly.py" in trial.user_attrs["traceback"] for trial in failed)
    again = [trial.user_attrs["retry_of"] for trial in search.trials if "retry_of" in trial.user_attrs]
    assert sorted(again) == [trial.number for trial in first][: len(again)]
    assert len(set(again)) == len(again)
    assert sum(counts(trial) for trial in search.trials) == 12
    frame = trials_frame(search)
    assert frame["counts"].sum() == 12
    assert (frame.loc[frame["state"] == "failed", "error"].str.startswith("RuntimeError")).all()


LATE = (
    "method=late",
    "+method.late.search={start:{type:int,low:0,high:4},prefix:{type:int,low:0,high:4}}",
    "tune.sampler=random",
)


def test_branchers_start_where_they_are_searched_to(tuned, tmp_path):
    """Restart states that nobody kept are derived again. A start after the prefix is refused by the method: it is
    recorded, was never tried, and takes nothing of the budget."""
    done = tuned(tmp_path / "results", *LATE, "trials=6", "tune.pruner=none")
    (search,) = done.searches
    refused = [trial for trial in search.trials if "refused" in trial.user_attrs]
    assert refused
    assert all(trial.params["start"] > trial.params["prefix"] for trial in refused)
    assert not any(counts(trial) for trial in refused)
    tried = [trial for trial in search.trials if trial.state == TrialState.COMPLETE]
    assert sum(counts(trial) for trial in search.trials) == 6
    starts = {trial.params["start"] for trial in tried}
    restart = Store(tmp_path / "results").base_folder(search.problem.bases[0].key) / "restart"
    assert {int(path.stem) for path in restart.glob("0*.safetensors")} >= starts - {0}


def test_branches_in_rungs_end_where_they_end_in_one_go(tuned, tmp_path):
    """Four jobs with a look after each are one training, to the last bit."""
    given = ("method=lookahead", "trials=2", "seeds=[0,1]")
    looked = tuned(tmp_path / "looked", *given, "tune.pruner=median")
    once = tuned(tmp_path / "once", *given, "tune.pruner=none")
    pd.testing.assert_frame_equal(table(looked.searches[0]), table(once.searches[0]))
    # six epochs in quarters: looks after 2, 3, 5 and 6
    assert sorted({job.until for job in looked.jobs if job.kind == "branch"}) == [2, 3, 5, 6]
    assert {job.until for job in once.jobs if job.kind == "branch"} == {6}
    steps = {step: value for step, value in looked.searches[0].trials[0].intermediate_values.items()}
    assert sorted(steps) == list(range(8))
    results = [looked.searches[0].trials[0].user_attrs[f"seed {seed}"]["val_accuracy"] for seed in (0, 1)]
    assert steps[3] == results[0]
    assert steps[7] == sum(results) / 2


@pytest.mark.parametrize("pruner", ["median", pytest.param("hyperband", marks=pytest.mark.long)])
def test_bad_branches_are_pruned_and_trained_no_further(tuned, tmp_path, pruner):
    """Learning rates from nothing to a sensible one: those that learn nothing are worth less at every look."""
    given = ("method=late", "+method.late.search={lr:{type:float,low:1e-7,high:0.1,log:true}}", "seeds=[0,1]")
    done = tuned(
        tmp_path / "results", *given, "trials=10", f"tune.pruner={pruner}", "tune.batch=5", "tune.sampler=random"
    )
    (search,) = done.searches
    pruned = [trial for trial in search.trials if trial.state == TrialState.PRUNED]
    assert pruned
    for trial in pruned:
        assert len(trial.intermediate_values) < search.steps
    assert sum(counts(trial) for trial in search.trials) == 10
    found = outcome(search)
    assert found.number not in [trial.number for trial in pruned]


def test_a_setting_that_was_tried_costs_nothing(tuned, tmp_path):
    """Two values, ten trials: no setting is run twice, and the search ends with its space."""
    given = ("method=lawa", "method.lawa.search={k:{type:int,low:2,high:3}}", "tune.sampler=random")
    done = tuned(tmp_path / "results", *given, "trials=10")
    (search,) = done.searches
    assert search.ended is not None
    assert sum(len(job.cells) for job in done.jobs) == 2
    twins = [trial for trial in search.trials if "same_as" in trial.user_attrs]
    for trial in twins:
        assert trial.value == search.trials[trial.user_attrs["same_as"]].value


def test_seconds_are_a_budget_of_their_own(tuned, tmp_path):
    """A batch is never cut short, and none is asked for once the seconds are spent; trials alone end it otherwise."""
    given = (*CMD, "tune.batch=2", "trials=null")
    (search,) = tuned(tmp_path / "results", *given, "tune.seconds=1e-6").searches
    assert len(search.trials) == 2
    assert search.spent()[1] >= 1e-6
    assert search.ended == "done"


def test_a_study_of_another_space_is_refused_with_what_differs(tuned, tmp_path):
    results = tmp_path / "results"
    tuned(results, *CMD, "trials=1")
    for changed, words in (
        (("method.cmd_online.search.samples.high=70",), ("space", "samples 50..99", "samples 50..70")),
        (("seeds=[0,2]",), ("seeds", "[0, 1]", "[0, 2]")),
        (("tune.metric=loss",), ("metric", "accuracy", "loss")),
        (("method.cmd_online.include_initial=true",), ("parameters", "include_initial False", "include_initial True")),
    ):
        with pytest.raises(ConfigError) as refusal:
            tuned(results, *CMD, *changed, "trials=1")
        assert all(word in str(refusal.value) for word in (*words, "tune.name=study2")), refusal.value
    assert tuned(results, *CMD, "seeds=[0,2]", "tune.name=study2", "trials=1").searches[0].trials


def test_a_base_that_diverges_ends_its_searches(tuned, tmp_path):
    (search,) = tuned(
        tmp_path / "results", "method=swa", "trials=2", "optimizer.sgd_momentum.lr=1e12", fresh=True
    ).searches
    assert search.failed
    assert "diverged" in search.ended


@pytest.mark.long
def test_every_method_can_be_tuned(tuned, tmp_path):
    """Whatever has a search space, within one budget: a setting beside the default is valued for each."""
    done = tuned(tmp_path / "results", "method=all", "trials=2", "seeds=[0]", "tune.sampler=random")
    for search in done.searches:
        assert search.ended in ("done", "every setting of its space was tried"), search.label
        assert not search.failed
        errors = [trial.user_attrs["error"] for trial in search.trials if "error" in trial.user_attrs]
        assert errors == [], search.label
        assert outcome(search).default is not None


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("held", [1, 2, 3])
def test_a_trial_that_was_killed_while_it_was_asked_has_the_parameters_it_would_have_had(sampler, held):
    """Where parameters are drawn one by one, those that were stored before the kill are not drawn again by Optuna."""
    space = ("a", "b", "c")
    config, asked = TuneConfig(sampler=sampler), []

    def suggest(trial, names):
        return {name: trial.suggest_int(name, 0, 10**6) for name in names}

    search = SimpleNamespace(config=config, _who="", _candidate=lambda trial: suggest(trial, space))
    for names in (space, space[:held]):
        search.study = optuna.create_study(sampler=make_sampler(config, 0))
        asked.append(suggest(search.study.ask(), names))
    whole, half = asked
    assert half.items() <= whole.items()
    (frozen,) = search.study.get_trials()
    assert Search._resume(search, frozen) == whole
