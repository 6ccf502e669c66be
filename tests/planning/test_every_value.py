"""Every value of every preset and of the whole vocabulary, replaced by one of another type: a line that names the key.

Hydra composes once per group of presets; what a wrong value comes to is asked of `validate`, which the command calls.
"""

import copy
import math
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from command import here

from harness.config import ConfigError
from harness.planning.compose import Request, available, compose_values, load_yaml
from harness.planning.resolve import validate

CONF = Path(str(files("conf")))
SMALL = ("dataset=digits", "model=test_resnet", "method=base", "tracker=csv")
WRONG = [
    "no such value",
    "",
    "\u2603 \0",
    3,
    -3,
    2.5,
    True,
    10**30,
    -(10**30),
    math.nan,
    math.inf,
    None,
    [],
    [[0, 1]],
    [None],
    {},
    {"a": {"b": [1]}},
]
"""texts, numbers, lists and mappings: most keys take only one of these kinds, and each is wrong for some"""


def presets(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def leaves(values, path=()):
    """The keys of a composition that hold no mapping, and those of mappings themselves."""
    for key, value in values.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))


def replaced(values, path, value):
    """A composition with another value at one key."""
    changed = copy.deepcopy(values)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def composition(*overrides):
    return compose_values(Request((*SMALL, *overrides)))


CLASSES = {name: load_yaml(path)[name]["_target_"] for name, path in sorted(available("method").items())}
METHODS = {target: name for name, target in reversed(CLASSES.items())} | {CLASSES["cmd_dmd"]: "cmd_dmd"}
"""a preset of every class: others of it have the same keys"""
OF_ALL_METHODS = ("batchnorm", "control", "lengths", "search")
"""keys of every preset of a method, with the same meaning"""


def of_method(name):
    """Whether keys of a method's preset are replaced: what presets have in common in one of them, which has it all."""
    return lambda path: path[0] == "method" and (name == "cmd_dmd" or path[2:3] not in [(k,) for k in OF_ALL_METHODS])


COMPOSITIONS = {
    "top": ((), lambda path: path[0] not in ("model", "dataset", "optimizer", "federation", "method")),
    **{f"model={name}": ((f"model={name}",), lambda path: path[0] == "model") for name in ("test_resnet", "lenet5")},
    **{f"dataset={name}": ((f"dataset={name}",), lambda path: path[0] == "dataset") for name in presets("dataset")},
    **{f"optimizer={name}": ((f"optimizer={name}",), lambda p: p[0] == "optimizer") for name in presets("optimizer")},
    "federation": (("federation=dirichlet_10",), lambda path: path[0] == "federation"),
    **{f"method={name}": ((f"method={name}", "epochs=120"), of_method(name)) for name in METHODS.values()},
    **{f"engine={name}": ((f"engine={name}",), lambda path: path[0] == "engine") for name in presets("engine")},
}
"""what is composed, and which of its keys are replaced: every preset; of models, whose keys are the same in all, two;
of methods one of every class"""

ANYTHING = ("kwargs", "width", "choices")
"""keys that take any value YAML has, or any list: a timm model's own options and the choices of a search"""
GLOBAL = "# @package _global_\n"
SUITES = {
    "3": "own0.yaml",
    "- 1": "own1.yaml must hold a mapping",
    "a: [": "own2.yaml",
    f"{GLOBAL}epochs: 1\nepochs: 2\n": "duplicate key epochs",
    f"{GLOBAL}defaults: 3\n": "defaults must be a list",
    f"{GLOBAL}defaults: [3]\n": "defaults",
    f"{GLOBAL}defaults: [own6]\n": "own6 must not build on itself",
    f"{GLOBAL}model: 3\n": "model must be a mapping",
    f"{GLOBAL}1: 2\n": "no key named '1'",
    f"{GLOBAL}epochs: 2020-01-01\n": "epochs must be a whole number",
    f"{GLOBAL}tracker: {{tags: [!!binary aGk=]}}\n": "tracker.tags[0] must be text",
    f'{GLOBAL}results_dir: "a\\0b"\n': "results_dir must be text of printable characters",
    f"{GLOBAL}epochs: ${{x\n": "epochs",
    f"{GLOBAL}bases: {{model: test_resnet}}\n": "bases must be a list",
    f"{GLOBAL}bases:\n  - {{model: test_resnet, fast: {{epochs: x}}}}\n": "bases[0].fast.epochs must be a whole number",
    f"{GLOBAL}engine: {{name: 5}}\n": "engine.name must be one of local, slurm, ray, flower, got 5",
    f"{GLOBAL}method:\n  base: {{nope: 3}}\n": "method.base has no key 'nope'",
}
"""texts of files, and what the line must say"""


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_a_wrong_value_is_one_line_that_names_its_key(name):
    """Values that a key takes are no mistake; any other is refused in one line, and nothing else is raised."""
    overrides, chosen = COMPOSITIONS[name]
    composed = composition(*overrides)
    for path in filter(chosen, leaves(composed.values)):
        accepted = []
        for value in WRONG:
            try:
                validate(replace(composed, values=replaced(composed.values, path, value)), (), "a test")
            except ConfigError as error:
                said = error.faults
                assert all(line.isprintable() for line in said), said
                assert set(path) & set(re.findall(r"\w+", " ".join(said))), (path, said)
            else:
                accepted.append(value)
        taken = [value for value in accepted if type(value) in (list, float)]
        assert all(value == [] or value == 2.5 for value in taken) or path[-1] in ANYTHING, (path, taken)


