"""Everything that is wrong with a command line in one message, each fault once and none that follows from another."""

import pytest
from command import here

from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.validation import ConfigError, nearest

SMALL = ("model=test_resnet", "dataset=digits", "tracker=none")


def faults(*overrides):
    with pytest.raises(ConfigError) as refusal:
        resolve(Request(overrides), "a test")
    return refusal.value.faults


def test_all_groups_at_once(tmp_path):
    """Types, bounds, keys and presets that are none, a class's own refusals, lengths, and batches beside images."""
    given = (
        "epochs=8", "method=[base,cmd_online,lawa,p_bfgs_equal]", "seeds=[0,0]", "evaluate.test=never", "lr=3",
        "batch_size=5000", "method.p_bfgs_equal.batch_size=4000", "method.cmd_online.warmup=20",
        "method.cmd_online.modes=0", "method.lawa.k=0", "optimizer.sgd_momentum.lr=-1",
        "optimizer.sgd_momentum.momentum=much", "model.test_resnet.drop_rate=3", "engine.retries=-1", "redo=swaa",
    )  # fmt: skip
    done = here("plan", *SMALL, *given, results=tmp_path / "results", code=2)
    first, *lines = done.stderr.splitlines()
    keys = {line.split()[0] for line in lines if " must " in line}
    assert keys == {
        "seeds", "evaluate.test", "batch_size", "method.p_bfgs_equal.batch_size", "method.cmd_online.warmup",
        "method.cmd_online.modes", "method.lawa.k", "optimizer.sgd_momentum.lr", "optimizer.sgd_momentum.momentum",
        "model.test_resnet.drop_rate", "engine.retries", "redo",
    }  # fmt: skip
    assert [line for line in lines if " must " not in line and "optimizer.sgd_momentum.lr" in line] == [
        line for line in lines if line.startswith("  no key named 'lr'")
    ]
    assert first == f"error: {len(lines)} things to change:"
    assert len(lines) == len(keys) + 1
    assert done.stdout == ""


def test_what_is_the_same_on_several_bases_is_said_once():
    """Four bases, two lengths: one line for each bound."""
    bases = "bases=[{model: test_resnet, epochs: 4}, {model: test_resnet, epochs: 6, optimizer: adam}]"
    lines = faults(
        "dataset=digits", "optimizer=[sgd,adam]", "seeds=[0,1]", "method=[base,dmd]", "method.dmd.warmup=9", bases
    )
    assert lines == tuple(f"method.dmd.warmup must be below epochs = {epochs}, got 9" for epochs in (4, 6))


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        # the default methods do not fit 2 epochs, but were not asked for
        (("method=cmd", "epochs=2"), ["method:"]),
        (("epochs=0", "method.cmd_online.warmup=400"), ["epochs"]),
        (("suite=quik", "batch_size=x", "optimizer=adm"), ["batch_size", "suite:", "optimizer:"]),
        (("dataset=nothing", "batch_size=100000", "method.swa.start=3"), ["dataset:", "method.swa.start"]),
        (("model=no_such", "model.no_such.drop_rate=0.1", "save=all"), ["save", "model:"]),
        (("engine=slurrm", "engine.partition=gpu"), ["engine:"]),
        (("dataset.digits.val_size=many", "seeds=[]"), ["dataset.digits.val_size", "seeds"]),
        (("optimizer.sgd_momentum.nesterov=3", "optimizer.sgd_momentum.rates=[2,1]"), ["optimizer.sgd_momentum.rates"]),
        (("dataset.digits.classes=null", "dataset.digits.chanels=3"), ["no", "dataset.digits.classes"]),
    ],
)  # fmt: skip
def test_no_fault_follows_from_another(given, keys):
    defaults = [word for word in SMALL if word.partition("=")[0] not in {g.partition("=")[0] for g in given}]
    assert [line.split()[0] for line in faults(*defaults, *given)] == keys


def test_names_that_are_cut_short_stand_for_all_that_begin_so():
    methods = {"cmd_dmd", "cmd_embedded", "cmd_mean_kernel", "cmd_online", "cmd_posthoc"}
    methods |= {f"cmd_references_{name}" for name in ("all", "mean", "principal")}
    (line,) = faults(*SMALL, "method=cmd")
    assert line.startswith("method: no preset named 'cmd'; nearest: ")
    assert set(line.partition("nearest: ")[2].split(", ")) == methods
    assert nearest("lr", ["optimizer.adam.lr", "lrs", "model"]) == "; nearest: lrs, optimizer.adam.lr"
    assert nearest("CMD_onlin", ["cmd_online", "swa"]) == "; nearest: cmd_online"
    assert nearest("zzz", ["b", "a"]) == "; one of: a, b"


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["method=[base,", "swa]"], "method came as 2 .*: 'method=\\[base, swa\\]', .*: method=\\[base,swa\\]$"),
        (["seeds=[0,", "1,", "2]"], "seeds came as 3 arguments, .*: seeds=\\[0,1,2\\]$"),
        (["optimizer.sgd_momentum.schedule={name:", "wsd}"], "came as 2 arguments, .* in quotes: '.*{name: wsd}'$"),
        (["swa]"], "'swa\\]' is the end of a list that a shell parted at a space: write all of it in quotes"),
    ],
)  # fmt: skip
def test_lists_that_a_shell_parted_at_spaces(typed, line):
    """One fault, whatever is wrong elsewhere."""
    said = faults(*SMALL, *typed, "epochs=0")
    assert len(said) == 2
    with pytest.raises(ConfigError, match=line):
        resolve(Request((*SMALL, *typed)), "a test")


def test_a_suite_of_ones_own_with_several_faults(tmp_path):
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite/own.yaml").write_text(
        "# @package _global_\nepochs: 0\nseeds: [-1]\nmethod: {swa: {strat: 0.5}}\ndataset: {digits: {val_size: -1}}\n"
    )
    with pytest.raises(ConfigError) as refusal:
        resolve(Request((*SMALL, "suite=own"), (tmp_path,)), "a test")
    assert [line.split(" must ")[0].split(";")[0] for line in refusal.value.faults] == [
        "seeds[0]", "epochs", "dataset.digits.val_size", "method.swa has no key 'strat'",
    ]  # fmt: skip
