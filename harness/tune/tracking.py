"""Trials as W&B runs, all of a search in one group, each made when its trial ends: the study is the truth, and W&B a
view of it."""

from __future__ import annotations

import hashlib
from typing import Any

from harness.config import Settings
from harness.tracking import RunEnd, RunInfo, Tracker
from harness.tune.study import DEFAULT, Candidate, Search, mean


def track(search: Search, candidate: Candidate, settings: Settings, store_id: str, tracker: Tracker) -> None:
    """The run of a candidate that has ended: a row per seed, and the mean as its summary."""
    name = "default" if candidate.number == DEFAULT else f"trial-{candidate.number}"
    group = f"tune-{search.study.study_name}"
    digest = hashlib.sha256(f"{group}/{name}".encode()).hexdigest()[:12]
    problem = search.problem.bases[0].config
    info = RunInfo(
        run_id=f"{digest}-{store_id}",
        name=f"{search.problem.label}-{search.method.name}-{name}",
        group=group,
        job_type="trial",
        tags=[settings.suite, "tune", problem.model.name, problem.dataset.name, search.method.name],
        config={
            "method": search.method.name,
            "problem": search.problem.label,
            "trial": candidate.number,
            "parameters": {**search.method.params, **candidate.params},
            "searched": candidate.params,
            "seeds": search.problem.seeds,
            "sampler": search.config.sampler,
            "budget": search.config.budget,
        },
    )
    row = _row(candidate)
    summary = {name: value for name, value in row.items() if name != "epoch"}
    status = "failed" if candidate.failure else "done"
    tracker.record(info, [row] if row else [], RunEnd({**summary, "trial_state": _state(candidate)}, status=status))


def _row(candidate: Candidate) -> dict[str, Any]:
    """Means over the seeds that were valued, and each seed's own, at the epoch they were valued at."""
    done = {seed: result for seed, result in candidate.results.items() if result["status"] == "done"}
    if not done:
        return {}
    metrics = ("accuracy", "loss")
    means = {f"val_{metric}": mean(metric, done.values()) for metric in metrics}
    own = {f"val_{metric}_s{seed}": r[f"val_{metric}"] for seed, r in done.items() for metric in metrics}
    return {"epoch": max(r["epoch"] for r in done.values()), **means, **own}


def _state(candidate: Candidate) -> str:
    if candidate.failure is not None:
        return "failed"
    if candidate.pruned:
        return "pruned"
    return "diverged" if candidate.over else "complete"
