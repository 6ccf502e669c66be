"""What the norms of a model ask of its batches and of methods, checked before anything trains."""

from __future__ import annotations

from harness.config import BaseConfig, EvaluateConfig
from harness.planning.methods import FittedMethod
from harness.planning.model_cost import ModelFacts
from harness.problem.datasets import check_sizes
from harness.validation import ConfigError


def check_batches(base: BaseConfig, evaluate: EvaluateConfig, facts: ModelFacts) -> None:
    """ConfigError where a model would be given a single image that it does not take, in training or evaluation."""
    if not facts.one_trains:
        _at_least_two("batch_size", base.batch_size, base, "training")
    if not facts.one_evaluates:
        sizes, key = check_sizes(base.dataset), f"dataset.{base.dataset.name}"
        _at_least_two("evaluate.batch_size", evaluate.batch_size, base, "evaluation")
        _at_least_two(f"{key}.val_size", sizes.val, base, "evaluation")
        _at_least_two(f"{key}.test_size", sizes.test, base, "evaluation")


def check_method(base: BaseConfig, method: FittedMethod, evaluate: EvaluateConfig, facts: ModelFacts) -> None:
    """ConfigError where a method's batches are of one image, or it asks for a recalibration that is not possible."""
    key, policy = f"method.{method.name}", method.config.batchnorm
    if not facts.one_trains and method.batch_size is not None:
        _at_least_two(f"{key}.batch_size", method.batch_size, base, "training")
    if policy == "as_is":
        return
    if facts.not_recalibrated is not None:
        raise ConfigError(
            f"{key}.batchnorm must be as_is for model {base.model.name}, as training changes buffers of "
            f"{facts.not_recalibrated}, which cannot be recalibrated, got {policy}"
        )
    if facts.running_stats and not facts.one_trains:
        _at_least_two("evaluate.recalibrate_images", evaluate.recalibrate_images, base, "training")


def _at_least_two(key: str, value: int, base: BaseConfig, mode: str) -> None:
    if value == 1:
        images = f"images of {base.dataset.image_size}x{base.dataset.image_size}"
        raise ConfigError(
            f"{key} must be at least 2 for model {base.model.name}, which takes no single one of {images} in {mode}, "
            "got 1"
        )
