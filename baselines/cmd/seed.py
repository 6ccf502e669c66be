"""The check of a seed in anyone's loop."""

from __future__ import annotations

from typing import Any

from baselines.parameters import check_whole


def check_seed(seed: Any) -> None:
    """ValueError unless `seed` is a whole number from 0 on that torch's generators take as it is, below 2**63."""
    check_whole("seed", seed, 0, most=2**63 - 1)
