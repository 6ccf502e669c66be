"""What `show` prints is a suite: given back, it is the same bases and cells."""

import pytest
import yaml

from harness.planning.compose import Request
from harness.planning.plan import make_plan
from harness.planning.resolve import resolve
from harness.storage.store import Store
from harness.verbs.show import suite_text


def keys(results, *overrides, folders=()):
    experiment = resolve(Request((*overrides, f"results_dir={results}", "device=cpu"), folders), "a test")
    plan = make_plan(experiment, Store(results))
    return [(base.key, [cell.key for cell in base.cells]) for base in plan.bases]


@pytest.mark.parametrize(
    "asked",
    [
        ["suite=smoke", "seeds=[3]", "epochs=4", "method.cmd_online.modes=4"],
        ["suite=quick", "method=[base,cmd_online,cooldown]"],
        ["suite=quick", "fast=true"],
        ["suite=paper", "model=[resnet18,lenet5]", "fast=true", "seeds=[0,1]", "optimizer.adam.lr=0.01"],
        ["suite=rates", "evaluate.test=every"],
        ["model=[test_vit,test_resnet]", "dataset=digits", "dataset.digits.resize=28", "optimizer=[sgd,adam_wsd]"],
        ["model=resnet10t", "dataset=digits", "method=[base,p_sgd]", "method.p_sgd.warmup=4"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_is_shown_gives_the_same_plan_when_it_is_given_back(tmp_path, asked):
    path = tmp_path / "mine/suite/mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(suite_text(Request((*asked, "device=cpu")), "a test"))
    then = keys(tmp_path / "results", *asked)
    again = keys(tmp_path / "results", "suite=mine", folders=(tmp_path / "mine",))
    assert again == then
    # and again: what it shows of itself says the same
    shown = suite_text(Request(("suite=mine",), (tmp_path / "mine",)), "a test")
    assert yaml.safe_load(shown) == yaml.safe_load(path.read_text())


def test_every_value_is_there_whatever_the_suite_says_of_it(tmp_path):
    shown = yaml.safe_load(suite_text(Request(("suite=smoke", r"tracker.notes='\${x}'", "tracker=csv")), "a test"))
    assert shown["optimizer"]["sgd_momentum"]["momentum"] == 0.9
    assert shown["method"]["cmd_online"]["warmup"] == 3
    assert shown["trials"] == 50
    assert {"override /tracker": "csv"} in shown["defaults"]
    assert "results_dir" not in shown


def test_no_secret_is_shown(monkeypatch):
    text = suite_text(Request(("suite=smoke", "tune.storage=postgresql://me:hunter2@host/db")), "a test")
    assert "hunter2" not in text
    assert "# tune.storage is left out: it holds a secret" in text
