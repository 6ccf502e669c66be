"""How long the rest of a plan will take on this machine, and what says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.config import BaseConfig, FlowerConfig, RayConfig, SlurmConfig
from harness.planning.estimate import epochs_to_train
from harness.planning.flops import evaluated_images, images_per_epoch
from harness.planning.plan import BasePlan, Plan
from harness.planning.slots import local_slots
from harness.planning.speed import TRAINED, Speed, recorded_speeds, speed


class Paced(NamedTuple):
    """What has a pace of its own: epochs of a model on a data set, of bases with their cells or of branches."""

    model: str
    data: str
    branch: bool


@dataclass(frozen=True)
class Duration:
    """What is left will take so long."""

    seconds: float | None
    """None where nothing is known of some model here"""
    why: str
    """what says so, or why nothing does"""
    per_epoch: Mapping[Paced, float] = field(default_factory=dict)
    """seconds of an epoch, as far as they are known"""

    @property
    def text(self) -> str:
        """`about 7 min on this machine`, or that it is unknown."""
        return "unknown" if self.seconds is None else f"about {roughly(self.seconds)} on this machine"


def roughly(seconds: float) -> str:
    """`5 s`, `7 min`, `3 h` or `9 days`: as exact as an estimate is."""
    if seconds < 55:
        return f"{max(5 * round(seconds / 5), 5)} s"
    if seconds < 90 * 60:
        return f"{max(round(seconds / 60), 1)} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.2g} h" if seconds < 10 * 3600 else f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"


def paced(config: BaseConfig, branch: bool) -> Paced:
    """What a base, or a branch of it, has its pace from."""
    return Paced(config.model.name, config.data, branch)


def duration(plan: Plan) -> Duration:
    """The time of what is left: jobs share the slots of this machine, and none is shorter than its longest base."""
    engine = plan.experiment.settings.engine
    open_cells = {base.key: [cell for cell in base.cells if plan.statuses[cell.key] == "left"] for base in plan.bases}
    bases = [base for base in plan.bases if open_cells[base.key]]
    if not bases:
        return Duration(0.0, "nothing is left to do")
    if all(base.is_adopted for base in bases):
        return Duration(None, "how long is known after the first snapshots: nothing is trained, and all is evaluated")
    if isinstance(engine, SlurmConfig | RayConfig | FlowerConfig):
        return Duration(
            None, f"how long is known after the first batches: jobs run where engine={engine.name} has them"
        )
    recorded = recorded_speeds(plan.store.root, engine.threads)
    speeds: dict[str, Speed] = {}
    unknown: list[str] = []
    for base in bases:
        known = speed(base.config, engine.threads, recorded)
        if known is None:
            unknown.append(base.config.model.name)
        else:
            speeds[base.key] = known
    chains = {base.key: _seconds(plan, base, speeds[base.key]) for base in bases if base.key in speeds}
    per_epoch = {
        paced(base.config, branch): _epoch(plan, base, speeds[base.key], branch)
        for base in bases
        if base.key in speeds
        for branch in (False, True)
    }
    if unknown:
        return Duration(
            None,
            f"how long is known after the first batches: nothing like {_listed(unknown)} is recorded here",
            per_epoch,
        )
    slots = local_slots(engine, plan.bases[0].config.device)
    at_once = min(slots, len(bases))
    jobs = f"{at_once} jobs at once" if at_once > 1 else "one job at a time"
    total = max(sum(chains.values()) / slots, *chains.values())
    return Duration(total, f"time: {_sources(bases, speeds)}; {jobs}", per_epoch)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _sources(bases: Iterable[BasePlan], speeds: Mapping[str, Speed]) -> str:
    """Where the speeds come from."""
    recorded = {base.config.model.name: speeds[base.key].recorded for base in bases if speeds[base.key].recorded}
    probed = [base.config.model.name for base in bases if not speeds[base.key].recorded]
    parts = []
    if recorded:
        parts.append(f"as recorded here for {_listed(recorded)}")
    if probed:
        parts.append(f"from training steps of {_listed(probed)} measured here, what methods compute aside")
    return ", ".join(parts)


def _evaluation(plan: Plan, base: BasePlan, known: Speed, branches: bool) -> float:
    """Seconds of evaluating the open branches of a base, or its other open cells."""
    cells = [cell for cell in base.cells if plan.statuses[cell.key] == "left" and (cell.branch is not None) == branches]
    return sum(evaluated_images(plan, base, cell) for cell in cells) * known.trained_image / TRAINED


def _seconds(plan: Plan, base: BasePlan, known: Speed) -> float:
    """Of a base's open cells, one job after the other."""
    left = [cell for cell in base.cells if plan.statuses[cell.key] == "left"]
    epochs, images = epochs_to_train(plan, base, left), images_per_epoch(base.config)
    trained = sum(epochs) * images * known.trained_image
    alone = _evaluation(plan, base, known, branches=True)
    if known.rest_of_epoch is None or epochs.base == 0:
        return trained + alone + _evaluation(plan, base, known, branches=False)
    return trained + alone + epochs.base * known.rest_of_epoch


def _epoch(plan: Plan, base: BasePlan, known: Speed, branch: bool) -> float:
    """Seconds of an epoch of a base's training with the cells that watch it, or of one of its branches."""
    cells = [cell for cell in base.cells if plan.statuses[cell.key] == "left"]
    epochs = sum(cell.branch.epochs for cell in cells if cell.branch is not None) if branch else base.config.epochs
    rest = None if branch else known.rest_of_epoch
    if rest is None:
        rest = _evaluation(plan, base, known, branches=branch) / max(epochs, 1)
    return images_per_epoch(base.config) * known.trained_image + rest
