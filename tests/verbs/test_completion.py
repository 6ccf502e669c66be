"""What Tab offers."""

from types import SimpleNamespace

import pytest
from command import OWN

from harness.verbs.completion import complete


def offered(prefix, verb="run", folders=(), overrides=()):
    parsed = SimpleNamespace(verb=verb, config_dir=list(folders), overrides=list(overrides))
    return [one for one in complete(prefix, parsed_args=parsed) if one.startswith(prefix)]


@pytest.mark.parametrize(
    ("prefix", "some"),
    [
        ("", ["suite=", "seeds=", "evaluate.", "results_dir=", "method.", "fast="]),
        ("suite=sm", ["suite=smoke"]),
        ("method=[base,cmd_on", ["method=[base,cmd_online"]),
        ("model=", ["model=all", "model=lenet5"]),
        ("method.cmd_onl", ["method.cmd_online.modes=", "method.cmd_online.search."]),
        ("method.cmd_online.", ["method.cmd_online.warmup=", "method.cmd_online.forgetting="]),
        ("dataset.image_folder.", ["dataset.image_folder.root=", "dataset.image_folder.classes="]),
        ("optimizer.sgd_momentum.schedule.", ["optimizer.sgd_momentum.schedule.name="]),
        ("evaluate.", ["evaluate.every=", "evaluate.test="]),
        ("engine.", ["engine.workers=", "engine.partition="]),
        ("device=", ["device=auto", "device=cpu", "device=cuda"]),
        ("tracker.artifacts=", ["tracker.artifacts=none", "tracker.artifacts=all"]),
        ("method.clock.basis=", ["method.clock.basis=sqrt"]),
        ("compile=", ["compile=true", "compile=false"]),
    ],
)
def test_keys_and_values(prefix, some):
    assert set(some) <= set(offered(prefix))


def test_a_key_is_offered_once_and_none_that_cannot_be_given():
    found = offered("")
    assert len(found) == len(set(found))
    assert not any(one.startswith(("defaults", "suite.")) for one in found)
    assert offered("nothing.") == []


def test_other_verbs_and_presets_of_ones_own(smoke):
    assert "tables.columns=" in offered("", "report")
    assert offered("suite=", "report", overrides=[f"results_dir={smoke.results}"]) == ["suite=smoke"]
    assert offered("mod", "list") == ["models"]
    assert "method=raises" in offered("method=rai", folders=[OWN])
