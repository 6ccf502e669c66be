"""What the text of a `key=value` argument stands for: text as it is where text is meant, and no riddles elsewhere."""

import shlex

import pytest
from command import here
from hydra.core.override_parser.overrides_parser import OverridesParser

from harness.arguments import MergeArguments, ReportArguments, read_arguments
from harness.config import ConfigError
from harness.planning.compose import Request, compose_values, quoted
from harness.planning.resolve import validate

SMALL = ("dataset=digits", "model=test_resnet", "method=base", "tracker=csv")
ODD = [
    "Straße",
    "run (copy)",
    "a,b",
    "a=b",
    "it's",
    'say "so"',
    'both\'s "x"',
    "[draft] x",
    "[a,b]",
    "{a: b}",
    "#1; 100%?",
    "a\\b",
    "end\\",
    "int(3)",
    "choice(1,2)",
    "1.50",
    "007",
    "1e3",
    "日本 & <x>",
    "first try, lr 0.1: ok?",
    "$HOME",
    "~no such person",
]
"""texts that mean something else, or nothing, in Hydra's grammar or in YAML"""


def settings(*overrides):
    return validate(compose_values(Request((*SMALL, *overrides))), (), "a test").settings


@pytest.mark.parametrize("text", ODD)
def test_a_key_for_text_takes_the_rest_as_it_is(text):
    """Whatever the verb; quotes around all of it are those that Hydra's grammar asks for elsewhere."""
    for given in (text, quoted(text)):
        found = settings(f"results_dir=/runs/{text}", f"tracker.notes={given}")
        assert found.results_dir == f"/runs/{text}"
        assert found.tracker.notes == text
        report = read_arguments(ReportArguments, "report", [f"suite={given}", f"results_dir={given}"])
        assert (report.suite, report.results_dir) == (text, text)
    (parsed,) = OverridesParser.create().parse_overrides([f"x={quoted(text)}"])
    assert parsed.value() == text


def test_null_true_and_false_stand_for_themselves_where_a_key_has_them():
    tracker = settings("tracker.notes=null", "tracker.project=true").tracker
    assert (tracker.notes, tracker.project) == (None, "true")
    assert settings("tracker.notes='null'").tracker.notes == "null"
    with pytest.raises(ConfigError, match=r"^results_dir must be text, got None$"):
        settings("results_dir=null")
    composed = compose_values(Request((*SMALL, "model.test_resnet.pretrained=true")))
    assert composed.values["model"]["test_resnet"]["pretrained"] is True


def test_lists_of_texts():
    """As they are too, unless quotes or brackets stand within."""
    assert settings("tracker.tags=[first try?, lr=0.1, Straße, 1, true]").tracker.tags == [
        "first try?", "lr=0.1", "Straße", "1", "true",
    ]  # fmt: skip
    assert settings('tracker.tags=["a, b", c]').tracker.tags == ["a, b", "c"]
    assert settings("tracker.tags=[]").tracker.tags == []


