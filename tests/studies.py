"""Searches made by hand: their trials are what a test says, and no job stands behind them."""

from pathlib import Path
from types import SimpleNamespace

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from harness.config import TuneConfig
from harness.planning.methods import method_config
from harness.tune.space import Space
from harness.tune.study import Problem, Search

CMD = {"_target_": "baselines.cmd_online.CMDOnline", "modes": 5, "samples": 500, "warmup": 3}
SPACE = Space({"modes": IntDistribution(2, 9), "warmup": IntDistribution(2, 4)})


def result(accuracy, loss=1.0, status="done", reason=None):
    """What a setting came to on one seed."""
    value = {"status": status, "reason": reason, "traceback": None, "epoch": 6, "seconds": 0.5}
    return {**value, "val_accuracy": accuracy, "val_loss": loss}


def by_seed(accuracies, losses=None):
    """Results of seeds 0, 1, ... from their values."""
    losses = losses or [1.0] * len(accuracies)
    return {seed: result(*values) for seed, values in enumerate(zip(accuracies, losses, strict=True))}


def finished(params, results, metric="accuracy", state=TrialState.COMPLETE, space=SPACE, **attrs):
    """A trial that has ended with these results."""
    values = [r[f"val_{metric}"] for r in results.values()]
    return create_trial(
        state=state,
        params=params,
        distributions=space.distributions,
        value=sum(values) / len(values) if state == TrialState.COMPLETE else None,
        user_attrs={**{f"seed {seed}": r for seed, r in results.items()}, **attrs},
    )


def made(folder, ended=(), default=None, seeds=(0, 1, 2), space=SPACE, **config):
    """A search of online CMD's M and F on bases of 6 epochs with the trials `ended`; `default` as from `by_seed`."""
    config = TuneConfig(**{"trials": 50, **config})
    direction = "maximize" if config.metric == "accuracy" else "minimize"
    study = optuna.create_study(study_name="a-suite/cmd_online/net-data-sgd", direction=direction)
    study.add_trials(list(ended))
    if default is not None:
        study.set_user_attr("default", {str(seed): r for seed, r in default.items()})
    named = {kind: SimpleNamespace(name=name) for kind, name in zip(NAMES, ("net", "data", "sgd"), strict=True)}
    configs = [SimpleNamespace(seed=seed, epochs=6, label=f"net-data-sgd-s{seed}", **named) for seed in seeds]
    bases = tuple(SimpleNamespace(key=f"{folder}/{config.label}", config=config) for config in configs)
    method, problem = method_config("cmd_online", CMD), Problem("net-data-sgd", bases)
    return Search(method, problem, space, config, None, Path(folder), study, study._storage, True, True)


NAMES = ("model", "dataset", "optimizer")
