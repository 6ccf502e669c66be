"""What `list` says, against the classes and presets themselves."""

import importlib

import pytest
from command import OWN, here

from harness.config import ConfigError
from harness.method import Brancher, Exchange, Observer, Reconstruction
from harness.planning.compose import available, load_yaml
from harness.verbs.listing import listing

KINDS = {"observer": Observer, "reconstruction": Reconstruction, "branch": Brancher, "exchange": Exchange}


def rows(tmp_path, *words, folders=()):
    return {line.split()[0]: line for line in listing(words, folders, tmp_path)}


def test_every_method_has_its_kind_and_a_purpose(tmp_path):
    found = rows(tmp_path, "methods")
    assert found.keys() == available("method").keys()
    for name, path in available("method").items():
        module, _, cls = load_yaml(path)[name]["_target_"].rpartition(".")
        kind, purpose = found[name].split(maxsplit=2)[1:]
        assert issubclass(getattr(importlib.import_module(module), cls), KINDS[kind]), name
        assert len(purpose) > 10


@pytest.mark.parametrize(("words", "name"), [("models", "resnet18"), ("dataset", "digits"), ("suite", "smoke")])
def test_plural_and_singular(tmp_path, words, name):
    assert rows(tmp_path, words)[name].split(maxsplit=1)[1]


def test_presets_of_ones_own(tmp_path):
    """A method without a comment in its file is described by its class."""
    (tmp_path / "method").mkdir()
    (tmp_path / "method/halfway.yaml").write_text("halfway:\n  _target_: halfway.Halfway\n")
    (tmp_path / "halfway.py").write_text(
        'from harness import method\n\nclass Halfway(method.Observer):\n    """Half of it."""\n'
    )
    found = rows(tmp_path, "method", folders=(tmp_path, OWN))
    assert found["halfway"].split(maxsplit=2)[1:] == ["observer", "Half of it."]
    assert found["late"].split()[1] == "branch"


def test_views_say_how_far_they_are_and_what_they_compare(smoke):
    (line,) = listing(["views"], (), smoke.results)
    assert line.startswith("smoke  20")
    assert line.endswith("18/18 done  test_resnet on digits: 9 methods, 2 seeds")


def test_what_cannot_be_listed_is_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"^list takes methods, models, .*, got 'metods'; nearest: methods$"):
        list(listing(["metods"], (), tmp_path))


def test_without_a_word_everything_is_listed(tmp_path):
    printed = here("list", results=tmp_path / "results").stdout
    for word in (
        "methods:",
        "cmd_online",
        "suites:",
        "quick",
        "recalibrated",
        f"no views in {tmp_path / 'results'} yet",
    ):
        assert word in printed
