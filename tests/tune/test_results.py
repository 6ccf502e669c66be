"""What a search came to, from trials made by hand: the verdict, importances, the map, and best.yaml."""

import math

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from studies import SPACE, by_seed, finished, made, result

from harness.config import ConfigError
from harness.planning.tuned import read_best
from harness.tune.figures import binned, draw_search, edges, map_axes
from harness.tune.results import importances, outcome, sentence, spread_text, trials_frame, write_results
from harness.tune.space import Space

BEST = {"modes": 4, "warmup": 2}
WORSE = {"modes": 9, "warmup": 4}

# Student's t at 97.5 % (two-sided 95 %), as printed in tables: 12.706 with 1 degree of freedom, 4.303 with 2
T1, T2 = 12.706, 4.303


def test_a_difference_beyond_seed_noise(tmp_path):
    """81, 82, 83.5 against 80, 81, 82: differences 1, 1, 1.5 of mean 7/6 and variance 1/12, so the half-width is
    t sqrt(1/12) / sqrt(3) = t / 6."""
    search = made(
        tmp_path, [finished(BEST, by_seed([81.0, 82.0, 83.5])), finished(WORSE, by_seed([70.0] * 3))],
        default=by_seed([80.0, 81.0, 82.0]),
    )  # fmt: skip
    found = outcome(search)
    assert (found.number, found.params, found.trials) == (0, BEST, 2)
    assert found.values == {0: 81.0, 1: 82.0, 2: 83.5}
    assert found.interval == pytest.approx((7 / 6 - T2 / 6, 7 / 6 + T2 / 6), abs=1e-3)
    assert found.beyond_noise is True
    text = sentence(search, found)
    assert "modes 4, warmup 2" in text
    assert "82.17 ± 1.26 %, the default's 81.00 ± 1.00 %: +1.17, more than seed noise" in text
    assert "95% interval +0.45 to +1.88" in text
    assert "favours it" in text


def test_one_lucky_seed_is_seed_noise(tmp_path):
    """Differences 3, 0, 0: mean 1, standard deviation sqrt(3), half-width t."""
    search = made(tmp_path, [finished(BEST, by_seed([83.0, 80.0, 80.0]))], default=by_seed([80.0] * 3))
    found = outcome(search)
    assert found.interval == pytest.approx((1 - T2, 1 + T2), abs=1e-3)
    assert found.beyond_noise is False
    assert "+1.00, not more than seed noise" in sentence(search, found)


def test_seeds_are_paired(tmp_path):
    """Seeds that are far apart do not hide a difference that all of them show; the means' own spread, 10, would."""
    search = made(tmp_path, [finished(BEST, by_seed([71.0, 81.0, 91.0]))], default=by_seed([70.0, 80.0, 90.0]))
    assert outcome(search).interval == (1.0, 1.0)
    assert outcome(search).beyond_noise is True


@pytest.mark.parametrize(("second", "beyond"), [(1.1, True), (1.2, False)])
def test_two_seeds_need_much_agreement(tmp_path, second, beyond):
    """Differences 1 and 1 + d: standard deviation d / sqrt(2), half-width 12.706 d / 2: 0.635 of 1.05, 1.27 of 1.1."""
    trials = [finished(BEST, by_seed([51.0, 50.0 + second]))]
    search = made(tmp_path, trials, default=by_seed([50.0, 50.0]), seeds=(0, 1))
    half = T1 * (second - 1) / 2
    assert outcome(search).interval == pytest.approx(((1 + second) / 2 - half, (1 + second) / 2 + half), abs=1e-3)
    assert outcome(search).beyond_noise is beyond


def test_one_seed_cannot_tell(tmp_path):
    search = made(tmp_path, [finished(BEST, by_seed([90.0]))], default=by_seed([50.0]), seeds=(0,))
    assert outcome(search).beyond_noise is None
    assert "+40.00, on one seed, which cannot tell" in sentence(search, outcome(search))


