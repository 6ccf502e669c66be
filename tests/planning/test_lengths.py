"""Lengths of methods as shares of the epochs: whole numbers before anything else sees them."""

import pytest

from harness.planning.compose import Request, available, load_yaml
from harness.planning.methods import resolved_method, with_lengths
from harness.planning.plan import make_plan
from harness.planning.resolve import resolve
from harness.storage.store import Store
from harness.tune.space import make_space
from harness.validation import ConfigError

LENGTHS = {"warmup": {"least": 2}, "rank": {"most": 10}, "milestones": {}}
PUBLISHED = {
    "cmd_online": {"warmup": 20},
    "cmd_dmd": {"warmup": 20},
    "dmd": {"warmup": 20},
    "persistence": {"warmup": 20},
    "dmd_jumps": {"warmup": 20, "window": 5, "ahead": 5},
    "cmd_embedded": {"warmup": 20, "every": 10},
    "frozen_random": {"warmup": 20, "every": 10},
    "frozen_least_moved": {"warmup": 20, "every": 10},
    "p_sgd": {"warmup": 20, "dimensions": 20, "epochs": None, "milestones": [30, 50]},
    "p_bfgs_equal": {"warmup": 20, "dimensions": 20, "epochs": 20},
    "p_bfgs_long": {"warmup": 80, "dimensions": 40, "epochs": 20},
    "pca_equal_modes": {"rank": 10},
    "dmd_reconstruction": {"rank": 10},
    "lawa": {"k": 5},
    "twa": {"epochs": 10},
}
"""what the methods' sources have, whose runs are of about 100 epochs"""
LONGER = {
    "cmd_references_all": 12,
    "cmd_embedded": 5,
    "frozen_random": 5,
    "frozen_least_moved": 5,
    "fed_cmd": 5,
    "fed_frozen_random": 5,
    "fed_frozen_least_moved": 5,
    "twa": 5,
    "dmd_jumps": 4,
    "dmd_reconstruction": 4,
}
"""the least epochs of what has nothing to do in a run of 3"""


def own(name):
    return load_yaml(available("method")[name])[name]


@pytest.mark.parametrize(
    ("given", "epochs", "found"),
    [
        (0.2, 100, 20),
        (0.2, 45, 9),
        (0.55, 100, 55),  # 55.00000000000001 in floating point
        (0.1, 45, 5),  # halves go up
        (0.2, 4, 2),  # of 0.8 epochs at least 2
        (1, 100, 1),  # one epoch
        (30, 8, 30),  # which the method refuses
        ("energy", 8, "energy"),
        (True, 8, True),
        (None, 8, None),
    ],
)
def test_a_share_is_a_whole_number_of_epochs(given, epochs, found):
    values = with_lengths("m", {"warmup": given, "energy": 0.9, "fast": {"warmup": given}, "lengths": LENGTHS}, epochs)
    assert (values["warmup"], values["energy"], values["fast"]) == (found, 0.9, {"warmup": found})


def test_bounds_and_lists():
    values = with_lengths("m", {"rank": 0.5, "milestones": [0.1, 0.2, 7], "lengths": LENGTHS}, 100)
    assert (values["rank"], values["milestones"]) == (10, [10, 20, 7])
    assert with_lengths("m", {"milestones": [0.1, 0.2], "lengths": LENGTHS}, 3)["milestones"] == [1, 2]


@pytest.mark.parametrize("given", [0.0, 1.0, 1.5, -0.2, float("nan"), [2, 1.5]])
def test_another_number_is_refused(given):
    with pytest.raises(
        ConfigError, match=r"^method\.m\.warmup must be a whole number, or a share of the epochs above 0 "
    ):
        with_lengths("m", {"warmup": given, "lengths": LENGTHS}, 10)


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_the_published_ones_in_100_epochs(name):
    params = resolved_method(name, own(name), 100).config.params
    assert {parameter: params[parameter] for parameter in PUBLISHED[name]} == PUBLISHED[name]


@pytest.mark.parametrize("name", available("method"))
def test_presets_fit_short_runs_and_long_ones(name):
    least = LONGER.get(name, 3)
    for epochs in (least, *(longer for longer in (8, 15, 100, 1000) if longer > least)):
        fitted = resolved_method(name, own(name), epochs)
        assert fitted.epochs_read <= epochs
    if name in LONGER:
        with pytest.raises(ConfigError, match=rf"; it fits from epochs={least} on$"):
            resolved_method(name, own(name), 3)


def test_a_share_and_the_number_that_it_comes_to_are_one_cell(tmp_path):
    """With one key, and the same of all other cells."""
    small = ("model=test_resnet", "dataset=digits", "epochs=10", "method=[base,cmd_online,p_sgd]", "tracker=none")
    keys = [
        [cell.key for _, cell in make_plan(resolve(Request((*small, *given)), "a test", False), Store(tmp_path)).cells]
        for given in (
            (),
            ("method.cmd_online.warmup=2", "method.p_sgd.milestones=[3,5]"),
            ("method.cmd_online.warmup=3",),
        )
    ]
    assert keys[0] == keys[1]
    assert [a == b for a, b in zip(keys[0], keys[2], strict=True)] == [True, False, True]


def test_a_plan_says_what_shares_come_to():
    small = ("model=test_resnet", "dataset=digits", "method=[base,cmd_online,dmd,cmd_embedded]", "tracker=none")
    notes = resolve(Request((*small, "epochs=30")), "a test", compares=False).notes
    assert notes == ("of 30 epochs warmup 0.2 is 6 (cmd_online, dmd, cmd_embedded), every 0.1 is 3 (cmd_embedded)",)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "twa"])
def test_searches_are_cut_to_a_short_run(name):
    """What a base of 8 epochs does not allow is cut off, and the preset's own setting stays among the values."""
    config = resolved_method(name, own(name), 8).config
    space, lines = make_space(config, 8, own(name)["search"], None)
    assert space.holds(config.params) or lines
    for parameter, distribution in space.distributions.items():
        if parameter in ("warmup", "dimensions", "every"):
            assert distribution.high <= 8
