"""What the rest of a plan asks of a device: floating-point operations, and hours at a rate that is said."""

from __future__ import annotations

from dataclasses import dataclass

from harness.config import BaseConfig
from harness.planning.estimate import epochs_to_train
from harness.planning.model_cost import image_cost
from harness.planning.plan import BasePlan, CellPlan, Plan
from harness.planning.speed import TRAINED
from harness.problem.datasets import check_sizes

ASSUMED_RATE = 10e12
"""operations per second of one GPU in float32, assumed where nothing is recorded"""


@dataclass(frozen=True)
class Work:
    """What is left of a plan, and the rate at which it may go."""

    training: float
    """operations"""
    evaluation: float
    rate: float
    """operations per second of one job"""
    recorded_bases: int
    """bases whose recorded seconds give the rate; 0: it is assumed"""
    device: str
    activation_bytes: int
    """of the largest training batch"""
    activation_model: str
    deterministic_gpu: bool

    @property
    def hours(self) -> float:
        """Of one job after the other."""
        return (self.training + self.evaluation) / self.rate / 3600

    def sentences(self) -> list[str]:
        """For a person, one line each; none where nothing is left."""
        if self.training + self.evaluation == 0:
            return []
        rate = f"{self.rate / 1e12:.3g} TFLOP/s"
        unit, basis = "GPU" if self.device == "cuda" else "CPU job", ""
        if self.recorded_bases > 0 or self.device == "cuda":
            recorded = f"which {self.recorded_bases} bases of this plan reached here"
            assumed = "a rate that is assumed: no base of this plan is recorded here"
            basis = f": {self.hours:.3g} {unit}-hours at {rate}, {recorded if self.recorded_bases else assumed}"
        lines = [
            f"work: {self.training:.2g} operations in training and {self.evaluation:.2g} in evaluation, counted layer "
            f"by layer, line searches and the methods' own arithmetic aside{basis}",
            f"activations of a training batch: up to {self.activation_bytes / 1e9:.2g} GB in float32 "
            f"({self.activation_model})",
        ]
        if self.deterministic_gpu:
            lines.append(
                "deterministic=true costs speed on a GPU, as benchmarks/train_overhead.py --device=cuda shows; "
                "deterministic=false is another run, with keys of its own"
            )
        return lines


def images_per_epoch(config: BaseConfig) -> int:
    """Images that a base trains on in an epoch; in a round of a federation, as if all clients had alike."""
    federation = config.federation
    if federation.clients > 0:
        own = max(check_sizes(config.dataset).train // federation.clients, 1)
        steps = own // (size := min(config.batch_size, own))
        most = steps if config.batches_per_epoch is None else min(steps, config.batches_per_epoch)
        return federation.taking_part * federation.local_epochs * most * size
    images = config.batch_size * (check_sizes(config.dataset).train // config.batch_size)
    return images if config.batches_per_epoch is None else min(images, config.batch_size * config.batches_per_epoch)


def evaluated_images(plan: Plan, base: BasePlan, cell: CellPlan) -> int:
    """Images of validation, test and recalibration that a cell takes to evaluate."""
    evaluate, sizes = plan.experiment.evaluate, check_sizes(base.config.dataset)
    first = 0 if cell.branch is None else cell.branch.prefix
    last = base.config.epochs if cell.branch is None else first + cell.branch.epochs
    times = sum(t > first for t in evaluate.epochs(last))
    if cell.kind == "reconstruction" and evaluate.reconstructions == "last":
        times = 1
    recalibrated = min(evaluate.recalibrate_images, sizes.train) if cell.method.batchnorm == "recalibrate" else 0
    tests = times if evaluate.test == "every" else 1
    return times * (sizes.val + recalibrated) + tests * sizes.test


def work_left(plan: Plan) -> Work:
    """The work of a plan's open cells; the rate is that of the plan's own recorded bases where there are any."""
    training = evaluation = done_operations = done_seconds = 0.0
    largest, largest_model, recorded = 0, "", 0
    for base in plan.bases:
        if base.is_adopted:  # nothing of it is trained, and who evaluates it knows what that takes
            continue
        config = base.config
        cost = image_cost(config.model, config.dataset)
        images = images_per_epoch(config)
        left = [cell for cell in base.cells if plan.statuses[cell.key] == "left"]
        training += TRAINED * cost.operations * images * sum(epochs_to_train(plan, base, left))
        evaluation += cost.operations * sum(evaluated_images(plan, base, cell) for cell in left)
        known = plan.base_records[base.key]
        if known is not None and known["status"] == "done" and known["seconds"].get("train", 0.0) > 0:
            recorded += 1
            done_operations += TRAINED * cost.operations * known["counts"]["gradients_full"]
            done_seconds += known["seconds"]["train"]
        if left and config.batch_size * cost.activation_bytes > largest:
            largest, largest_model = config.batch_size * cost.activation_bytes, config.model.name
    device = plan.bases[0].config.device
    return Work(
        training=training,
        evaluation=evaluation,
        rate=done_operations / done_seconds if recorded else ASSUMED_RATE,
        recorded_bases=recorded,
        device=device,
        activation_bytes=largest,
        activation_model=largest_model,
        deterministic_gpu=device == "cuda" and any(base.config.deterministic for base in plan.bases),
    )
