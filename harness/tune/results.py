"""What a search came to: its trials as a table, the best settings, and whether these differ from the default by more
than seed noise."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from harness.config import MethodConfig
from harness.planning.experiment import Experiment
from harness.planning.tuned import write_best
from harness.storage.files import write_bytes
from harness.tune.storage import quiet
from harness.tune.study import DEFAULT, Problem, Result, Search, counts, retry_of

RESAMPLES = 20
LEAST_RESAMPLES = 5
FULL = 200
"""the most trials of which all resamples are taken"""
TREES = 32
"""of the forest that fANOVA takes apart"""
LEAST_TRIALS = 10
"""complete and different ones, below which importances are not given"""
LEVEL = 0.95
"""of the interval of a difference"""


def state_of(trial: FrozenTrial) -> str:
    """complete, pruned, diverged, refused, failed, running or waiting."""
    for name in ("refused", "diverged"):
        if name in trial.user_attrs:
            return name
    return "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()


def trials_frame(search: Search) -> pd.DataFrame:
    """One row per trial, the setting without tuning first as trial -1.

    Columns: trial, state, counts, val_accuracy and val_loss (means over seeds), their standard deviations, seconds,
    params_<name>, <metric>_s<seed>, retry_of, same_as, error, started, ended (local time).
    """
    rows = [_default_row(search), *(_row(search, trial) for trial in search.trials)]
    return pd.DataFrame([row for row in rows if row is not None])


def _numbers(results: Mapping[int, Result], seeds: list[int], whole: bool) -> dict[str, Any]:
    """Means over all seeds where the trial has them all, and the values of each."""
    row: dict[str, Any] = {}
    for metric in ("val_accuracy", "val_loss"):
        values = [results[seed][metric] if seed in results else None for seed in seeds]
        known = [float(value) for value in values if value is not None]
        complete = whole and len(known) == len(seeds)
        row[metric] = sum(known) / len(known) if complete else math.nan
        row[f"{metric}_std"] = float(np.std(known, ddof=1)) if complete and len(known) > 1 else math.nan
        row |= {
            f"{metric}_s{seed}": math.nan if value is None else float(value)
            for seed, value in zip(seeds, values, strict=True)
        }
    return row


def _default_row(search: Search) -> dict[str, Any] | None:
    results = default_results(search)
    if results is None:
        return None
    good = all(result["status"] == "done" for result in results.values())
    return {
        "trial": DEFAULT,
        "state": "default",
        "counts": False,
        **_numbers(results, search.problem.seeds, good),
        "seconds": sum(result["seconds"] for result in results.values()),
        **{f"params_{name}": value for name, value in search.default_params.items()},
        "retry_of": None,
        "same_as": None,
        "error": next((result["reason"] for result in results.values() if result["status"] != "done"), None),
        "started": None,
        "ended": None,
    }


def _row(search: Search, trial: FrozenTrial) -> dict[str, Any]:
    attrs = trial.user_attrs
    results = {seed: attrs[f"seed {seed}"] for seed in search.problem.seeds if f"seed {seed}" in attrs}
    lost = "its process was lost" if trial.state == TrialState.FAIL else None
    return {
        "trial": trial.number,
        "state": state_of(trial),
        "counts": counts(trial),
        **_numbers(results, search.problem.seeds, trial.state == TrialState.COMPLETE),
        "seconds": attrs.get("seconds", 0.0),
        **{f"params_{name}": trial.params.get(name) for name in search.space.distributions},
        "retry_of": retry_of(trial),
        "same_as": attrs.get("same_as"),
        "error": attrs.get("error") or attrs.get("refused") or attrs.get("diverged") or lost,
        "started": _time(trial.datetime_start),
        "ended": _time(trial.datetime_complete),
    }


def _time(moment: datetime | None) -> pd.Timestamp | None:
    return None if moment is None else pd.Timestamp(moment)


def default_results(search: Search) -> dict[int, Result] | None:
    """Of the setting without tuning, by seed, once it is valued."""
    return None if search.default is None else {int(seed): result for seed, result in search.default.items()}


@dataclass(frozen=True)
class Outcome:
    """The best setting of a search beside the setting without tuning; `values` are by seed."""

    number: int
    """of the trial; -1 where nothing was better than the setting without tuning"""
    params: dict[str, Any]
    values: dict[int, float]
    default: dict[int, float] | None
    """None where the setting without tuning could not be valued"""
    trials: int
    """that count"""

    @property
    def differences(self) -> np.ndarray[Any, Any]:
        """Best less default, seed by seed."""
        default = self.default or {}
        return np.array([self.values[seed] - default[seed] for seed in self.values if seed in default])

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the mean difference, by Student's t over seeds; None for fewer than two seeds."""
        d = self.differences
        if len(d) < 2:
            return None
        half = stats.t.ppf((1 + LEVEL) / 2, len(d) - 1) * d.std(ddof=1) / math.sqrt(len(d))
        return float(d.mean() - half), float(d.mean() + half)

    @property
    def beyond_noise(self) -> bool | None:
        """Whether the best differs from the default by more than seed noise; None where that cannot be said."""
        if self.number == DEFAULT:
            return False
        bounds = self.interval
        return None if bounds is None else bool(bounds[0] > 0 or bounds[1] < 0)


