"""Names of views: from the command line alone, the same for the same settings, short, and fit for a folder."""

import re

import pytest

from harness.config import ConfigError
from harness.planning.compose import Request, compose_values
from harness.planning.names import LONGEST, view_name


def name_of(*overrides):
    return compose_values(Request(overrides)).view


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["suite=smoke"], "smoke"),
        (["suite=smoke", "fast=true"], "smoke-fast"),
        # what is chosen of a suite, and what changes no number, belongs to its view
        (["suite=smoke", "seeds=[5]", "method=[base,swa]", "redo=failed", "tracker=none", "engine.workers=1"], "smoke"),
        (["suite=smoke", "epochs=6"], "smoke"),  # which the suite has anyway
        (["suite=smoke", "epochs=8", "method.cmd_online.modes=2"], "smoke-epochs8-cmd_online.modes2"),
        (["suite=smoke", "compile=true", "batches_per_epoch=null"], "smoke-no-batches_per_epoch-compile"),
        (["suite=smoke", "name=pets", "epochs=8"], "pets"),
        (["suite=smoke", "name=pets", "fast=true"], "pets-fast"),
        (["suite=smoke", "name=pets-fast", "fast=true"], "pets-fast"),
        ([], "test_resnet-digits"),
        (["model=[test_resnet,test_vit]", "optimizer=adam", "method=base"], "test_resnet-test_vit-digits"),
        (["model=[test_resnet,test_vit,lenet5]", "optimizer.sgd_momentum.lr=0.1"], "3-models-digits-lr0.1"),
        (["dataset=image_folder", "dataset.image_folder.root=~/my pets/"], "test_resnet-my-pets"),
    ],
)
def test_a_view_is_named_after_its_suite_or_what_was_run_and_what_differs(overrides, name):
    assert name_of(*overrides) == name


def test_a_long_name_is_cut_and_still_tells_settings_apart():
    settings = {f"method.cmd_online.parameter_{index}": index for index in range(20)}
    chosen = {"model": ["a" * 50], "dataset": ["b" * 50], "optimizer": ["sgd"], "method": ["cmd_online"]}
    one = view_name(None, None, chosen, settings)
    other = view_name(None, None, chosen, {**settings, "method.cmd_online.parameter_19": 0})
    assert one != other
    assert one == view_name(None, None, chosen, dict(reversed(settings.items())))
    assert all(len(name) <= LONGEST and re.fullmatch(r"[\w.-]+", name) for name in (one, other))


@pytest.mark.parametrize("given", ["a/b", ".hidden", "ü", "a" * 101, "''"])
def test_a_name_that_is_no_folder_is_refused(given):
    with pytest.raises(ConfigError, match="name must be text of at most 100 letters, digits"):
        name_of(f"name={given}")
