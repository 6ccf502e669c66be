"""The search of a base's learning rate, over frames made by hand, and through the command on digits."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from command import here

from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.results.frame import load_frame
from harness.tune.rates import search_rates
from harness.validation import ConfigError

GIVEN = ("method=base", "dataset=digits", "seeds=[100,101]", "fast=false", "tracker=none")


def experiment(*overrides):
    return resolve(Request((*GIVEN, *overrides)), "a test")


def runs(loss):
    """A run whose validation loss is a function of the rate and the seed, and the rates that it was asked for."""
    asked = []

    def run(wanted):
        asked.append([base.optimizer.params["lr"] for base, _ in wanted.bases])
        lines = [
            {
                "model": base.model.name, "dataset": base.dataset.name, "optimizer": base.optimizer.name,
                "method": method.name, "seed": base.seed, "val_accuracy": 50.0,
                "val_loss": loss(base.optimizer.params["lr"], base.seed),
            }
            for base, methods in wanted.bases
            for method in methods
        ]  # fmt: skip
        return pd.DataFrame(lines)

    return run, asked


def best(table):
    (rate,) = table.loc[table["best"], "lr"]
    return rate


def test_the_best_rate_inside_the_grid_ends_the_search():
    run, asked = runs(lambda rate, seed: abs(np.log2(rate / 0.1)) + (seed - 100) * 0.5)
    (table,) = search_rates(experiment("optimizer=sgd_momentum_cosine"), run, lambda line: None)
    assert best(table) == 0.1
    assert len(asked) == 1
    assert sorted(set(asked[0])) == [0.025, 0.05, 0.1, 0.2, 0.4]
    assert table.set_index("lr").loc[0.1, ["val_loss", "val_loss_std"]].tolist() == pytest.approx([0.25, 0.5 / 2**0.5])


@pytest.mark.parametrize(("optimum", "added"), [(1.6, [0.8, 1.6, 3.2]), (0.0125, [0.0125, 0.00625])])
def test_a_grid_grows_by_its_factor_while_the_best_is_at_its_end(optimum, added):
    run, asked = runs(lambda rate, _: abs(np.log2(rate / optimum)))
    said = []
    (table,) = search_rates(experiment("optimizer=sgd_momentum_cosine"), run, said.append)
    assert best(table) == optimum
    assert sorted(set(asked[-1]) - set(asked[0])) == pytest.approx(sorted(added))
    assert len(said) == len(added)


def test_a_rate_with_which_a_seed_diverged_is_not_chosen():
    run, _ = runs(lambda rate, seed: np.nan if rate == 0.2 and seed == 101 else -rate if rate < 0.4 else 0.0)
    (table,) = search_rates(experiment("optimizer=sgd_momentum_cosine"), run, lambda line: None)
    assert best(table) == 0.1
    assert table.set_index("lr").loc[0.2, "val_loss"] == np.inf


def test_a_preset_without_a_grid_is_refused():
    asked = experiment("optimizer=sgd_momentum_cosine", "optimizer.sgd_momentum_cosine.rates=null")
    with pytest.raises(ConfigError, match=r"optimizer\.sgd_momentum_cosine\.rates must be a list of at least 2 rates"):
        search_rates(asked, lambda _: SimpleNamespace(), lambda line: None)


def test_the_command_trains_a_base_for_every_rate_and_writes_the_best(tmp_path):
    given = ("tune", "method=base", "suite=smoke", "fast=true", "tracker=none", "seeds=[100]")
    rates = "optimizer.sgd_momentum.rates=[1e-4,1e-3,0.05,0.5,50]"
    done = here(*given, rates, results=tmp_path / "results")
    frame = load_frame(tmp_path / "results", "smoke-fast-rates")
    folder = tmp_path / "results/tuning/smoke/base"
    table, chosen = pd.read_csv(folder / "rates.csv"), yaml.safe_load((folder / "rates.yaml").read_text())
    assert set(frame["method"]) == {"base_recalibrated"}
    losses = frame.set_index("optimizer")["val_loss"]
    assert chosen["best"][0]["val_loss"] == pytest.approx(losses.min())
    assert losses[f"sgd_momentum-lr{chosen['best'][0]['lr']:g}"] == losses.min()
    assert table["best"].sum() == 1
    assert "best" in done.stdout
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results/cells").glob("*/record.json")}
    assert here(*given, rates, results=tmp_path / "results").stdout.count("best") >= 1
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "results/cells").glob("*/record.json")}