def test_of_losses_the_least_is_the_best(tmp_path):
    """Differences -0.2, -0.2, -0.2 in the loss, though the accuracy is worse."""
    trials = [
        finished(BEST, by_seed([10.0] * 3, [0.3, 0.4, 0.5]), "loss"),
        finished(WORSE, by_seed([99.0] * 3, [0.9, 0.9, 0.9]), "loss"),
    ]
    search = made(tmp_path, trials, default=by_seed([50.0] * 3, [0.5, 0.6, 0.7]), metric="loss")
    found = outcome(search)
    assert found.params == BEST
    assert found.interval == pytest.approx((-0.2, -0.2))
    assert found.beyond_noise is True
    assert "0.4000 ± 0.1000, the default's 0.6000 ± 0.1000: -0.2000, more than" in sentence(search, found)


def test_where_no_trial_is_better_the_default_is_kept(tmp_path):
    """Equally good is not better."""
    search = made(tmp_path, [finished(BEST, by_seed([80.0] * 3))], default=by_seed([80.0] * 3))
    found = outcome(search)
    assert (found.number, found.params) == (-1, {"modes": 5, "warmup": 3})
    assert found.beyond_noise is False
    assert sentence(search, found).startswith("No trial of 1 is better than the default of cmd_online on net-data-sgd")


def test_a_default_without_a_value(tmp_path):
    """Such as one that diverges: the best stands for itself, and nothing is said of noise."""
    default = by_seed([80.0, 80.0]) | {2: result(None, None, "diverged", "its loss is not finite")}
    search = made(tmp_path, [finished(BEST, by_seed([81.0] * 3))], default=default)
    found = outcome(search)
    assert (found.default, found.interval, found.beyond_noise) == (None, None, None)
    assert sentence(search, found).endswith("; the default could not be valued.")


def test_nothing_was_valued(tmp_path):
    search = made(tmp_path, [finished(BEST, {}, state=TrialState.FAIL, error="x", retry_of=0)])
    assert outcome(search) is None
    assert write_results(search, "a test") is None
    assert not (tmp_path / "best.yaml").exists()


def test_what_a_reader_sees_of_a_spread():
    """Mean 2 and sample deviation 1 of 1, 2, 3."""
    assert spread_text({0: 1.0, 1: 2.0, 2: 3.0}, "accuracy") == "2.00 ± 1.00 %"
    assert spread_text({0: 0.25}, "loss") == "0.2500"


def test_the_trials_as_a_table(tmp_path):
    """Every state, in words; a value only where every seed has one."""
    partial = by_seed([60.0])
    trials = [
        finished(BEST, by_seed([81.0, 82.0, 84.5])),
        finished(WORSE, partial, state=TrialState.PRUNED),
        finished(WORSE, partial, state=TrialState.PRUNED, diverged="its loss is not finite"),
        finished(WORSE, {}, state=TrialState.PRUNED, refused="too many modes"),
        finished(WORSE, partial, state=TrialState.FAIL, error="RuntimeError: no"),
        finished(WORSE, {}, state=TrialState.FAIL, error="RuntimeError: no", retry_of=4),
        finished(WORSE, {}, state=TrialState.FAIL),
    ]
    frame = trials_frame(made(tmp_path, trials, default=by_seed([80.0] * 3))).set_index("trial")
    assert list(frame.index) == [-1, 0, 1, 2, 3, 4, 5, 6]
    states = ["default", "complete", "pruned", "diverged", "refused", "failed", "failed", "failed"]
    assert list(frame["state"]) == states
    assert list(frame["counts"]) == [False, True, True, True, False, False, True, False]
    assert frame.loc[0, "val_accuracy"] == 82.5
    assert frame.loc[0, "val_accuracy_std"] == pytest.approx(math.sqrt((1.5**2 + 0.5**2 + 2**2) / 2))
    assert frame.loc[-1, "seconds"] == 1.5
    assert frame.loc[1:, "val_accuracy"].isna().all()
    assert list(frame.loc[[1, 2, 4], "val_accuracy_s0"]) == [60.0] * 3
    errors = ["", "", "", "its loss is not finite", "too many modes", *["RuntimeError: no"] * 2, "its process was lost"]
    assert list(frame["error"].fillna("")) == errors
    assert frame.loc[5, "retry_of"] == 4


SQUARE = Space({"modes": IntDistribution(1, 8), "warmup": IntDistribution(1, 8)})


def square(value, **config):
    """A search that has tried all 64 settings of M and F from 1 to 8."""
    settings = [{"modes": m, "warmup": f} for m in range(1, 9) for f in range(1, 9)]
    trials = [finished(p, by_seed([value(p["modes"], p["warmup"])]), space=SQUARE) for p in settings]
    return made("/nowhere", trials, seeds=(0,), space=SQUARE, **config)


