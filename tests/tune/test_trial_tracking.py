"""Trials as runs: what is given of a study, and that the same study gives the same again."""

import re
from dataclasses import replace

import pytest
from optuna.trial import TrialState
from studies import by_seed, finished, made, result

from harness.config import EngineConfig, Settings, TrackerConfig
from harness.tune.tracking import trial_runs

BEST = {"modes": 4, "warmup": 2}


def runs(search, numbers=None):
    return {info.config["trial"]: (info, rows, end) for info, rows, end in trial_runs(search, SETTINGS, "me", numbers)}


SETTINGS = Settings("a-suite", "results", TrackerConfig("wandb"), EngineConfig("local"), "all", "none", (), "a-view")


@pytest.fixture
def search(tmp_path):
    """A trial of every kind, and one under way."""
    trials = [
        finished(BEST, by_seed([81.0, 82.0, 83.0], [0.5, 0.6, 0.7])),
        finished(BEST, by_seed([60.0]), state=TrialState.PRUNED),
        finished(BEST, by_seed([60.0]) | {1: result(None, None, "diverged")}, state=TrialState.PRUNED, diverged="inf"),
        finished(BEST, {}, state=TrialState.PRUNED, refused="no"),
        finished(BEST, by_seed([60.0]), state=TrialState.FAIL, error="no"),
        finished(BEST, {}, state=TrialState.FAIL, surplus=True),
        finished(BEST, {}, state=TrialState.RUNNING),
    ]
    return made(tmp_path, trials, default=by_seed([80.0, 81.0, 82.0]))


def test_what_was_tried_is_given(search):
    found = runs(search)
    assert {number: end.summary["trial_state"] for number, (_, _, end) in found.items()} == {
        -1: "complete", 0: "complete", 1: "pruned", 2: "diverged", 4: "failed",
    }  # fmt: skip
    assert {number: end.status for number, (_, _, end) in found.items()} == {
        -1: "done", 0: "done", 1: "done", 2: "done", 4: "failed",
    }  # fmt: skip
    assert len({info.run_id for info, *_ in found.values()}) == 5
    assert {info.group for info, *_ in found.values()} == {"tune-a-suite/cmd_online/net-data-sgd"}


def test_a_row_has_the_values_of_seeds_and_their_means(search):
    info, (row,), end = runs(search)[0]
    assert row == {
        "epoch": 6, "val_accuracy": 82.0, "val_loss": pytest.approx(0.6),
        "val_accuracy_s0": 81.0, "val_accuracy_s1": 82.0, "val_accuracy_s2": 83.0,
        "val_loss_s0": 0.5, "val_loss_s1": 0.6, "val_loss_s2": 0.7,
    }  # fmt: skip
    assert end.summary["val_accuracy"] == 82.0
    assert info.config["searched"] == BEST
    assert info.config["parameters"]["samples"] == 500
    assert info.name == "net-data-sgd-cmd_online-trial-0"
    assert [len(rows) for _, rows, _ in runs(search).values()] == [1, 1, 1, 1, 1]


def test_ids_begin_readably_but_for_those_of_an_earlier_versions_study(search):
    earlier = {number: info.run_id for number, (info, *_) in runs(search).items()}
    assert all(run_id.endswith("-me") for run_id in earlier.values())
    search.study.set_user_attr("readable_run_ids", True)
    now = {number: info.run_id for number, (info, *_) in runs(search).items()}
    assert re.fullmatch(r"net-data-cmd_online-default-[0-9a-f]{8}", now[-1])
    assert re.fullmatch(r"net-data-cmd_online-trial-2-[0-9a-f]{8}", now[2])


def test_given_anew_a_run_is_the_same(search):
    """Also by a command that asks for more trials; a study that was made anew has runs of its own."""
    first = runs(search)
    search.config = replace(search.config, trials=99)
    again = runs(search)
    assert [w[0].run_id for w in again.values()] == [w[0].run_id for w in first.values()]
    assert [w[2].digest for w in again.values()] == [w[2].digest for w in first.values()]
    search.study.set_user_attr("made_at", "later")
    assert not {w[0].run_id for w in runs(search).values()} & {w[0].run_id for w in first.values()}


def test_only_those_of_a_batch(search):
    assert runs(search, {-1, 1, 3, 6}).keys() == {-1, 1}


def test_of_a_shared_study_everyone_gives_their_own(search):
    search.exclusive = False
    assert runs(search) == {}
    search.study.set_user_attr("default_owner", search.owner)
    search.study.add_trial(finished(BEST, by_seed([1.0]), owner=search.owner))
    search.study.add_trial(finished(BEST, by_seed([1.0]), owner="elsewhere:/results"))
    assert runs(search).keys() == {-1, 7}