def test_the_home_folder(monkeypatch, tmp_path):
    """A shell leaves ~ within an argument to the command."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings("results_dir=~/x").results_dir == str(tmp_path / "x")
    assert read_arguments(MergeArguments, "merge", ["from=~/other"]).other == str(tmp_path / "other")
    assert read_arguments(ReportArguments, "report", ["compare=~/other"]).compare == str(tmp_path / "other")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(ConfigError, match=r"^results_dir must be a path without ~ where no home folder is known, got"):
        settings("results_dir=~/x")


def test_an_interpolation_is_one_in_texts_too(monkeypatch):
    monkeypatch.setenv("PLACE", "/somewhere")
    assert settings("results_dir=${oc.env:PLACE}/x", r"tracker.notes=\${x}").results_dir == "/somewhere/x"
    with pytest.raises(ConfigError, match=r"^tracker\.notes: .*'nope' not found; \\\$\{ stands for \$\{ itself$"):
        settings("tracker.notes=${nope}")


def test_what_hydra_does_not_read_is_read_where_it_is_unambiguous():
    values = compose_values(
        Request((*SMALL, "model.test_resnet.kwargs.a=Straße #1", 'model.test_resnet.kwargs.b={"x y": [ß, 2]}'))
    ).values
    assert values["model"]["test_resnet"]["kwargs"] == {"a": "Straße #1", "b": {"x y": ["ß", 2]}}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("model.test_resnet.kwargs.a=f(x)", "model.test_resnet.kwargs.a takes ( within quotes only: 'model.test_re"),
        ("model.test_resnet.kwargs.a=it's", "model.test_resnet.kwargs.a takes ' within quotes only: "),
        ("model.test_resnet.kwargs.a=b, c", "model.test_resnet.kwargs.a=b, c is a sweep: give a list instead: "),
        ("model=test_resnet,lenet5", "model=test_resnet,lenet5 is a sweep: give a list instead: model=[test_resnet,l"),
        ("suite=a,b", "suite must be one name, got a,b"),
        ("suite=Straße", "suite: no preset named 'Straße'"),
        ("model=Straße", "model: no preset and no timm model named 'Straße'"),
        ("epochs=3,4", "epochs must be a whole number, got '3,4'"),
        ("epochs=3ß", "epochs must be a whole number, got '3ß'"),
        ("device=cuda:ß", "device must be one of auto, cpu, cuda, got 'cuda:ß'"),
        ("method.base.batchnorm=ß", "method.base.batchnorm must be one of recalibrate, as_is, averaged, got 'ß'"),
        ("seeds=[0,1", "seeds must be a list or a mapping, got '[0,1': no viable alternative"),
        ("tune.name=a,b", "tune.name must be text of at most 100 letters, digits, _ and -, got 'a,b'"),
        ("größe=3", "no key named 'größe'"),
        ("=3", "not of the form key=value: '=3'"),
        ("two words=3", "not of the form key=value: 'two words=3'"),
        ("model@x=test_resnet", "not of the form key=value: 'model@x=test_resnet'; a key has no @"),
        # keys of mappings
        ("method.base.search={k: {1: 2}}", "method.base.search.k must have texts as keys, got 1"),
        ("method.base.search={k: {null: 2}}", "method.base.search.k must have texts as keys, got None"),
        ("model.test_resnet.kwargs={a: [{true: 1}]}", "model.test_resnet.kwargs.a[0] must have texts as keys, got T"),
        ("bases=[{1: 2}]", "bases[0] must have texts as keys, got 1"),
        ("model.test_resnet.kwargs={a: choice(1,2)}", "model.test_resnet.kwargs.a must hold no sweep, got "),
        ("method.base.search={k: {type: int", "method.base.search must be a list or a mapping, got '{k: {type: int"),
    ],
)  # fmt: skip
def test_what_is_ambiguous_is_one_line(given, line):
    with pytest.raises(ConfigError) as refusal:
        validate(compose_values(Request((*SMALL, given))), (), "a test")
    assert str(refusal.value).startswith(line)
    assert str(refusal.value).isprintable()


def test_the_quoting_that_is_shown_is_what_was_meant():
    """As a shell hands it over."""
    with pytest.raises(ConfigError) as refusal:
        settings("model.test_resnet.kwargs.a=it's (b)")
    _, _, shown = str(refusal.value).partition("only: ")
    (argument,) = shlex.split(shown.rpartition(", got ")[0])
    values = compose_values(Request((*SMALL, argument))).values
    assert values["model"]["test_resnet"]["kwargs"]["a"] == "it's (b)"


def test_a_suite_of_a_mapping_with_numbers_as_keys(tmp_path):
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite/own.yaml").write_text("# @package _global_\nmethod: {base: {search: {k: {1: 2}}}}\n")
    with pytest.raises(ConfigError, match=r"^method\.base\.search\.k must have texts as keys, got 1$"):
        compose_values(Request((*SMALL, "suite=own"), (tmp_path,)))


@pytest.mark.parametrize("name", ["Straße, (2)", "it's a=b", 'say "so" ${x}', "end\\", "#[x]{y}%~"])
def test_folders_of_presets_and_presets_with_any_name(name, tmp_path):
    folder = tmp_path / name
    for group in ("suite", "optimizer"):
        (folder / group).mkdir(parents=True)
    (folder / "suite/so (2) ß.yaml").write_text("# @package _global_\nepochs: 7\n")
    (folder / "optimizer/größe.yaml").write_text("größe:\n  _target_: torch.optim.SGD\n  lr: 0.5\n")
    request = Request((*SMALL, "suite=so (2) ß", "optimizer=größe", "optimizer.größe.lr=0.25"), (folder,))
    composed = compose_values(request)
    assert (composed.suite, composed.values["epochs"]) == ("so (2) ß", 7)
    assert composed.values["optimizer"]["größe"]["lr"] == 0.25
    planned = here("plan", f"--config-dir={folder}", *request.overrides, results=tmp_path / "results")
    assert "digits" in planned.stdout