def test_importances_are_shares_of_the_variance():
    """2 M + F on a square: the variances of the two terms stand as 4 to 1, so the shares are 0.8 and 0.2."""
    found = importances(square(lambda m, f: 2.0 * m + f)).set_index("parameter")
    assert list(found.index) == ["modes", "warmup"]
    assert found["importance"].to_dict() == pytest.approx({"modes": 0.8, "warmup": 0.2}, abs=0.08)
    for name in ("modes", "warmup"):
        assert found.loc[name, "low"] <= found.loc[name, "importance"] <= found.loc[name, "high"]
        assert found.loc[name, "high"] - found.loc[name, "low"] < 0.2


def test_a_parameter_without_effect_has_no_importance():
    found = importances(square(lambda m, f: float(m))).set_index("parameter")
    assert found.loc["modes", "low"] > 0.95
    assert found.loc["warmup", "high"] < 0.05


def test_parameters_that_matter_only_together_have_little_alone():
    """M and F in the same half of their ranges or not: each alone says nothing, and shares do not add up to one."""
    found = importances(square(lambda m, f: float((m > 4) == (f > 4))))
    assert found["importance"].max() < 0.15


def test_few_trials_leave_importances_uncertain():
    """The widths of the intervals from every fourth of the trials, against all of them, with noise in the values."""
    noise = np.random.default_rng(0).normal(0, 2, (9, 9))
    whole = square(lambda m, f: m + noise[m, f])
    trials = whole.trials
    few = made("/nowhere", [t for t in trials if t.number % 4 == 1], seeds=(0,), space=SQUARE)
    assert len(few.trials) == 16

    def width(search):
        found = importances(search).set_index("parameter").loc["modes"]
        return found["high"] - found["low"]

    assert width(few) > width(whole) > 0


def test_importances_need_different_trials_and_parameters(tmp_path):
    """Nine are too few, and ten that say the same as one say nothing; a setting tried again adds nothing."""
    params = [{"modes": 2 + i % 8, "warmup": 2 + i % 3} for i in range(10)]
    differing = [finished(p, by_seed([80.0 + i])) for i, p in enumerate(params)]
    assert importances(made(tmp_path, differing[:9], seeds=(0,))) is None
    assert importances(made(tmp_path, [finished(p, by_seed([80.0])) for p in params], seeds=(0,))) is None
    again = [finished(params[0], by_seed([80.0]), same_as=0) for _ in range(40)]
    first = importances(made(tmp_path, differing, seeds=(0,)))
    pd.testing.assert_frame_equal(importances(made(tmp_path, [*differing, *again], seeds=(0,))), first)
    one = Space({"modes": IntDistribution(2, 9)})
    alone = [finished({"modes": p["modes"]}, by_seed([80.0 + i]), space=one) for i, p in enumerate(params)]
    assert importances(made(tmp_path, alone, seeds=(0,), space=one)) is None


def test_bins_of_the_map():
    """Whole numbers get bins of their own, or neighbours share one; real ones are even on their scale."""
    assert list(edges(IntDistribution(2, 4))) == [1.5, 2.5, 3.5, 4.5]
    assert list(edges(IntDistribution(1, 12))) == [0.5, 2.5, 4.5, 6.5, 8.5, 10.5, 12.5]
    assert list(edges(FloatDistribution(0.0, 3.0))) == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert list(edges(FloatDistribution(1.0, 1e6, log=True))) == pytest.approx([10.0**i for i in range(7)])


def test_the_map_holds_means_and_spreads(tmp_path):
    """M of 2 to 9 in six bins, of which 3 and 4 share one; F of 2 to 4 in three. Trials (M 3, F 2) with 80, 82 and
    (M 4, F 2) with 84, 90 share a field: means 81 and 87, deviations sqrt(2) and sqrt(18)."""
    trials = [
        finished({"modes": 3, "warmup": 2}, by_seed([80.0, 82.0])),
        finished({"modes": 4, "warmup": 2}, by_seed([84.0, 90.0])),
        finished({"modes": 9, "warmup": 4}, by_seed([70.0, 70.0])),
    ]
    search = made(tmp_path, trials, seeds=(0, 1))
    table = binned(trials_frame(search), ("modes", "warmup"), "val_accuracy", search).set_index(["x", "y"])
    assert list(table.index) == [(1, 0), (5, 2)]
    assert table.loc[(1, 0)].to_dict() == pytest.approx({"value": 84.0, "spread": 2 * math.sqrt(2), "trials": 2})
    assert table.loc[(5, 2)].to_dict() == {"value": 70.0, "spread": 0.0, "trials": 1}


