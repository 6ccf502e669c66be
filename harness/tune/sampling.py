"""Samplers and pruners by name.

A sampler is made anew for every trial, from the study's seed and the trial's number: what it suggests follows from
these and the trials before, so a study that was killed goes on as if it had not been.
"""

from __future__ import annotations

import json
import random
import warnings
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from harness.config import TuneConfig
from harness.randomness import derive
from harness.tune.space import Space


def make_sampler(config: TuneConfig, number: int, who: str = "", at_random: bool = False) -> BaseSampler:
    """The sampler for the trial of this number; a grid's points are enqueued, so that its sampler chooses nothing.

    `who` tells coordinators of one study apart. `at_random`: not where the model of GP would have it.
    """
    seed = derive(config.seed, f"tune/{who}", number) % (1 << 32)  # of as many bits as samplers take
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if config.sampler == "tpe":
            return TPESampler(seed=seed)
        if config.sampler == "qmc":  # one sequence, whose place the storage keeps
            independent = RandomSampler(seed=seed)
            return QMCSampler(scramble=True, seed=config.seed, independent_sampler=independent)
        if config.sampler == "gp" and not at_random:
            return GPSampler(seed=seed, deterministic_objective=True)
    return RandomSampler(seed=seed)


def make_pruner(config: TuneConfig, steps: int) -> BasePruner:
    """The pruner over `steps` looks at a trial."""
    if config.pruner == "median":
        return MedianPruner(n_startup_trials=5)
    if config.pruner == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=steps, reduction_factor=3)
    return NopPruner()


def next_grid_point(config: TuneConfig, space: Space, trials: list[FrozenTrial]) -> dict[str, Any] | None:
    """A point of the grid, in seeded order, that no trial has; None where there is none left."""
    points = space.grid(config.trials)
    random.Random(config.seed).shuffle(points)
    seen = {setting(trial.params) for trial in trials}
    return next((point for point in points if setting(point) not in seen), None)


def setting(params: dict[str, Any]) -> str:
    """A setting as text that equal settings share."""
    return json.dumps(params, sort_keys=True)
