"""What a data set and the norms of a model ask of batches and of methods, checked before anything trains."""

from __future__ import annotations

from harness.config import BaseConfig, DatasetConfig, EvaluateConfig, FederationConfig
from harness.planning.methods import FittedMethod, check_exchange
from harness.planning.model_cost import ModelFacts
from harness.problem.datasets import check_sizes
from harness.problem.partition import partition_facts
from harness.validation import ConfigError


def check_batch_size(data: DatasetConfig, batch_size: int | None, batches: int | None, images: int) -> None:
    """ConfigError where a mini-batch, or so many of them, is more than the images trained on; None is not known, or
    not bounded."""
    if batch_size is None:
        return
    if batch_size > images:
        raise ConfigError(f"batch_size must be at most {images}, the training images of {data.name}, got {batch_size}")
    full = images // batch_size
    if batches is not None and batches > full:
        raise ConfigError(f"batches_per_epoch must be at most {full}, the full batches of {data.name}, got {batches}")


def check_own_batch_size(data: DatasetConfig, method: FittedMethod, images: int) -> None:
    """ConfigError where a method's own mini-batches are larger than the images trained on."""
    if method.batch_size is not None and method.batch_size > images:
        raise ConfigError(
            f"method.{method.name}.batch_size must be at most {images}, the training images of {data.name}, "
            f"got {method.batch_size}"
        )


def check_batches(base: BaseConfig, evaluate: EvaluateConfig, facts: ModelFacts) -> None:
    """ConfigError where a model would be given a single image that it does not take, in training or evaluation."""
    if not facts.one_trains:
        _at_least_two("batch_size", base.batch_size, base, "training")
    if not facts.one_evaluates:
        sizes, key = check_sizes(base.dataset), f"dataset.{base.dataset.name}"
        _at_least_two("evaluate.batch_size", evaluate.batch_size, base, "evaluation")
        _at_least_two(f"{key}.val_size", sizes.val, base, "evaluation")
        _at_least_two(f"{key}.test_size", sizes.test, base, "evaluation")


def check_parts(base: BaseConfig, facts: ModelFacts, data_digest: str) -> None:
    """ConfigError where the images of a base, which are here, are not dealt as asked, or a client has a single one and
    the model takes none."""
    smallest = partition_facts(base, data_digest).smallest
    if smallest < 2 and not facts.one_trains:
        raise ConfigError(
            f"{base.federation.key('clients')} must leave every client 2 images or more for model {base.model.name}, "
            f"which takes no single one in training, got a client with {smallest}"
        )


def suits(federation: FederationConfig, method: FittedMethod) -> bool:
    """Whether a method runs on a base with so many clients, or with none: what only watches runs on both."""
    return method.branch is None or method.federated == (federation.clients > 0)


def check_method(base: BaseConfig, method: FittedMethod, evaluate: EvaluateConfig, facts: ModelFacts) -> None:
    """ConfigError where a method does not run on a base's federation, or on none, its batches are of one image, or it
    asks for a recalibration that is not possible."""
    key, policy, federation = f"method.{method.name}", method.config.batchnorm, base.federation
    if not suits(federation, method) and method.federated:
        raise ConfigError(
            f"{key} must run on a federation, such as federation=iid_10, got federation={federation.name}"
        )
    if not suits(federation, method):
        raise ConfigError(
            f"{key} must run where all images are in one place, since it trains on its own and is no exchange between "
            f"clients, got federation={federation.name}"
        )
    if method.federated:
        check_exchange(base, method.config)
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