def test_the_axes_of_the_map(tmp_path):
    """M and F wherever both are searched; otherwise the two numbers that matter most, and none for fewer."""
    pair = Space({"forgetting": FloatDistribution(0, 1), **SPACE.distributions})
    assert map_axes(made(tmp_path, space=pair), None) == ("modes", "warmup")
    other = Space({"a": IntDistribution(1, 2), "rule": CategoricalDistribution(["x"]), "b": FloatDistribution(0, 1)})
    assert map_axes(made(tmp_path, space=other), None) == ("a", "b")
    order = pd.DataFrame({"parameter": ["rule", "b", "a"]})
    assert map_axes(made(tmp_path, space=other), order) == ("b", "a")
    assert map_axes(made(tmp_path, space=Space({"a": IntDistribution(1, 2)})), None) is None


def test_figures_of_a_search_with_one_seed_and_trials_without_a_value(tmp_path):
    trials = [
        finished(BEST, by_seed([81.0])),
        finished(WORSE, {}, state=TrialState.PRUNED),
        finished(WORSE, {}, state=TrialState.FAIL, error="x"),
    ]
    drawn = draw_search(made(tmp_path, trials, seeds=(0,)))
    assert [path.name for path in drawn] == ["history.pdf", "map.pdf"]
    assert all(path.read_bytes().startswith(b"%PDF") for path in drawn)


def test_best_settings_as_a_file(tmp_path):
    """What it says is what was found, and `tuned=true` can read it."""
    search = made(tmp_path, [finished(BEST, by_seed([81.0, 82.0, 83.5]))], default=by_seed([80.0, 81.0, 82.0]))
    write_results(search, "traindyn tune method=cmd_online")
    first, *_ = (tmp_path / "best.yaml").read_text().splitlines()
    assert first == "# made by traindyn tune method=cmd_online"
    best = read_best(tmp_path / "best.yaml")
    assert best["method"] == "cmd_online"
    assert best["problem"] == "net-data-sgd"
    assert best["parameters"] == BEST
    assert best["val_accuracy"] == {"mean": pytest.approx(246.5 / 3), "by_seed": {0: 81.0, 1: 82.0, 2: 83.5}}
    assert best["default"] == {"parameters": {"modes": 5, "warmup": 3}, "by_seed": {0: 80.0, 1: 81.0, 2: 82.0}}
    assert best["beyond_seed_noise"] is True
    assert "more than seed noise" in best["sentence"]
    assert (best["seeds"], best["epochs"], best["budget"], best["trials"]) == ([0, 1, 2], 6, "50 trials", 1)
    assert best["space"] == {"modes": "2..9", "warmup": "2..4"}
    frame = pd.read_parquet(tmp_path / "trials.parquet")
    assert list(frame["trial"]) == [-1, 0]


@pytest.mark.parametrize("text", ["", "parameters: {}", "a: [", "parameters: 3\nseeds: [0]\nbudget: 1 trial\n"])
def test_a_file_that_holds_no_best_settings(tmp_path, text):
    path = tmp_path / "best.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        read_best(path)
    assert str(path) in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_figures_of_the_same_trials_are_left_as_they_are(tmp_path, monkeypatch):
    """Importances of many trials take long; another trial, or an image that is gone, has them drawn again."""
    taken = []
    monkeypatch.setattr("harness.tune.figures.importances", lambda search: taken.append(len(search.trials)))
    trials = [finished({"modes": 2 + i, "warmup": 3}, by_seed([80.0 + i])) for i in range(3)]

    def drawn(count):
        return [path.name for path in draw_search(made(tmp_path, trials[:count], seeds=(0,)))]

    first = drawn(2)
    assert drawn(2) == first
    assert taken == [2]
    assert drawn(3) == first
    (tmp_path / made(tmp_path, trials, seeds=(0,)).folder / "figures" / "history.png").unlink()
    assert drawn(3) == first
    assert taken == [2, 3, 3]
