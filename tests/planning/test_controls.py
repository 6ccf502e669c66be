"""Controls that nobody chose: those that cost a replay are there, for the methods that name them, and are said."""

import pytest

from harness.planning.compose import Request
from harness.planning.resolve import resolve

SUITE = """\
# @package _global_
defaults:
  - override /method: [base, cmd_online, dmd]
bases:
  - {model: test_resnet, dataset: digits}
  - {model: test_vit, dataset: digits, optimizer: adam, method: {dmd: {warmup: 3}}, without: [persistence, cmd_online]}
epochs: 8
method:
  cmd_online: {warmup: 2, forgetting: 0.9, control: epoch_ema}
  dmd: {warmup: 4}
  epoch_ema: {forgetting: 0.8}
"""


def study(*overrides, folders=(), compares=True):
    return resolve(Request(overrides, folders), "a test", compares)


def methods(experiment, base=0):
    return {method.name: method.config.params for method in experiment.bases[base][1]}


def test_the_recalibrated_base_and_a_methods_control_are_there():
    found = study("method=[base,ema,cmd_posthoc]", "method.cmd_posthoc.modes=4")
    assert list(methods(found)) == ["base", "base_recalibrated", "ema", "cmd_posthoc", "cmd_mean_kernel"]
    assert "controls added: base_recalibrated, cmd_mean_kernel (of cmd_posthoc)" in found.notes
    # it is a control of this setting: the same modes
    assert methods(found)["cmd_mean_kernel"]["modes"] == 4


@pytest.mark.parametrize(
    "chosen", ["[base]", "[base_recalibrated]", "[base,base_recalibrated]", "all", "[base,base_recalibrated,ema]"]
)
def test_nothing_is_added_where_nothing_is_missing_or_the_base_is_alone(chosen):
    found = study(f"method={chosen}", "fast=true")
    assert not [note for note in found.notes if note.startswith("controls")]
    assert found.added == ()


def test_a_control_that_trains_is_named_and_not_added():
    found = study("method=[base,cmd_embedded]", "epochs=40")
    assert list(methods(found)) == ["base", "base_recalibrated", "cmd_embedded"]
    (note,) = [note for note in found.notes if note.startswith("controls not added")]
    assert note == "controls not added: frozen_random: it trains on its own, method=[...,frozen_random] adds it"


def test_a_control_of_primary_is_there_too():
    found = study("method=[base,swa]", "statistics.primary=[{swa: lawa}]")
    assert list(methods(found)) == ["base", "base_recalibrated", "swa", "lawa"]


def test_tune_compares_nothing():
    assert list(methods(study("method=[cmd_online]", "epochs=30", compares=False))) == ["cmd_online"]


def test_entries_of_bases_say_what_their_controls_are(tmp_path):
    """The suite's own value for a control stands; `without` leaves out, also where the command line chooses methods."""
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite/mine.yaml").write_text(SUITE)
    found = study("suite=mine", folders=(tmp_path,))
    first, second = methods(found, 0), methods(found, 1)
    assert list(first) == ["base", "base_recalibrated", "cmd_online", "dmd", "epoch_ema", "persistence"]
    assert first["epoch_ema"]["forgetting"] == 0.8
    assert first["persistence"]["warmup"] == 4
    assert list(second) == ["base", "base_recalibrated", "dmd"]
    chosen = study("suite=mine", "method=[base,dmd]", folders=(tmp_path,))
    assert list(methods(chosen, 1)) == ["base", "base_recalibrated", "dmd"]