def outcome(search: Search) -> Outcome | None:
    """The best of the trials so far and of the default; None where nothing was valued."""
    key, seeds = f"val_{search.config.metric}", search.problem.seeds
    found: list[tuple[int, dict[str, Any], dict[int, float]]] = []
    results = default_results(search)
    default = None
    if results is not None and all(result["status"] == "done" for result in results.values()):
        default = {seed: float(results[seed][key]) for seed in seeds}
        found.append((DEFAULT, search.default_params, default))
    for trial in search.trials:
        if trial.state == TrialState.COMPLETE:
            values = {seed: float(trial.user_attrs[f"seed {seed}"][key]) for seed in seeds}
            found.append((trial.number, dict(trial.params), values))
    if not found:
        return None
    sign = 1 if search.config.metric == "accuracy" else -1
    number, params, values = max(found, key=lambda one: sign * sum(one[2].values()))  # the first where several are
    return Outcome(number, params, values, default, sum(map(counts, search.trials)))


def spread_text(values: Mapping[int, float], metric: str) -> str:
    """`85.10 ± 0.60 %`: mean and standard deviation over seeds."""
    known = list(values.values())
    digits, unit = (2, " %") if metric == "accuracy" else (4, "")
    spread = f" ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{np.mean(known):.{digits}f}{spread}{unit}"


