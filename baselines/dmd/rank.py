"""How many singular values dynamic mode decomposition keeps: a number, a share of the energy, or an optimal threshold.

Gavish and Donoho, The Optimal Hard Threshold for Singular Values is 4/sqrt(3) (IEEE Trans. Inf. Theory 2014), equation
11 for unknown noise, with the polynomial that approximates its coefficient. Energy is counted after the first snapshot
is subtracted: of the weights themselves one direction carries nearly all.

Shape suffixes: S singular values, largest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from baselines.parameters import check_choice, check_share

Offset = Literal["constant", "first", "none"]
RULES = ("energy", "gavish_donoho")

ACCURACY = 1e-8
"""what eigenvalues are asked to agree to with those from a direct singular value decomposition"""


@dataclass(frozen=True)
class Rank:
    """The rank that a rule asks for, and the one that the inner products carry."""

    asked: int
    used: int

    @property
    def cut(self) -> bool:
        return self.used < self.asked


def check_rank(rank: Any, energy: Any, offset: Any) -> None:
    """ValueError unless rank is a whole number of at least 1 or a rule, 0 < energy <= 1, and the offset is known."""
    whole = isinstance(rank, int) and not isinstance(rank, bool) and rank >= 1
    if not whole and rank not in RULES:
        raise ValueError(f"rank must be a whole number of at least 1, energy or gavish_donoho, got {rank!r}")
    check_share("energy", energy)
    check_choice("offset", offset, get_args(Offset))


def check_rank_fits(rank: int | str, T: int, offset: Offset) -> None:
    """ValueError where T snapshots cannot span so many directions."""
    most = T - 1 if offset == "none" else T - 2
    if isinstance(rank, int) and rank > most:
        raise ValueError(f"rank must be at most {most}, what {T} snapshots span, got {rank}")


def carried(squares_S: Tensor) -> int:
    """How many squared singular values, from a Gram matrix, are known well enough: those with eps (s_1/s_r)^2 <= 1e-8.

    That is the error of the r-th one relative to itself, and of what is divided by it.
    """
    eps = torch.finfo(torch.float64).eps
    return int((squares_S > 0).logical_and(eps * squares_S[0] <= ACCURACY * squares_S).sum())


def by_energy(squares_S: Tensor, energy: float) -> int:
    """The fewest whose sum is at least this share of all; 0 where all are 0."""
    if float(squares_S[0]) == 0:
        return 0
    sums_S = squares_S.cumsum(0)
    return int((sums_S[:-1] < energy * sums_S[-1]).sum()) + 1


def by_threshold(squares_S: Tensor, N: int) -> int:
    """How many singular values of an N x S matrix exceed the optimal threshold, at least 1; 0 where all are 0."""
    short, long = sorted((N, len(squares_S)))
    sigma_S = squares_S[:short].sqrt()
    beta = short / long
    coefficient = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43
    above = int((sigma_S > coefficient * sigma_S.quantile(0.5)).sum())
    return max(1, above) if float(sigma_S[0]) > 0 else 0


def choose_rank(rank: int | str, energy: float, squares_S: Tensor, motion_S: Tensor, N: int) -> Rank:
    """`squares_S` are those of the matrix to decompose, `motion_S` those of the motion since the first snapshot."""
    if rank == "energy":
        asked = by_energy(motion_S, energy)
    elif rank == "gavish_donoho":
        asked = by_threshold(squares_S, N)
    else:
        asked = int(rank)
    return Rank(asked, min(asked, carried(squares_S)))
