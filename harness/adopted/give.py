"""`traindyn give`: a method's weights as a checkpoint in the format that came in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from harness.adopted.following import Following, fitted
from harness.arguments import GiveArguments
from harness.checkpoints.giving import check_new, file_name, give
from harness.checkpoints.registry import read_name, read_run
from harness.config import ConfigError
from harness.planning.adopted import adopted_seeds
from harness.storage.store import Store
from harness.validation import shown

Say = Callable[[str], None]


def give_weights(
    name: str, given: GiveArguments, values: Mapping[str, Any], folders: Collection[Path], say: Say
) -> Path:
    """Write a method's weights after a snapshot as a new checkpoint, and return its path; ConfigError where the name,
    the method, the seed or the snapshot is none, the path exists, or a source changed. `values`: of the method."""
    store = Store(Path(given.results_dir), say)
    named = read_name(store.root, name)
    seeds = adopted_seeds(named, None if given.seed is None else [given.seed])
    if given.seed is None and len(seeds) > 1:
        raise ConfigError(f"seed must be one of {', '.join(map(str, seeds))} where several were adopted, got null")
    run = read_run(store, named.keys[seeds[0]])
    t = run.epochs if given.t is None else given.t
    if t not in run.ts[run.has_initial :]:
        raise ConfigError(f"t must be a snapshot of 1 to {run.epochs}, got {shown(t)}")
    method = fitted(given.method, run, values, folders)
    to = Path(given.to) / file_name(run, t) if given.to.endswith("/") else Path(given.to)
    check_new(Path(given.to) if given.to.endswith("/") else to)
    following = Following(method, run, torch.device("cpu"))
    proposal = dict(following.proposals([t]))[t]
    snapshot = following.trajectory[following.trajectory.ts.index(t)]
    theta_N = snapshot.theta_N if proposal is None else proposal.theta_N
    if not bool(theta_N.isfinite().all()):
        raise ConfigError(f"method {given.method} must propose finite weights, got some that are not")
    buffers = snapshot.buffers if proposal is None or proposal.buffers is None else proposal.buffers
    made = give(run, t, theta_N, buffers, to, given.dtype)
    source = run.sources[run.ts.index(t)]
    say(f"{given.method} after snapshot {t} ({run.unit} {source.at:g}) of {name}, seed {run.seed}, as {source.kind}")
    if made.taken_back > LEAST:
        kinds = ", ".join(dict.fromkeys(own.dtype.removeprefix("torch.") for own in run.weights))
        say(
            f"rounding to {kinds} took back {100 * made.taken_back:.1f} % of the change to the snapshot's own weights; "
            "dtype=float32 keeps it"
        )
    if made.left_out:
        say(f"left out, as they are no plain values: {', '.join(made.left_out)}")
    if proposal is not None and any("running_var" in own.name for own in run.buffers):
        say("running statistics are the snapshot's own: recalibrate them on training data before use")
    return made.path


LEAST = 1e-4
"""share of a change that goes without saying"""
