"""From the command line to bases and methods: every suite, the order of precedence, lists, `all` and timm's names."""

import csv
from importlib.resources import files
from pathlib import Path

import pytest
from command import here

from harness.config import ConfigError
from harness.conformance.tiny import find_class
from harness.method import Exchange
from harness.planning.compose import Request
from harness.planning.plan import make_plan
from harness.planning.resolve import resolve
from harness.storage.store import Store

CONF = Path(str(files("conf")))
SUITES = sorted(path.stem for path in (CONF / "suite").glob("*.yaml"))

LEVELS = """\
# @package _global_
defaults:
  - override /method: [base, lawa, swa]
bases:
  - {model: test_resnet, dataset: digits, epochs: 8, method: {lawa: {k: 3}}}
  - {model: resnet18, dataset: digits, optimizer: adam, batch_size: 50}
  - model: {test_resnet: {drop_rate: 0.1}}
    dataset: {each: {crop_padding: 2}}
    optimizer: {sgd: {lr: 0.3, momentum: 0.5}}
    fast: {batch_size: 9, dataset: {each: {resize: 6}}, method: {lawa: {k: 6}}}
seeds: [3, 4]
epochs: 7
method:
  lawa: {k: 4}
  swa: {start: 0.5}
  ema: {half_life: 9.0}
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder for --config-dir with a suite whose values stand at every level."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "suite").mkdir()
    (folder / "suite/levels.yaml").write_text(LEVELS)
    (folder / "suite/mistaken.yaml").write_text("# @package _global_\nmethod:\n  lava: {k: 4}\n")
    return folder


def study(*overrides, own=None):
    return resolve(Request(overrides, () if own is None else (own,)), "a test")


def parameters(methods, name):
    (found,) = [method.config.params for method in methods if method.name == name]
    return found


def names(study):
    return [(base.model.name, base.dataset.name, base.optimizer.name, base.seed) for base, _ in study.bases]


@pytest.mark.parametrize("fast", ["false", "true"])
@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_plans(suite, fast, tmp_path):
    plan = make_plan(study(f"suite={suite}", f"fast={fast}"), Store(tmp_path / "results"))
    assert len(plan.bases) >= 1
    assert set(plan.statuses.values()) == {"left"}
    assert all({"base", "base_recalibrated"} <= {cell.method.name for cell in base.cells} for base in plan.bases)


def test_preset_suite_entry_fast_command_line(own):
    """Each level replaces the one before, value by value."""
    assert parameters(study("method=lawa").bases[0][1], "lawa")["k"] == 5
    first, methods = study("suite=levels", own=own).bases[0]
    last, others = study("suite=levels", own=own).bases[2]
    assert parameters(others, "lawa")["k"] == 4
    assert parameters(methods, "lawa")["k"] == 3
    assert parameters(methods, "swa")["start"] == 0.5
    assert (first.epochs, last.epochs, last.batch_size) == (8, 7, 50)
    fast, methods = study("suite=levels", "fast=true", own=own).bases[0]
    assert parameters(methods, "lawa")["k"] == 2
    assert (fast.epochs, fast.batches_per_epoch) == (6, 3)
    told, methods = study("suite=levels", "fast=true", "method.lawa.k=7", "epochs=9", own=own).bases[0]
    assert parameters(methods, "lawa")["k"] == 7
    assert (told.epochs, told.batches_per_epoch) == (9, 3)


def test_command_line_replaces_in_every_entry(own):
    told = study("suite=levels", "epochs=12", "optimizer=sgd", "method.lawa.k=6", own=own)
    assert {base.epochs for base, _ in told.bases} == {12}
    assert {base.optimizer.name for base, _ in told.bases} == {"sgd"}
    assert {parameters(methods, "lawa")["k"] for _, methods in told.bases} == {6}


def test_command_line_chooses_among_entries_that_name_what_it_names():
    """Each keeps its own settings, and no two with one name come to one row."""
    bases = [base for base, _ in study("suite=quick", "model=test_resnet", "optimizer=sgd_momentum").bases]
    assert [(base.optimizer.params["lr"], base.seed) for base in bases] == [(0.2, seed) for seed in range(5)]
    with pytest.raises(
        ConfigError, match=r"^optimizer must be among the suite's bases \(adam, adam_cosine\), got sgd$"
    ):
        study("suite=quick", "model=test_vit", "optimizer=[adam,sgd]")


def test_entries_that_differ_in_what_the_command_line_replaced_are_one(tmp_path):
    """With all methods of both: the second of a model in `quick` is without cooldown."""
    found = study("suite=quick", "optimizer=sgd")
    assert [name[0] for name in names(found)] == ["test_resnet"] * 5 + ["test_vit"] * 3
    assert all("cooldown" in [method.name for method in methods] for _, methods in found.bases)
    make_plan(found, Store(tmp_path / "results"))


def test_two_bases_of_one_name_are_refused(tmp_path):
    """They would be one row of a table."""
    (tmp_path / "suite").mkdir()
    entry = "  - {model: test_resnet, optimizer: {sgd: {lr: %s}}}\n"
    (tmp_path / "suite/twice.yaml").write_text(f"# @package _global_\nbases:\n{entry % 0.1}{entry % 0.2}")
    twice = study("suite=twice", "dataset=digits", own=tmp_path)
    with pytest.raises(ConfigError, match=r"other names, got test_resnet-digits-sgd-s0 2 times"):
        make_plan(twice, Store(tmp_path / "results"))


def test_entries_say_which_bases_there_are(own):
    assert names(study("suite=levels", own=own)) == [
        ("test_resnet", "digits", "sgd_momentum", 3),
        ("test_resnet", "digits", "sgd_momentum", 4),
        ("resnet18", "digits", "adam", 3),
        ("resnet18", "digits", "adam", 4),
        ("test_resnet", "digits", "sgd", 3),
        ("test_resnet", "digits", "sgd", 4),
    ]


def test_entries_hold_values_of_their_presets(own):
    """Of one entry and no other, below what the command line says, and none for a preset that it replaces."""
    first, last = (study("suite=levels", own=own).bases[i][0] for i in (0, -1))
    assert (first.model.drop_rate, first.dataset.crop_padding) == (None, 1)
    assert (last.model.drop_rate, last.dataset.crop_padding) == (0.1, 2)
    assert (last.optimizer.params["lr"], last.optimizer.params["momentum"]) == (0.3, 0.5)
    told, _ = study("suite=levels", "optimizer.sgd.lr=0.2", "dataset.digits.crop_padding=3", own=own).bases[-1]
    assert (told.optimizer.params["lr"], told.optimizer.params["momentum"], told.dataset.crop_padding) == (0.2, 0.5, 3)
    other, _ = study("suite=levels", "dataset=fashion_mnist", "optimizer=adam", own=own).bases[-1]
    assert (other.dataset.name, other.dataset.crop_padding) == ("fashion_mnist", 2)
    assert (other.optimizer.name, other.optimizer.params["lr"]) == ("adam", 0.001)


def test_what_an_entry_says_for_fast_comes_after_the_presets(own):
    first, methods = study("suite=levels", "fast=true", own=own).bases[0]
    assert (first.batch_size, first.dataset.resize, parameters(methods, "lawa")["k"]) == (32, None, 2)
    last, methods = study("suite=levels", "fast=true", own=own).bases[-1]
    assert (last.batch_size, last.dataset.resize, parameters(methods, "lawa")["k"]) == (9, 6, 6)
    told, _ = study("suite=levels", "fast=true", "dataset.digits.resize=7", own=own).bases[-1]
    assert told.dataset.resize == 7


def test_paper_has_the_settings_of_the_released_code():
    """Those that ship with the published numbers, row by row."""
    with (files("harness.report") / "reference" / "cifar10_defaults.csv").open() as file:
        published = {row["model"]: row for row in csv.DictReader(file)}
    chosen = [
        (base, methods) for base, methods in study("suite=paper").bases if not base.optimizer.name.endswith("_cosine")
    ]
    assert {base.model.name for base, _ in chosen} == set(published)
    for base, methods in chosen:
        row, params = published[base.model.name], base.optimizer.params
        assert (base.optimizer.name, params["lr"]) == (row["optimizer"], float(row["lr"]))
        assert str(params.get("momentum", "")) == row["momentum"]
        assert params["weight_decay"] == float(row["weight_decay"])
        schedule = base.optimizer.schedule
        name = "none" if schedule.name == "constant" else f"warmup{schedule.warmup_epochs:g}_{schedule.name}"
        assert name == row["schedule"]
        assert (base.epochs, base.batch_size) == (int(row["epochs"]), int(row["batch_size"]))
        online = parameters(methods, "cmd_online")
        assert [online[k] for k in ("modes", "samples", "warmup")] == [
            int(row[k]) for k in ("modes_M", "samples_K", "warmup_F")
        ]
        assert (base.model.drop_rate or 0) == float(row["dropout"])
    shared = {base.model.name: base for base, _ in chosen if base.seed == 0}["resnet18"]
    assert shared in [base for base, _ in study("suite=optimizers").bases]


@pytest.mark.parametrize("suite", ["quick", "fashion", "paper", "all"])
def test_a_suite_has_an_annealed_base_beside_every_one_at_a_constant_rate(suite):
    """The same model, data, seed, length and class of optimizer; a rate of its own."""
    by_schedule = {"constant": set(), "annealed": set()}
    for base, _ in study(f"suite={suite}").bases:
        alike = base.model.name, base.dataset.name, base.optimizer.target, base.seed, base.epochs
        by_schedule["constant" if base.optimizer.schedule.name == "constant" else "annealed"].add(alike)
    assert by_schedule["constant"] <= by_schedule["annealed"]


def test_model_filters_entries_and_method_selects(own):
    chosen = study("suite=levels", "model=resnet18", "method=[base,lawa]", "seeds=[0]", own=own)
    assert names(chosen) == [("resnet18", "digits", "adam", 0)]
    assert [method.name for method in chosen.bases[0][1]] == ["base", "base_recalibrated", "lawa"]
    with pytest.raises(ConfigError, match=r"test_resnet, resnet18, test_resnet.*got vit_tiny"):
        study("suite=levels", "model=vit_tiny", own=own)
    assert {model for model, *_ in names(study("suite=quick", "model=test_vit"))} == {"test_vit"}


def test_an_entry_may_have_seeds_of_its_own_unless_the_command_line_names_them(tmp_path):
    folder = tmp_path / "suite"
    folder.mkdir()
    lines = "bases: [{model: test_resnet, seeds: [3, 4]}, {model: test_vit}]\nseeds: [0]\nmethod: {}\n"
    chosen = "defaults:\n  - override /model: [test_resnet, test_vit]\n"
    (folder / "uneven.yaml").write_text(f"# @package _global_\n{chosen}{lines}", encoding="utf-8")

    def seeds(*words):
        return [(base.model.name, base.seed) for base, _ in study("suite=uneven", *words, own=tmp_path).bases]

    assert seeds() == [("test_resnet", 3), ("test_resnet", 4), ("test_vit", 0)]
    assert seeds("fast=true") == [("test_resnet", 3), ("test_vit", 0)]
    assert seeds("seeds=[7]") == [("test_resnet", 7), ("test_vit", 7)]
    for wrong, words in (("[1, 1]", "must all be different"), ("[]", "at least 1"), ("[-1]", "at least 0")):
        (folder / "uneven.yaml").write_text(
            f"# @package _global_\n{chosen}{lines.replace('[3, 4]', wrong)}", encoding="utf-8"
        )
        with pytest.raises(ConfigError, match=rf"^bases\[0\]\.seeds.*{words}"):
            seeds()


def test_an_entry_may_leave_methods_out_unless_the_command_line_chooses():
    by_rate = {base.optimizer.schedule.name: methods for base, methods in study("suite=quick").bases}
    names_of = {rate: {method.name for method in methods} for rate, methods in by_rate.items()}
    assert names_of["constant"] - names_of["cosine"] == {"cooldown"}
    chosen = study("suite=quick", "method=[base,cooldown]").bases
    named = {tuple(method.name for method in methods) for _, methods in chosen}
    assert named == {("base", "base_recalibrated", "cooldown")}


def test_the_plan_says_what_is_decided_and_what_stands_beside_what(tmp_path):
    record = make_plan(study("suite=quick", "seeds=[0]"), Store(tmp_path / "results")).as_record()
    assert {"method": "cmd_online", "control": "base_recalibrated"} in record["primary"]
    assert {"method": "cmd_posthoc", "control": "base_recalibrated"} in record["primary"]
    twins = {(cell["optimizer"], cell["schedule"], cell["twin"]) for cell in record["cells"]}
    assert twins == {
        ("sgd_momentum", "constant", "sgd_momentum_cosine"), ("sgd_momentum_cosine", "cosine", None),
        ("adam", "constant", "adam_cosine"), ("adam_cosine", "cosine", None),
    }  # fmt: skip
    controls = {cell["method"]: cell["control"] for cell in record["cells"]}
    assert controls["cmd_posthoc"] == "cmd_mean_kernel"
    assert controls["cmd_online"] == "epoch_ema"
    few = make_plan(study("suite=quick", "method=[base,base_recalibrated,swa]"), Store(tmp_path / "results"))
    assert few.as_record()["primary"] == record["primary"]
    own = make_plan(study("dataset=digits", "method=[base,base_recalibrated,swa]"), Store(tmp_path / "results"))
    assert own.as_record()["primary"] == [{"method": "swa", "control": "base_recalibrated"}]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("statistics.primary=[swaa]", r"statistics\.primary\[0\]: no method named 'swaa'; nearest: swa"),
        ("statistics.primary=[{swa: nothing}]", r"statistics\.primary\[0\]: no method named 'nothing'"),
        ("statistics.primary=swa", r"statistics\.primary must be a list"),
        ("statistics.margin=0", r"statistics\.margin must be above 0, got 0"),
    ],
)
def test_what_is_to_be_decided_is_checked(given, message):
    with pytest.raises(ConfigError, match=message):
        study("dataset=digits", given)


def test_values_for_presets_that_are_not_chosen_are_dropped(own):
    """Here for ema, and in smoke for CMD; a preset that does not exist is a mistake all the same."""
    chosen = {method.name for method in study("suite=levels", own=own).bases[0][1]}
    assert chosen == {"base", "base_recalibrated", "lawa", "swa"}
    assert [method.name for method in study("suite=smoke", "method=base").bases[0][1]] == ["base"]
    with pytest.raises(ConfigError, match=r"method: no preset named 'lava'.*lawa"):
        study("suite=mistaken", own=own)


def test_lists_multiply():
    product = study("model=[test_resnet,resnet18]", "dataset=digits", "optimizer=[sgd,adam]", "seeds=[0,7]")
    assert names(product) == [
        (model, "digits", optimizer, seed)
        for model in ("test_resnet", "resnet18")
        for optimizer in ("sgd", "adam")
        for seed in (0, 7)
    ]


def test_all_stands_for_every_preset():
    chosen = study("model=all", "dataset=fashion_mnist", "method=base")
    assert {model for model, *_ in names(chosen)} == {path.stem for path in (CONF / "model").glob("*.yaml")}


def test_fast_shrinks_quick():
    fast = study("suite=quick", "fast=true")
    assert {model for model, *_ in names(fast)} == {"test_resnet", "test_vit"}
    for base, methods in fast.bases:
        assert (base.seed, base.epochs, base.batches_per_epoch, base.model.pretrained) == (0, 6, 3, False)
        assert base.dataset.val_size <= 128
        assert parameters(methods, "cmd_online")["warmup"] == 2
    assert len(fast.bases) == 4


def test_a_timm_name_stands_where_a_preset_may(tmp_path):
    """Its values can be set below its name, dots as underscores."""
    planned = here("plan", "model=resnet10t", "dataset=digits", results=tmp_path / "results")
    assert "resnet10t" in planned.stdout
    assert "1 base, " in planned.stdout
    (base, _), *rest = study(
        "model=resnet18.a1_in1k", "dataset=digits", "method=base", "model.resnet18_a1_in1k.stem=small"
    ).bases
    assert rest == []
    assert (base.model.name, base.model.timm, base.model.stem) == ("resnet18_a1_in1k", "resnet18.a1_in1k", "small")
    assert base.model.pretrained is False


def test_all_takes_quick_over_and_runs_every_method(tmp_path):
    """Its bases with their cells and more seeds of them, and those of every other preset."""
    store = Store(tmp_path / "results")
    quick, everything = (make_plan(study(f"suite={suite}"), store) for suite in ("quick", "all"))
    assert {base.key for base in quick.bases} < {base.key for base in everything.bases}
    assert {cell.key for _, cell in quick.cells} <= {cell.key for _, cell in everything.cells}
    presets = {path.stem for path in (CONF / "method").glob("*.yaml")}
    presets -= {name for name in presets if issubclass(find_class(name), Exchange)}
    assert {cell.method.name for _, cell in everything.cells} == presets
