"""Every value of every preset and of the whole vocabulary, replaced by one of another type: one line that names the key.

Hydra composes once per group of presets; what a wrong value comes to is asked of `validate`, which the command calls.
"""

import copy
import math
from importlib.resources import files
from pathlib import Path

import pytest
from command import here

from harness.config import ConfigError
from harness.planning.compose import Request, compose_values, load_yaml
from harness.planning.plan import make_plan
from harness.planning.resolve import validate
from harness.storage.store import Store

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


COMPOSITIONS = {
    "top": ((), lambda path: path[0] not in ("model", "dataset", "optimizer", "method")),
    **{f"model={name}": ((f"model={name}",), lambda path: path[0] == "model") for name in ("test_resnet", "lenet5")},
    **{f"dataset={name}": ((f"dataset={name}",), lambda path: path[0] == "dataset") for name in presets("dataset")},
    **{f"optimizer={name}": ((f"optimizer={name}",), lambda p: p[0] == "optimizer") for name in presets("optimizer")},
    **{f"method={name}": ((f"method={name}", "epochs=120"), lambda p: p[0] == "method") for name in presets("method")},
    **{f"engine={name}": ((f"engine={name}",), lambda path: path[0] == "engine") for name in presets("engine")},
}
"""what is composed, and which of its keys are replaced: every preset; of models, whose keys are the same in all, two"""


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_a_wrong_value_is_one_line_that_names_its_key(name):
    """Values that a key takes are no mistake; whatever is refused is refused in one line, and nothing else is raised."""
    overrides, chosen = COMPOSITIONS[name]
    composed = composition(*overrides)
    refused = 0
    for path in filter(chosen, leaves(composed.values)):
        for value in WRONG:
            composed_with = copy.copy(composed)
            object.__setattr__(composed_with, "values", replaced(composed.values, path, value))
            try:
                validate(composed_with, (), "a test")
            except ConfigError as error:
                refused += 1
                line = str(error)
                assert line.isprintable(), (path, value, line)
                assert path[0] in line or path[-1] in line, (path, value, line)
                if len(path) > 1:
                    assert set(path[1:]) & set(line.replace("[", ".").replace(" ", ".").split(".")), (path, value, line)
    assert refused > 0
