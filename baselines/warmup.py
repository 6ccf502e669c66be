"""The warm-up that methods are fitted to, snapshots 1..F + 1 of the base for F = `warmup`, and what may follow it."""

from __future__ import annotations

from typing import Literal, get_args

from baselines.parameters import check_choice, check_share, check_whole
from harness.method import Branch

PercentOf = Literal["all", "remaining"]


def check_warmup(warmup: int) -> None:
    """ValueError unless the warm-up has at least 3 snapshots: among fewer every correlation is 1."""
    check_whole("warmup", warmup, 2)


def check_windows(every: int, percent: float, percent_of: str) -> None:
    """ValueError unless windows close every 1 or more epochs and stop training a share of the weights each."""
    check_whole("every", every, 1)
    check_share("percent", percent, 100)
    check_choice("percent_of", percent_of, get_args(PercentOf))


def warmup_snapshots(warmup: int, epochs: int) -> tuple[int, int]:
    """First and last t of the warm-up; ValueError where the base has too few epochs."""
    if warmup >= epochs:
        raise ValueError(f"warmup must be below epochs = {epochs}, got {warmup}")
    return 1, warmup + 1


def branch_after_warmup(warmup: int, epochs: int, every: int | None = None) -> Branch:
    """The branch from the base's state after epoch F + 1 to its last epoch.

    `every`: windows close at the epochs that it divides. ValueError where nothing is left to train, or no window
    closes before the last epoch: at its end nothing would be trained any more.
    """
    if warmup >= epochs - 1:
        raise ValueError(f"warmup must be below epochs - 1 = {epochs - 1}, got {warmup}")
    prefix = warmup + 1
    if every is not None and (epochs - 1) // every == prefix // every:
        raise ValueError(
            f"every must divide an epoch after warmup + 1 = {prefix} and before the last, {epochs}, "
            f"so that an epoch is trained after a window, got {every}"
        )
    return Branch(start=prefix, prefix=prefix, epochs=epochs - prefix)
