"""Commands one after another on one results folder: views keep what they hold, and what would go is said first."""

import json
import shutil

import pandas as pd
import pytest
from command import here, state

from harness import load_frame, load_history

SMALL = ("dataset=digits", "batches_per_epoch=2", "tracker=none")
NAMED = ("run", *SMALL, "name=pets", "epochs=3")
CMD = ("method=[base,cmd_online]", *(f"method.cmd_online.{value}" for value in ("samples=50", "warmup=2", "modes=2")))


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A run with a report, then a part of it and another seed under the same name."""
    results = tmp_path_factory.mktemp("views") / "results"
    first = here(*NAMED, *CMD, results=results)
    here("report", results=results)
    kept = state(results / "suites/pets", "figures/*", "report/*")
    second = here(*NAMED, "method=[base,swa]", "seeds=[1]", results=results)
    return results, first.stdout, kept, second.stdout


def test_the_control_is_there_by_itself(story):
    results, first, *_ = story
    assert "controls added: base_recalibrated, time_mean (of cmd_online)" in first
    frame = load_frame(results, "pets")
    assert [*frame.loc[frame["seed"] == 0, "method"]] == ["base", "base_recalibrated", "cmd_online", "time_mean"]
    plan = json.loads((results / "suites/pets/plan.json").read_text())
    # what was added is compared, and is no hypothesis of its own
    assert plan["primary"] == [{"method": name, "control": "base_recalibrated"} for name in ("swa", "cmd_online")]


def test_a_second_run_adds_and_takes_nothing_away(story):
    results, _, kept, second = story
    assert "view pets: 4 cells of earlier commands stay beside these" in second.splitlines()[0]
    frame = load_frame(results)
    assert len(frame) == 7
    assert set(frame["status"]) == {"done"}
    assert state(results / "suites/pets", "figures/*", "report/*") == kept
    assert len(json.loads((results / "suites/pets/plan.json").read_text())["commands"]) == 2


def test_other_settings_are_said_before_anything_is_lost(story, tmp_path):
    results = shutil.copytree(story[0], tmp_path / "results")
    before = state(results)
    given = (*SMALL, "epochs=2", "method=[base,swa]")
    planned = here("plan", "name=pets", *given, results=results).stdout
    assert planned.splitlines()[0] == (
        "view pets: 7 of its 7 cells will be taken out, made with other settings (epochs=2, was 3): "
        "base, base_recalibrated, cmd_online and 2 more; another name=... makes a view "
        "beside this one, and their records stay in any case"
    )
    assert state(results) == before
    # without a name the settings are in it, so that neither takes the place of the other
    assert "view test_resnet-digits-batches_per_epoch2-epochs2 in " in here("plan", *given, results=results).stdout


def test_report_takes_a_name_the_latest_or_says_what_there_is(story):
    results = story[0]
    said = here("report", "figures=none", results=results).stdout
    assert said.splitlines()[0] == f"view pets, the latest in {results}"
    wrong = here("report", "name=pet", results=results, code=2)
    assert wrong.stderr == f"error: name must be a view in {results}, got 'pet'; nearest: pets\n"
    assert here("report", "suite=pets", "tables.metric=no", results=results, code=2).stderr.startswith("error: tables")


def test_frame_and_history_have_names_and_parameters(story):
    results = story[0]
    history = load_history(results, "pets")
    assert [*history.columns[:7]] == ["cell_key", "model", "dataset", "optimizer", "method", "seed", "epoch"]
    assert set(history.loc[history["method"] == "swa", "seed"]) == {1}
    frame = load_frame(results, "pets").set_index(["method", "seed"])
    assert not [name for name in frame if name == "param.modes"]  # the same in all cells that have it
    stored = pd.read_parquet(results / "suites/pets/history.parquet")
    pd.testing.assert_frame_equal(stored, history)


def test_the_index_names_the_folders(story):
    index = pd.read_csv(story[0] / "index.csv")
    assert set(index["views"]) == {"pets"}
    assert all((story[0] / folder).is_dir() for name in ("base_folder", "cell_folder") for folder in index[name])


def test_fast_is_kept_apart_and_marked(story, tmp_path):
    results = shutil.copytree(story[0], tmp_path / "results")
    said = here(
        "run", "dataset=digits", "tracker=none", "name=pets", "fast=true", "method=base", results=results
    ).stdout
    assert {path.name for path in (results / "suites").iterdir()} == {"pets", "pets-fast"}
    assert "test_resnet · digits · sgd_momentum (fast)" in said
    assert "fast: the smallest version of everything" in said
    assert "- fast: the smallest" in (results / "suites/pets-fast/tables/main.md").read_text()
    assert len(load_frame(results, "pets")) == 7