@pytest.mark.parametrize("number", [2**63, -(10**400)], ids=["2^63", "-10^400"])
@pytest.mark.parametrize("name", ["top", "method=dmd_jumps", "optimizer=adam"])
def test_whole_numbers_of_more_than_64_bits_are_taken_nowhere(name, number):
    """Tables and files hold 64 bits: what has more would end in them after training, also where a list holds it."""
    overrides, chosen = COMPOSITIONS[name]
    composed = composition(*overrides)
    for path in filter(chosen, leaves(composed.values)):
        for value in (number, [number], {"a": number}):
            with pytest.raises(ConfigError) as refusal:
                validate(replace(composed, values=replaced(composed.values, path, value)), (), "a test")
            assert set(path) & set(re.findall(r"\w+", str(refusal.value)))


def test_a_number_where_text_is_meant_is_that_text():
    """What YAML reads as a whole number may be the name of a folder or a project; of an argument all is the text."""
    experiment = validate(composition("results_dir=2024", "tune.name=7", "tracker.tags=[3]"), (), "a test")
    settings = experiment.settings
    assert (Path(settings.results_dir).name, experiment.tune.name, settings.tracker.tags) == ("2024", "7", ["3"])
    experiment = validate(composition("results_dir=1.5", "tune.name=true"), (), "a test")
    assert (Path(experiment.settings.results_dir).name, experiment.tune.name) == ("1.5", "true")
    with pytest.raises(ConfigError, match=r"^tracker\.tags.* must be text"):
        validate(composition("tracker.tags=[[3]]"), (), "a test")
    for path in (("results_dir",), ("tracker", "project")):
        with pytest.raises(ConfigError, match=f"^{'.'.join(path)} must be text"):
            validate(replace(composition(), values=replaced(composition().values, path, 1.5)), (), "a test")


def test_suites_of_ones_own_that_are_mistaken(tmp_path):
    """Whatever a file holds, its one line names a key or the file."""
    (tmp_path / "suite").mkdir()
    for index, (text, words) in enumerate(SUITES.items()):
        (tmp_path / f"suite/own{index}.yaml").write_text(text)
        with pytest.raises(ConfigError) as refusal:
            validate(compose_values(Request((*SMALL, f"suite=own{index}"), (tmp_path,))), (tmp_path,), "a test")
        assert words in str(refusal.value), str(refusal.value)
        assert len(str(refusal.value).splitlines()) == 1


def test_a_suite_builds_on_another(tmp_path):
    (tmp_path / "suite").mkdir()
    text = "# @package _global_\ndefaults: [smoke, override /method: [base, swa], _self_]\nepochs: 4\n"
    (tmp_path / "suite/shorter.yaml").write_text(text)
    smoke, shorter = (
        validate(compose_values(Request((f"suite={name}",), (tmp_path,))), (tmp_path,), "a test")
        for name in ("smoke", "shorter")
    )
    assert [method.name for method in shorter.bases[0][1]] == ["base", "base_recalibrated", "swa"]
    assert [replace(base, epochs=4) for base, _ in smoke.bases] == [base for base, _ in shorter.bases]


def test_bad_arguments_of_a_plan_and_its_command_are_the_same_line(tmp_path):
    """What `validate` refuses ends the command with exit code 2 and one line."""
    for given in ("dataset.digits.mean=0.5", "seeds=[[0,1]]", "optimizer.sgd_momentum._target_=5", "tune.name=[1]"):
        done = here("plan", *SMALL, given, results=tmp_path / "results", code=2)
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {given.partition('=')[0]}")
