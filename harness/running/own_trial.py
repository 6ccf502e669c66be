"""Somebody's own evaluation, tried once before anything runs: a fault of it is bad input, and its numbers are named."""

from __future__ import annotations

import torch

from harness.checkpoints.registry import kept_folder, read_run
from harness.checkpoints.trajectory import AdoptedTrajectory
from harness.config import ConfigError
from harness.planning.adopted import own_metric
from harness.planning.plan import Plan
from harness.training.own_evaluation import NotMeasured, OwnEvaluator


def measured_names(plan: Plan) -> tuple[str, ...]:
    """What a plan's own evaluation measures, from the last snapshot of its first base, which is kept; nothing where the
    harness evaluates. ConfigError where it measures nothing, or not the metric that is asked for."""
    evaluate, base = plan.experiment.evaluate, plan.bases[0]
    if not evaluate.is_own:
        return ()
    run, device = read_run(plan.store, base.key), torch.device(base.config.device)
    trajectory = AdoptedTrajectory(run, device)
    folder = kept_folder(plan.store, base.key)
    evaluator = OwnEvaluator(run, evaluate, plan.store, device, base.evaluation, folder)
    snapshot = trajectory[len(trajectory) - 1]
    try:
        found = evaluator.evaluate(snapshot, None, "as_is", ("val",))
    except NotMeasured as error:
        raise ConfigError(str(error)) from error
    names = tuple(name.removeprefix("val_") for name in found)
    own_metric(evaluate, names)
    return names
