"""Randomness from (seed, purpose, epoch), so that an epoch can be reproduced without what went before it."""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, purpose: str, epoch: int = 0) -> int:
    """A 63-bit seed; 0 is a seed like any other."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str, epoch: int = 0) -> torch.Generator:
    """A CPU generator, so that draws are the same on every device."""
    return torch.Generator().manual_seed(derive(seed, purpose, epoch))