def sentence(search: Search, found: Outcome) -> str:
    """Whether the best differs from the default by more than seed noise, and how far that goes."""
    metric, seeds = search.config.metric, len(search.problem.seeds)
    of = f"validation {metric} {spread_text(found.values, metric)}"
    if found.number == DEFAULT:
        return f"No trial of {found.trials} is better than the default of {search.label}, {of}."
    settings = ", ".join(f"{name} {_short(value)}" for name, value in found.params.items())
    head = f"Best of {found.trials} trials of {search.label}: {settings}; {of}"
    if found.default is None:
        return f"{head}; the default could not be valued."
    gain = float(found.differences.mean())
    digits = 2 if metric == "accuracy" else 4
    versus = f"{head}, the default's {spread_text(found.default, metric)}: {gain:+.{digits}f}"
    bounds = found.interval
    if bounds is None:
        return f"{versus}, on one seed, which cannot tell this from seed noise."
    verdict = "more than seed noise" if found.beyond_noise else "not more than seed noise"
    return (
        f"{versus}, {verdict} (paired over {seeds} seeds, {LEVEL:.0%} interval {bounds[0]:+.{digits}f} to "
        f"{bounds[1]:+.{digits}f}), on the seeds it was chosen on, which favours it; tuned=true runs it on fresh ones."
    )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def importances(search: Search) -> pd.DataFrame | None:
    """How much of the variance over the space each parameter accounts for, alone: fANOVA (Hutter et al., ICML 2014).

    Columns: parameter, importance, low, high, resamples: the middle and the central 90 % of so many bootstrap
    resamples of the trials, RESAMPLES of up to FULL trials and fewer of more, since each takes longer. What is
    missing to 1 is due to parameters together. None where the trials are too few or all alike, or where one
    parameter is searched.
    """
    trials = [t for t in search.trials if t.state == TrialState.COMPLETE and "same_as" not in t.user_attrs]
    values = {t.value for t in trials}
    if len(trials) < LEAST_TRIALS or len(values) < 2 or len(search.space.distributions) < 2:
        return None
    draw = np.random.default_rng(search.config.seed)
    rows = []
    resamples = RESAMPLES if len(trials) <= FULL else max(LEAST_RESAMPLES, RESAMPLES * FULL // len(trials))
    for resample in range(resamples):
        chosen = [trials[i] for i in draw.integers(len(trials), size=len(trials))]
        if len({t.value for t in chosen}) > 1:
            rows.append(_fanova(chosen, list(search.space.distributions), resample))
    shares = pd.DataFrame(rows)
    frame = pd.DataFrame(
        {
            "parameter": shares.columns,
            "importance": shares.median().to_numpy(),
            "low": shares.quantile(0.05).to_numpy(),
            "high": shares.quantile(0.95).to_numpy(),
            "resamples": len(shares),
        }
    )
    return frame.sort_values("importance", ascending=False, ignore_index=True)


def _fanova(trials: list[FrozenTrial], names: list[str], seed: int) -> dict[str, float]:
    """Importances from these trials, some of which may stand there several times."""
    with quiet():
        study = optuna.create_study()
        study.add_trials(trials)
        evaluator = FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
        found = get_param_importances(study, evaluator=evaluator, params=names, normalize=False)
    return {name: float(found[name]) for name in names}


def write_results(search: Search, command: str) -> Outcome | None:
    """trials.parquet and best.yaml of what is known so far."""
    buffer = io.BytesIO()
    trials_frame(search).to_parquet(buffer, index=False)
    write_bytes(search.folder / "trials.parquet", buffer.getvalue())
    found = outcome(search)
    if found is not None:
        write_best(search.folder / "best.yaml", best_values(search, found), f"made by {command}")
    return found


def write_unsearched(folder: Path, method: MethodConfig, problem: Problem, experiment: Experiment) -> None:
    """best.yaml of a method of whose space nothing fits: its setting without tuning, within the same budget."""
    best = {
        "method": method.name,
        "problem": problem.label,
        "parameters": {},
        "sentence": f"Nothing of the search space of {method.name} fits {problem.epochs} epochs: it keeps its default.",
        "seeds": problem.seeds,
        "epochs": problem.epochs,
        "budget": experiment.tune.budget,
    }
    write_best(folder / "best.yaml", best, f"made by {experiment.command}")


def best_values(search: Search, found: Outcome) -> dict[str, Any]:
    """best.yaml's content; what `tuned=true` reads are parameters, seeds, epochs and budget."""
    metric = search.config.metric
    versus: dict[str, Any] = {"beyond_seed_noise": found.beyond_noise, "sentence": sentence(search, found)}
    return {
        "method": search.method.name,
        "problem": search.problem.label,
        "parameters": found.params,
        "trial": found.number,
        f"val_{metric}": {"mean": float(np.mean(list(found.values.values()))), "by_seed": found.values},
        "default": {"parameters": search.default_params, "by_seed": found.default},
        **versus,
        "seeds": search.problem.seeds,
        "epochs": search.problem.epochs,
        "budget": search.config.budget,
        "trials": found.trials,
        "sampler": search.config.sampler,
        "space": search.space.plain(),
    }
