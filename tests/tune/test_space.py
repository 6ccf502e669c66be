"""Search spaces: what is refused, what is cut to the epochs, and the grid."""

from dataclasses import replace

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from harness.config import ConfigError
from harness.planning.methods import method_config
from harness.tune.space import Space, make_space

CMD = {"_target_": "baselines.cmd_online.CMDOnline", "modes": 5, "samples": 500, "warmup": 3}
WARMUP = {"type": "int", "low": 2, "high": 40}


def method(search, **values):
    return method_config("cmd_online", {**CMD, **values, "search": search})


def test_distributions_are_those_of_the_entries():
    search = {
        "modes": {"type": "int", "low": 2, "high": 50, "log": True},
        "forgetting": {"type": "float", "low": 0.8, "high": 1.0},
        "include_initial": {"type": "categorical", "choices": [True, False]},
    }
    space, lines = make_space(method(search), 20, search, None)
    assert space.distributions == {
        "modes": IntDistribution(2, 50, log=True),
        "forgetting": FloatDistribution(0.8, 1.0),
        "include_initial": CategoricalDistribution([True, False]),
    }
    assert lines == []


def test_only_the_parameters_that_were_asked_for():
    search = {"modes": {"type": "int", "low": 2, "high": 50}, "warmup": {"type": "int", "low": 2, "high": 4}}
    assert list(make_space(method(search), 20, search, ["warmup"])[0].distributions) == ["warmup"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"modse": {"type": "int", "low": 2, "high": 5}}, "no parameter named 'modse'; nearest: modes"),
        (
            {"modes": {"type": "int", "low": 6, "high": 5}},
            "modes must not be empty: low must be at most high = 5, got 6",
        ),
        ({"modes": {"type": "whole", "low": 2, "high": 5}}, "modes.type must be one of int, float, categorical"),
        ({"modes": {"type": "int", "low": 2.5, "high": 5}}, "modes.low must be a whole number, got 2.5"),
        ({"modes": {"type": "int", "low": 2}}, "modes.high must be given"),
        ({"modes": {"type": "int", "low": 2, "high": 5, "step": 2}}, "modes has no key 'step'"),
        ({"modes": {"type": "int", "low": 0, "high": 5, "log": True}}, "above 0 on a logarithmic scale, got 0"),
        ({"modes": {"type": "categorical", "choices": []}}, "choices must be a list of at least 1 value"),
        ({"modes": 5}, "must be a mapping with the key type, got 5"),
        (
            {"forgetting": {"type": "float", "low": 0.5, "high": 1.5}},
            "got 1.5: forgetting must be above 0 and at most 1",
        ),
        ({"warmup": WARMUP}, "what a base of 20 epochs allows, got 40: warmup must be below epochs = 20"),
    ],
)
def test_a_mistaken_entry_is_refused(entry, words):
    with pytest.raises(ConfigError) as refusal:
        make_space(method(entry), 20, {}, None)
    assert "method.cmd_online.search" in str(refusal.value)
    assert words in str(refusal.value)


def test_a_presets_own_range_is_cut_to_the_epochs_and_said():
    """The largest warm-up in a base of 6 epochs is 5, as the method itself says."""
    search = {"warmup": WARMUP}
    space, (line,) = make_space(method(search), 6, search, None)
    assert space.distributions == {"warmup": IntDistribution(2, 5)}
    assert "2..40 becomes 2..5" in line


def test_a_parameter_of_whose_range_nothing_fits_keeps_its_value():
    search = {"warmup": {"type": "int", "low": 30, "high": 40}, "modes": {"type": "int", "low": 2, "high": 5}}
    space, (line,) = make_space(method(search), 6, search, None)
    assert list(space.distributions) == ["modes"]
    assert "it keeps 3" in line


def test_a_value_that_fits_with_another_value_beside_it_is_not_cut():
    """50 modes do not fit the 40 samples of the preset, but they fit the samples that are searched."""
    search = {"modes": {"type": "int", "low": 2, "high": 50}, "samples": {"type": "int", "low": 30, "high": 100}}
    space, lines = make_space(method(search, modes=3, samples=40), 20, search, None)
    assert space.distributions["modes"] == IntDistribution(2, 50)
    assert lines == []


def test_a_cut_makes_room_for_another_parameter():
    """In 20 epochs a warm-up of 40 is cut to 20, and 20 dimensions go with that one alone, not with the preset's 5."""
    preset = {"_target_": "baselines.p_bfgs.PBFGS", "warmup": 5, "dimensions": 5, "epochs": 3, "batch_size": None}
    search = {"dimensions": {"type": "int", "low": 5, "high": 40}, "warmup": {"type": "int", "low": 5, "high": 40}}
    space, lines = make_space(method_config("p_bfgs_equal", {**preset, "search": search}), 20, search, None)
    assert space.distributions == {"dimensions": IntDistribution(5, 20), "warmup": IntDistribution(5, 20)}
    assert len(lines) == 2


def test_size_and_membership():
    finite = Space({"a": IntDistribution(1, 4), "b": CategoricalDistribution(["x", "y"])})
    assert finite.size == 8
    assert finite.holds({"a": 4, "b": "x"})
    assert not finite.holds({"a": 5, "b": "x"})
    assert not finite.holds({"a": 4, "b": "z"})
    assert Space({**finite.distributions, "c": FloatDistribution(0, 1)}).size is None


def test_the_grid_is_as_fine_as_the_trials_allow():
    """Two ranges of real numbers: the largest square number of points below the budget."""
    space = Space({"a": FloatDistribution(0, 1), "b": FloatDistribution(1, 100, log=True)})
    points = space.grid(11)
    assert sorted({point["a"] for point in points}) == [0.0, 0.5, 1.0]
    assert sorted({round(point["b"], 9) for point in points}) == [1.0, 10.0, 100.0]
    assert len(points) == 9
    assert len(space.grid(1)) == 4  # never fewer than two values of each


def test_a_finite_grid_is_not_finer_than_its_space():
    points = Space({"a": IntDistribution(1, 3), "b": CategoricalDistribution(["x", "y"])}).grid(100)
    assert sorted((point["a"], point["b"]) for point in points) == [(a, b) for a in (1, 2, 3) for b in ("x", "y")]


def test_a_method_is_not_changed_by_its_space():
    one = method({"warmup": WARMUP})
    make_space(one, 6, {"warmup": WARMUP}, None)
    assert one == replace(one)
    assert one.params["warmup"] == 3
