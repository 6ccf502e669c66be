"""Every preset of conf/method, held to the contract; a new method is covered by adding its two files."""

import inspect
from importlib.resources import files

import pytest

import harness.method
from harness.config import ConfigError
from harness.conformance import ExchangeConformance, MethodConformance
from harness.conformance.clauses import Clause
from harness.conformance.tiny import CLIENTS, find_class, find_subject
from harness.method import Exchange
from harness.planning.compose import available, load_yaml

CLASSES = {preset: load_yaml(path)[preset]["_target_"] for preset, path in sorted(available("method").items())}

EVERY_TIME = ("fed_cmd", "scaffold")
"""the exchanges that are not left to the nightly tier: one of masks, and one of clients that keep something"""
EXCHANGES = [preset for preset in CLASSES if issubclass(find_class(preset), Exchange)]

for number, preset in enumerate(CLASSES):
    kind = ExchangeConformance if preset in EXCHANGES else MethodConformance
    suite = type(f"Test_{preset}", (kind,), {"preset": preset})
    again = CLASSES[preset] in list(CLASSES.values())[:number]  # with other parameters: nightly
    again = again or (preset in EXCHANGES and preset not in EVERY_TIME)
    globals()[f"Test_{preset}"] = pytest.mark.long(suite) if again else suite


@pytest.mark.parametrize(
    ("preset", "kind"), [("swa", "observer"), ("cmd_posthoc", "reconstruction"), ("p_sgd", "brancher")]
)
def test_a_suite_has_no_checks_of_other_kinds(preset, kind):
    suite = type("Suite", (MethodConformance,), {"preset": preset})
    kinds = ("observer", "reconstruction", "brancher")
    assert [name for name in kinds if getattr(suite, f"test_{name}_seeds_nothing") is not None] == [kind]
    assert suite.test_job_is_charged is MethodConformance.test_job_is_charged


def test_a_suite_of_a_preset_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="no preset named 'swaa'; nearest: swa"):
        type("Suite", (MethodConformance,), {"preset": "swaa"})


def test_presets_are_the_files_and_of_all_three_kinds():
    names = {path.name.removesuffix(".yaml") for path in (files("conf") / "method").iterdir()}
    assert set(CLASSES) == names
    settings = {name: CLIENTS if name in EXCHANGES else () for name in CLASSES}
    assert {find_subject(name, (), settings[name]).cell.kind for name in CLASSES} == {
        "observer",
        "reconstruction",
        "brancher",
    }


def test_every_preset_names_its_control_or_that_it_has_none():
    for name, path in available("method").items():
        values = load_yaml(path)[name]
        assert "control" in values, name
        assert values["control"] in {*CLASSES, None} - {name}


@pytest.mark.parametrize("clause", Clause)
def test_clauses_are_quoted_from_the_contract(clause):
    assert clause in " ".join(inspect.getsource(harness.method).split())
