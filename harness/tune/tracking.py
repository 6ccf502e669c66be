"""Trials as W&B runs, all of a search in one group: the study is the truth, and W&B a view that can be given anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any

from harness.config import Settings
from harness.tracking.tracker import RunEnd, RunInfo, WholeRun, readable_id
from harness.tune.results import default_results, state_of
from harness.tune.study import DEFAULT, Result, Search, mean


def group_of(search: Search) -> str:
    """What a search's runs have in common."""
    return f"tune-{search.study.study_name}"


def trial_runs(
    search: Search, settings: Settings, store_id: str, numbers: Collection[int] | None = None
) -> list[WholeRun]:
    """The runs of this folder's trials that have ended: a row with the values of every seed, their mean as the summary.

    Of the trials of these `numbers`, None: of all, the setting without tuning included. What a method refused was
    never tried, and is none of them.
    """
    found = []
    default = default_results(search)
    if default is not None and search.owns(search.study.user_attrs, "default_owner"):
        found.append((DEFAULT, search.default_params, _default_state(default), default))
    for trial in search.trials:
        tried = trial.state.is_finished() and not {"refused", "surplus"} & trial.user_attrs.keys()
        if tried and search.owns(trial.user_attrs):
            found.append((trial.number, trial.params, state_of(trial), search.stored(trial.user_attrs)))
    return [_run(search, settings, store_id, *one) for one in found if numbers is None or one[0] in numbers]


def _default_state(results: dict[int, Result]) -> str:
    return next((r["status"] for r in results.values() if r["status"] != "done"), "complete")


def _run(
    search: Search,
    settings: Settings,
    store_id: str,
    number: int,
    params: dict[str, Any],
    state: str,
    results: dict[int, Result],
) -> WholeRun:
    name = "default" if number == DEFAULT else f"trial-{number}"
    problem = search.problem.bases[0].config
    known = search.study.user_attrs
    # a study that was made anew under the same name has other trials
    digest = _digest(group_of(search), known.get("made_at"), name)
    run_id = f"{digest}-{store_id}"
    if known.get("readable_run_ids"):
        parts = (problem.model.name, problem.dataset.name, search.method.name, name)
        run_id = readable_id(*parts, digest=_digest(digest, store_id))
    info = RunInfo(
        run_id=run_id,
        name=f"{search.problem.label}-{search.method.name}-{name}",
        group=group_of(search),
        job_type="trial",
        tags=[settings.suite, "tune", problem.model.name, problem.dataset.name, search.method.name],
        config={
            "method": search.method.name,
            "problem": search.problem.label,
            "trial": number,
            "parameters": {**search.method.params, **params},
            "searched": params,
            "seeds": search.problem.seeds,
            "sampler": search.config.sampler,
            "budget": search.config.budget,
        },
    )
    row = _row(results)
    summary = {**{name: value for name, value in row.items() if name != "epoch"}, "trial_state": state}
    status = "failed" if state == "failed" else "done"
    end = RunEnd(summary, status=status, digest=_digest(params, row, summary))
    return WholeRun(info, [row] if row else [], end)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _row(results: dict[int, Result]) -> dict[str, Any]:
    """Means over the seeds that were valued, and each seed's own, at the epoch they were valued at."""
    done = {seed: result for seed, result in results.items() if result["status"] == "done"}
    if not done:
        return {}
    metrics = ("accuracy", "loss")
    means = {f"val_{metric}": mean(metric, done.values()) for metric in metrics}
    own = {f"val_{metric}_s{seed}": r[f"val_{metric}"] for seed, r in done.items() for metric in metrics}
    return {"epoch": max(r["epoch"] for r in done.values()), **means, **own}
